"""The recurrences over a grid in plain tensor operations: all cells of an antidiagonal i + j = const at once.

A cell needs its left and its upper neighbour, which lie on the antidiagonal before: H + W − 1 steps for H × W cells.
Autograd differentiates them, to any order; it stores some numbers for each cell, channel and state.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Walk(NamedTuple):
    """The way through a grid by antidiagonals, from the top right to the bottom left on each.

    Attributes:
        order: the cells' numbers i W + j in that order.
        inverse: the place of each cell in it.
        lines: first and last row of each antidiagonal.
    """

    order: Tensor
    inverse: Tensor
    lines: list[tuple[int, int]]

    def along(self, field: Tensor) -> Tensor:
        """The cells of (B, H, W, …) in that order, (B, N, …)."""
        return field.flatten(1, 2).index_select(1, self.order)

    def back(self, cells: Tensor, height: int, width: int) -> Tensor:
        """What `along` has put in order, on its grid."""
        return cells.index_select(1, self.inverse).unflatten(1, (height, width))

    def by_line(self, *cells: Tensor) -> Iterator[tuple[tuple[int, int], tuple[Tensor, ...]]]:
        """Each antidiagonal's first and last row, and its parts of (B, N, …)."""
        sizes = [high - low + 1 for low, high in self.lines]
        return zip(self.lines, zip(*(each.split(sizes, 1) for each in cells), strict=True), strict=True)


def walk(height: int, width: int, device: torch.device) -> Walk:
    """The way through an H × W grid."""
    row = torch.arange(height, device=device)[:, None]
    column = torch.arange(width, device=device)
    order = ((row + column) * height + row).flatten().argsort()
    lines = [(max(0, d - width + 1), min(d, height - 1)) for d in range(height + width - 1)]
    return Walk(order, order.argsort(), lines)


def neighbours(before: Tensor, line: tuple[int, int], last: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What stands left of and above each cell of a line, from the line before, (B, n, …) both; zeros off the grid."""
    (low, high), (start, _) = line, last
    padded = F.pad(before, (0, 0) * (before.ndim - 2) + (1, 1))
    return padded[:, low - start + 1 : high - start + 2], padded[:, low - start : high - start + 1]


def lattice(
    u: Tensor, dt_row: Tensor, dt_col: Tensor, A_row: Tensor, A_col: Tensor, B_row: Tensor, B_col: Tensor, C: Tensor
) -> Tensor:
    """Output of `operators.wavefront.lattice_scan`, from the top left."""
    height, width = u.shape[1:3]
    way = walk(height, width, u.device)
    from_left, from_above = (way.along(share) for share in shares(height, width, u))
    u, dt_row, dt_col, B_row, B_col, C = map(way.along, (u, dt_row, dt_col, B_row, B_col, C))
    source = (from_left * dt_row * u)[..., None] * B_row[:, :, None]
    source = source + (from_above * dt_col * u)[..., None] * B_col[:, :, None]
    through_row = from_left[..., None] * torch.exp(dt_row[..., None] * A_row)
    through_col = from_above[..., None] * torch.exp(dt_col[..., None] * A_col)
    states: list[Tensor] = []
    last = (0, 0)
    for line, (h, a_row, a_col) in way.by_line(source, through_row, through_col):
        if states:
            left, up = neighbours(states[-1], line, last)
            h = h + a_row * left + a_col * up
        states.append(h)
        last = line
    y = (torch.cat(states, 1) * C[:, :, None]).sum(-1)
    return way.back(y, height, width)


def two_step(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Output of `operators.wavefront.two_step_scan`, from the top left: all rows at once, then all columns."""
    through = torch.exp(dt[..., None] * A)
    state = (dt * u)[..., None] * B[..., None, :]
    for axis in (2, 1):
        lines: list[Tensor] = []
        for a, h in zip(through.unbind(axis), state.unbind(axis), strict=True):
            lines.append(torch.addcmul(h, a, lines[-1]) if lines else h)
        state = torch.stack(lines, axis)
    return (state * C[..., None, :]).sum(-1)


def roesser(
    u: Tensor,
    dt_row: Tensor,
    dt_col: Tensor,
    A_1: Tensor,
    A_2: Tensor,
    A_3: Tensor,
    A_4: Tensor,
    B_row: Tensor,
    B_col: Tensor,
    C_row: Tensor,
    C_col: Tensor,
    coupling: float,
) -> Tensor:
    """Output of `operators.wavefront.roesser_scan`, from the top left."""
    height, width = u.shape[1:3]
    way = walk(height, width, u.device)
    u, dt_row, dt_col, B_row, B_col, C_row, C_col = map(way.along, (u, dt_row, dt_col, B_row, B_col, C_row, C_col))
    sources = [(dt * u)[..., None] * B[:, :, None] for dt, B in ((dt_row, B_row), (dt_col, B_col))]
    shared = (
        (1 - coupling, dt_row, A_1),
        (coupling, dt_row, A_2),
        (coupling, dt_col, A_3),
        (1 - coupling, dt_col, A_4),
    )
    transitions = [share * torch.exp(dt[..., None] * A) for share, dt, A in shared]
    states: list[tuple[Tensor, Tensor]] = []
    last = (0, 0)
    for line, (g, h, a_1, a_2, a_3, a_4) in way.by_line(*sources, *transitions):
        if states:
            (g_left, g_up), (h_left, h_up) = (neighbours(before, line, last) for before in states[-1])
            g, h = g + a_1 * g_left + a_2 * h_left, h + a_3 * g_up + a_4 * h_up
        states.append((g, h))
        last = line
    along, down = (torch.cat(cells, 1) for cells in zip(*states, strict=True))
    return way.back((along * C_row[:, :, None] + down * C_col[:, :, None]).sum(-1), height, width)


def shares(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """How much of a cell comes from its left and from its upper neighbour, (1, H, W, 1) both.

    Half of it each; all from the left in the first row, else all from above in the first column.
    """
    above = like.new_full((1, height, width, 1), 0.5)
    above[:, :, 0] = 1
    above[:, 0] = 0
    return 1 - above, above
