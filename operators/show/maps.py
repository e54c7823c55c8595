"""Which of the tensors that `mixer.inspect` gives can be drawn, and in what frame: told by their names and shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

KERNELS = ("kernel", "kernels", "filters", "bias")
"""First words of the names of what is given by offset, zero in the middle."""
TOKENS, OFFSETS, WAVES, READS = "tokens", "offsets", "waves", "reads"
"""Frames: by token; by offset; by wave number, half a spectrum; what the middle token reads of each token."""


@dataclass(frozen=True)
class Maps:
    """Pictures of one kind.

    Attributes:
        name: the tensor's.
        frame: one of those above.
        maps: (count, height, width).
        index: of each map among the leading axes of the tensor.
        span: tokens along the sides of an entry, down and across: more than one where a map is coarser than the grid.
    """

    name: str
    frame: str
    maps: Tensor
    index: list[tuple[int, ...]]
    span: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Curves:
    """Numbers by distance along an order, (count, N), or by channel, (1, channels)."""

    name: str
    along: str
    values: Tensor
    index: list[tuple[int, ...]]


def drawable(named: Mapping[str, Tensor], grid: tuple[int, int]) -> Iterator[Maps | Curves]:
    """What of the tensors of one image can be drawn; others are left out."""
    for name, tensor in named.items():
        values = tensor.detach().cpu().double()
        made = _maps(name, values, grid) or _curves(name, values, grid)
        if made is not None:
            yield made


def _maps(name: str, values: Tensor, grid: tuple[int, int]) -> Maps | None:
    height, width = grid
    tokens = height * width
    if values.ndim < 2:
        return None
    shape, (rows, columns) = values.shape[:-2], values.shape[-2:]

    def made(frame: str, maps: Tensor, span: tuple[int, int] = (1, 1)) -> Maps:
        return Maps(name, frame, maps.reshape(-1, *maps.shape[-2:]), list(_indices(shape)), span)

    odd = rows % 2 == columns % 2 == 1
    if name.split("_")[0] in KERNELS and ((rows, columns) == grid or odd):
        return made(OFFSETS, values)
    if (rows, columns) == (tokens, tokens) and tokens > 1:
        return made(READS, values[..., height // 2 * width + width // 2, :].unflatten(-1, grid))
    if rows == tokens and tokens > 1 and (side := _reduction(columns, grid)):
        coarse = values[..., height // 2 * width + width // 2, :].unflatten(-1, (height // side, width // side))
        return made(READS, coarse, (side, side))
    if (rows, columns) == grid:
        return made(TOKENS, values)
    if (rows, columns) == (height, width // 2 + 1):
        return made(WAVES, values.roll(height // 2, -2))
    if height % rows == 0 and width % columns == 0 and height // rows == width // columns and min(rows, columns) > 1:
        return made(TOKENS, values, (height // rows, width // columns))
    return None


def _reduction(keys: int, grid: tuple[int, int]) -> int | None:
    """How many tokens along a side are one of a coarser grid with so many."""
    for side in range(2, min(grid) + 1):
        if grid[0] % side == grid[1] % side == 0 and keys * side**2 == grid[0] * grid[1]:
            return side
    return None


def _curves(name: str, values: Tensor, grid: tuple[int, int]) -> Curves | None:
    tokens = grid[0] * grid[1]
    if tokens > 1 and values.shape[-1] == tokens:
        return Curves(
            name, "distance along the order (tokens)", values.reshape(-1, tokens), list(_indices(values.shape[:-1]))
        )
    if values.numel() == values.shape[-1] > 1:
        return Curves(name, "channel", values.reshape(1, -1), [()])
    return None


def _indices(shape: torch.Size) -> Iterator[tuple[int, ...]]:
    """Of each entry of leading axes, all axes of length one left out."""
    for flat in range(shape.numel()):
        index = torch.unravel_index(torch.tensor(flat), shape) if len(shape) else ()
        yield tuple(int(each) for each, length in zip(index, shape, strict=True) if length > 1)
