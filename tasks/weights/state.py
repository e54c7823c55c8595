"""Weights of others by name, taken out one by one, so that none is forgotten."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from models.trunk import Trunk
from operators.errors import InputError
from operators.mixers.attention.attention import Attention
from operators.mixers.heads import default_heads
from operators.shell.spec import ShellSpec

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1152: 16, 1280: 16}
"""Of the published ViTs and DiTs by width: files of weights do not tell."""
SHELL = ShellSpec(gate="none", norm="none", bias=True)
"""What timm's attention is made of besides attention."""


class Weights:
    """Weights by name; `take` removes what it returns.

    Args:
        state: names and tensors.
        where: what they are called in messages.
    """

    def __init__(self, state: Mapping[str, Tensor], where: str) -> None:
        self._left = dict(state)
        self.where = where

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def shape(self, name: str) -> torch.Size:
        """Of a tensor; raises `InputError` as `take`."""
        if name not in self._left:
            raise InputError(f"{self.where} has no {name}: it is not of the layout that it was taken for")
        return self._left[name].shape

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor.

        Raises:
            InputError: there is none of that name, or it has another shape or numbers that are not finite.
        """
        if tuple(self.shape(name)) != shape:
            raise InputError(f"{self.where} has {name} of shape {tuple(self.shape(name))}, and not {shape}")
        value = self._left.pop(name)
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{self.where} is damaged: {name} is not finite")
        return value

    def blocks(self) -> int:
        """How many blocks there are."""
        numbers = {name.split(".")[1] for name in self._left if name.startswith("blocks.")}
        return len(numbers)

    def finish(self) -> None:
        """Raise `InputError` if something is left over."""
        if self._left:
            listed = ", ".join(sorted(self._left)[:3]) + (", …" if len(self._left) > 3 else "")
            raise InputError(f"{self.where} holds {listed}: this trunk has no place for {_things(len(self._left))}")


def _things(number: int) -> str:
    return "it" if number == 1 else f"these {number}"


def check_mixers(model: Trunk, dim: int) -> dict[str, str]:
    """The overrides without which the model's mixers are not the attention of a ViT of that width."""
    needed: dict[str, str] = {}
    for mixer in model.mixers:
        core = mixer.core
        if not isinstance(core, Attention):
            other = {} if HEADS.get(dim, default_heads(dim)) == default_heads(dim) else {"mixer.heads": str(HEADS[dim])}
            return {"mixer": "attention", "shell": "published"} | other
        if mixer.shell.spec != SHELL:
            needed["shell"] = "published"
        if core.rope:
            needed["mixer.rope"] = "false"
        if not isinstance(core.q_norm, torch.nn.Identity):
            needed["mixer.qk_norm"] = "false"
        if core.qk.bias is None:
            needed["mixer.bias"] = "true"
        if core.heads != HEADS.get(dim, core.heads):
            needed["mixer.heads"] = str(HEADS[dim])
    return needed


def differences(model: Trunk, asked: Mapping[str, object]) -> dict[str, str]:
    """The overrides that give the model's spec the values that are `asked`."""
    own = {**vars(model.spec), "hidden": model.spec.ffn_width}
    return {f"model.{key}": _text(value) for key, value in asked.items() if own[key] != value}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def refuse(where: str, needed: Mapping[str, str]) -> None:
    """Raise `InputError` that names the overrides, if there are any."""
    if needed:
        listed = " ".join(f"{key}={value}" for key, value in needed.items())
        raise InputError(f"{where}: this model cannot hold these weights; give {listed}")


def attention(weights: Weights, block: str, own: str, dim: int) -> dict[str, Tensor]:
    """The weights of an attention mixer called `own` from those of `block`: q and k for the core, v for the shell."""
    qkv, bias = weights.take(f"{block}.attn.qkv.weight", 3 * dim, dim), weights.take(f"{block}.attn.qkv.bias", 3 * dim)
    return {
        f"{own}.core.qk.weight": qkv[: 2 * dim],
        f"{own}.core.qk.bias": bias[: 2 * dim],
        f"{own}.shell.in_proj.weight": qkv[2 * dim :],
        f"{own}.shell.in_proj.bias": bias[2 * dim :],
        f"{own}.shell.out_proj.weight": weights.take(f"{block}.attn.proj.weight", dim, dim),
        f"{own}.shell.out_proj.bias": weights.take(f"{block}.attn.proj.bias", dim),
    }


def ffn(weights: Weights, block: str, own: str, dim: int, hidden: int) -> dict[str, Tensor]:
    """The weights of a feed-forward network."""
    return {
        f"{own}.up.weight": weights.take(f"{block}.mlp.fc1.weight", hidden, dim),
        f"{own}.up.bias": weights.take(f"{block}.mlp.fc1.bias", hidden),
        f"{own}.down.weight": weights.take(f"{block}.mlp.fc2.weight", dim, hidden),
        f"{own}.down.bias": weights.take(f"{block}.mlp.fc2.bias", dim),
    }


def table(weights: Weights, positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embeddings (h, w, C) for `grid` from those (N, C) of a square, or of `grid` itself.

    For another grid than the weights' they are interpolated as timm does: bicubic, antialiased, in float32.

    Raises:
        InputError: N is neither a square nor the size of `grid`.
    """
    number, dim = positions.shape
    side = round(number**0.5)
    if number == grid[0] * grid[1] and (grid[0] == grid[1] or side**2 != number):
        return positions.view(*grid, dim)
    if side**2 != number:
        raise InputError(
            f"{weights.where} has {number} positions, which are no square and not the {grid[0]}×{grid[1]} of this model"
        )
    planes = positions.float().view(1, side, side, dim).movedim(-1, 1)
    resized = torch.nn.functional.interpolate(planes, grid, mode="bicubic", align_corners=False, antialias=True)
    return resized[0].movedim(0, -1)
