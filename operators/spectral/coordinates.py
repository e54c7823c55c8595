"""Filters as functions of where they are: networks of sines, and what they take as coordinates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

SLOW, FAST = -math.log(1e-2) / 1.5, -math.log(1e-2) / 0.3
"""Decay over a sequence of the first and of the last channel of Hyena: to a hundredth after 1.5 and 0.3 of it."""


def fractions(length: int, like: Tensor) -> Tensor:
    """Places 0 … 1 of `length` tokens; 0 alone for a single one."""
    return torch.linspace(0, 1 if length > 1 else 0, length, dtype=like.dtype, device=like.device)


def hyena_features(length: int, bands: int, like: Tensor) -> Tensor:
    """Features (length, 1 + 2 bands) of places along an axis: t, cos and −sin of f w (Hyena, arXiv 2302.10866).

    t runs from 0 to 1, w over a turn; the frequencies f from 1e-4 to bands − 1.
    """
    turn = 2 * math.pi * torch.arange(length, dtype=like.dtype, device=like.device) / length
    highest = bands - 1 if bands > 1 else 1e-4
    phase = turn[:, None] * torch.linspace(1e-4, highest, bands, dtype=like.dtype, device=like.device)
    return torch.cat([fractions(length, like)[:, None], phase.cos(), -phase.sin()], dim=1)


def sinusoids(channels: int, side: int) -> Tensor:
    """Sines and cosines (side, side, channels), of the column in one half of the channels and of the row in the other.

    Angles are the index times 10000^(−2 i / half), of which there are half / 2; channels: a multiple of 4.
    """
    half = channels // 2
    rates = torch.exp(torch.arange(0.0, half, 2) * -(math.log(10000.0) / half))
    angles = torch.arange(0.0, side)[:, None] * rates
    line = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
    return torch.cat([line[None].expand(side, -1, -1), line[:, None].expand(-1, side, -1)], -1)


def centred(side: int, step: float, like: Tensor) -> Tensor:
    """The places (1 − side) step … (side − 1) step of the offsets along an axis, (2 side − 1)."""
    return torch.arange(1 - side, side, dtype=like.dtype, device=like.device) * step


def plane(rows: Tensor, columns: Tensor) -> Tensor:
    """All pairs (P, Q, A + B) of features of rows (P, A) and columns (Q, B)."""
    shape = len(rows), len(columns), -1
    return torch.cat([rows[:, None].expand(shape), columns[None].expand(shape)], -1)


class SineNetwork(nn.Module):
    """Layers with the sine for activation, each of whose units has a frequency: W sin(f · (… sin(f · (V p + b)) …)).

    Args:
        widths: of input, hidden layers and output.
        frequencies: how many sets of frequencies there are: 0 for none, 1 for one that all layers share, or one for
            each layer but the last. All of them are learned.
        bias: whether the last layer has a bias.
        start: what frequencies are at the start.
    """

    def __init__(self, widths: Sequence[int], *, frequencies: int, bias: bool, start: float = 1.0) -> None:
        super().__init__()
        last = len(widths) - 2
        pairs = itertools.pairwise(widths)
        self.layers = nn.ModuleList([nn.Linear(a, b, bias=bias or i < last) for i, (a, b) in enumerate(pairs)])
        self.frequencies = nn.ParameterList([torch.full((widths[1],), start) for _ in range(frequencies)])

    def forward(self, places: Tensor) -> Tensor:
        """Values (…, last width) at places (…, first width), in the type of the latter."""
        hidden, last = places, len(self.layers) - 1
        for number, layer in enumerate(self.linears()):
            bias = None if layer.bias is None else layer.bias.to(places.dtype)
            hidden = nn.functional.linear(hidden, layer.weight.to(places.dtype), bias)
            if number < last:
                if len(self.frequencies):
                    hidden = hidden * self.frequencies[min(number, len(self.frequencies) - 1)].to(places.dtype)
                hidden = hidden.sin()
        return hidden

    def linears(self) -> list[nn.Linear]:
        """The linear maps in turn, the readout last."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]
