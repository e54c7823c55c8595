"""What tells cores where tokens are: rotations of features, and a convolution of values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from operators.cost import Cost
from operators.errors import check_choice


def axial_angles(*grid: int, frequency: Tensor) -> Tensor:
    """Angles (tokens, axes · f): places along the first axis times each of f frequencies, then along the next."""
    sides = (torch.arange(side, device=frequency.device, dtype=frequency.dtype) for side in grid)
    places = torch.meshgrid(*sides, indexing="ij")
    return torch.cat([place.flatten()[:, None] * frequency for place in places], dim=-1)


def turn(features: Tensor, angles: Tensor) -> Tensor:
    """Turn channel pairs (i, i + d/2) of features (…, heads, N, d) by angles (N, d/2) or (heads, N, d/2)."""
    cos, sin = angles.cos(), angles.sin()
    first, second = features.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


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
