"""What tells cores where tokens are: rotations of features, and a convolution of values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from operators.cost import Cost
from operators.errors import check_choice
from operators.runtime.differentiation import by_autograd, through


def axial_angles(*grid: int, frequency: Tensor) -> Tensor:
    """Angles (tokens, axes · f): places along the first axis times each of f frequencies, then along the next."""
    sides = (torch.arange(side, device=frequency.device, dtype=frequency.dtype) for side in grid)
    places = torch.meshgrid(*sides, indexing="ij")
    return torch.cat([place.flatten()[:, None] * frequency for place in places], dim=-1)


def turn(features: Tensor, angles: Tensor) -> Tensor:
    """Turn channel pairs (i, i + p) of features (…, d) by angles (…, p), which broadcast; d − 2 p channels are left."""
    return turn_together(angles, features)[0]


def turn_together(angles: Tensor, *features: Tensor) -> tuple[Tensor, ...]:
    """As `turn`, several features by the same angles."""
    if by_autograd():
        return turn_plain(angles, *features)
    turned: tuple[Tensor, ...] = _Turned.apply(angles, *features)
    return turned


def turn_plain(angles: Tensor, *features: Tensor) -> tuple[Tensor, ...]:
    """As `turn_together`, differentiated by autograd."""
    pairs = angles.shape[-1]
    cos, sin = angles.cos(), angles.sin()
    turned = []
    for each in features:
        first, second, rest = each.split([pairs, pairs, each.shape[-1] - 2 * pairs], dim=-1)
        turned.append(torch.cat([first * cos - second * sin, first * sin + second * cos, rest], dim=-1))
    return tuple(turned)


class _Turned(torch.autograd.Function):
    """Rotations in one piece of memory; their gradients turn back."""

    @staticmethod
    def forward(ctx: Any, angles: Tensor, *features: Tensor) -> tuple[Tensor, ...]:
        cos, sin = angles.cos(), angles.sin()
        turned = tuple(_rotated(each, cos, sin, 1) for each in features)
        ctx.count = len(features)
        ctx.save_for_backward(angles, cos, sin, *features, *(turned if ctx.needs_input_grad[0] else ()))
        return turned

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        angles, cos, sin, *kept = ctx.saved_tensors
        features, turned = kept[: ctx.count], kept[ctx.count :]
        if torch.is_grad_enabled():  # for second derivatives
            return through(turn_plain, (angles, *features), (), gradients)
        of_angles = None
        for each, gradient in zip(turned, gradients, strict=False):
            (first, second), (of_first, of_second) = (
                t[..., : 2 * angles.shape[-1]].chunk(2, -1) for t in (each, gradient)
            )
            share = (of_second * first).addcmul_(of_first, second, value=-1).sum_to_size(angles.shape)
            of_angles = share if of_angles is None else of_angles + share
        return of_angles, *(_rotated(gradient, cos, sin, -1) for gradient in gradients)


def _rotated(features: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    """Features with their pairs turned by angles, or back by them."""
    turned = features.clone(memory_format=torch.contiguous_format)
    pairs = cos.shape[-1]
    first, second = features[..., : 2 * pairs].chunk(2, -1)
    turned[..., :pairs].mul_(cos).addcmul_(second, sin, value=-sign)
    turned[..., pairs : 2 * pairs].mul_(cos).addcmul_(first, sin, value=sign)
    return turned


class LocalValues(nn.Conv2d):
    """A depthwise convolution of the values (B, H, W, D), zeros beyond the border, as torch initialises it (LePE).

    Args:
        channels: D, or the width of a head if all heads share its filters.
        side: of the filters, odd.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__(channels, channels, side, padding=side // 2, groups=channels)

    def forward(self, values: Tensor) -> Tensor:
        """The convolved values, (B, H, W, D)."""
        batch, height, width, channels = values.shape
        images = values.movedim(-1, 1).reshape(-1, self.in_channels, height, width)
        return super().forward(images).view(batch, channels, height, width).movedim(1, -1)

    def cost(self, tokens: int, channels: int) -> Cost:
        """One operation for each tap of each of the D channels."""
        return Cost(mixing_macs=self.kernel_size[0] ** 2 * tokens * channels)


def local_values(asked: bool | None, channels: int, side: int) -> LocalValues | None:
    """The convolution if it is `asked` for. Raises `InputError` for what is neither True, False nor None."""
    if asked is not None:
        check_choice("mixer.lepe", asked, (True, False))
    return LocalValues(channels, side) if asked else None
