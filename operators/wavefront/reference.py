"""The recurrences over a grid by their definitions: a loop over cells. All start at the top left.

u and steps dt (B, H, W, D), rates A (D, S), input and output maps B and C (B, H, W, S); the output is (B, H, W, D).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

State = tuple[Tensor, ...]
Cell = Callable[[int, int, State | None, State | None], State]
"""From a cell's row and column and the states of its left and upper neighbours, None beyond the border, to its own."""


def lattice(
    u: Tensor, dt_row: Tensor, dt_col: Tensor, A_row: Tensor, A_col: Tensor, B_row: Tensor, B_col: Tensor, C: Tensor
) -> Tensor:
    """Output of `operators.wavefront.lattice_scan`, from the top left."""

    def cell(i: int, j: int, left: State | None, up: State | None) -> State:
        x, rows, columns = u[:, i, j, :, None], dt_row[:, i, j, :, None], dt_col[:, i, j, :, None]
        from_left, from_above = rows * B_row[:, i, j, None] * x, columns * B_col[:, i, j, None] * x
        if left is not None:
            from_left = from_left + torch.exp(rows * A_row) * left[0]
        if up is None:
            return (from_left,)
        from_above = from_above + torch.exp(columns * A_col) * up[0]
        return (from_above,) if left is None else ((from_left + from_above) / 2,)

    return _scanned(cell, lambda i, j, state: state[0] * C[:, i, j, None], u)


def two_step(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Output of `operators.wavefront.two_step_scan`, from the top left."""

    def cell(i: int, j: int, left: State | None, up: State | None) -> State:
        step = dt[:, i, j, :, None]
        through = torch.exp(step * A)
        g = step * B[:, i, j, None] * u[:, i, j, :, None]
        if left is not None:
            g = g + through * left[0]
        return g, (g if up is None else g + through * up[1])

    return _scanned(cell, lambda i, j, state: state[1] * C[:, i, j, None], u)


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
    own, other = 1 - coupling, coupling

    def cell(i: int, j: int, left: State | None, up: State | None) -> State:
        x, rows, columns = u[:, i, j, :, None], dt_row[:, i, j, :, None], dt_col[:, i, j, :, None]
        g, h = rows * B_row[:, i, j, None] * x, columns * B_col[:, i, j, None] * x
        if left is not None:
            g = g + own * torch.exp(rows * A_1) * left[0] + other * torch.exp(rows * A_2) * left[1]
        if up is not None:
            h = h + other * torch.exp(columns * A_3) * up[0] + own * torch.exp(columns * A_4) * up[1]
        return g, h

    def read(i: int, j: int, state: State) -> Tensor:
        return state[0] * C_row[:, i, j, None] + state[1] * C_col[:, i, j, None]

    return _scanned(cell, read, u)


def _scanned(cell: Cell, read: Callable[[int, int, State], Tensor], u: Tensor) -> Tensor:
    """All outputs Σ_s read (B, H, W, D), cell by cell."""
    states: dict[tuple[int, int], State] = {}
    outputs = []
    for i in range(u.shape[1]):
        for j in range(u.shape[2]):
            states[i, j] = cell(i, j, states.get((i, j - 1)), states.get((i - 1, j)))
            outputs.append(read(i, j, states[i, j]).sum(-1))
    return torch.stack(outputs, dim=1).view_as(u)
