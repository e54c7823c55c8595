"""The compiled Roesser scan: one state that goes along rows, one that goes down columns, coupled by four transitions.

See `operators.wavefront.roesser_scan` for the recurrence, and `operators.cpu.wavefront.rows` for the way through it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from operators.cpu.compilation import inner
from operators.cpu.exponential import exp
from operators.cpu.kernel import Axes2, Axes3, Axes4, Axes5, kernel
from operators.cpu.wavefront import rows
from operators.cpu.wavefront.rows import LANES

X, DT_ROW, DT_COL, DY = range(0, 4 * LANES, LANES)
A_1, A_2, A_3, A_4, GRAD_A_1, GRAD_A_2, GRAD_A_3, GRAD_A_4 = range(0, 8 * LANES, LANES)
G, H, E_1, E_2, E_3, E_4 = range(0, 6 * LANES, LANES)
"""Parts of what belongs together: fields, rates, and what is kept of a cell, rows' state before columns'."""
B_ROW, B_COL, C_ROW, C_COL = range(4)
"""Where the input and output maps stand among those of a cell."""


class RoesserForward(NamedTuple):
    """u, dt_row, dt_col, y (B, H, W, D), of which y is written; A_1 to A_4 (D, S); maps B and C (B, H, W, S).

    states (B, bands, W, 2 S, D) is written: the row of states before each band of `span` rows but the first. The scan
    starts in the last row if `bottom`, in the last column if `right`.
    """

    u: Axes4
    dt_row: Axes4
    dt_col: Axes4
    A_1: Axes2
    A_2: Axes2
    A_3: Axes2
    A_4: Axes2
    B_row: Axes4
    B_col: Axes4
    C_row: Axes4
    C_col: Axes4
    y: Axes4
    states: Axes5
    bottom: int
    right: int
    coupling: float
    span: int


class RoesserBackward(NamedTuple):
    """As `RoesserForward`, with the gradient of y (B, H, W, D).

    Written: the gradients of fields (B, H, W, D); of rates (B, S, D), to be summed over images; of maps (blocks, B, H,
    W, S), to be summed over blocks.
    """

    u: Axes4
    dt_row: Axes4
    dt_col: Axes4
    A_1: Axes2
    A_2: Axes2
    A_3: Axes2
    A_4: Axes2
    B_row: Axes4
    B_col: Axes4
    C_row: Axes4
    C_col: Axes4
    states: Axes5
    grad_y: Axes4
    grad_u: Axes4
    grad_dt_row: Axes4
    grad_dt_col: Axes4
    grad_a_1: Axes3
    grad_a_2: Axes3
    grad_a_3: Axes3
    grad_a_4: Axes3
    grad_b_row: Axes5
    grad_b_col: Axes5
    grad_c_row: Axes5
    grad_c_col: Axes5
    bottom: int
    right: int
    coupling: float
    span: int


@inner(fastmath={"contract"})
def _step(given: Any, i: int, j: int, coupling: float, rate: Any, shared: Any, left: Any, cell: Any, out: Any) -> None:
    """One cell forward: see `operators.cpu.wavefront.rows.scan`."""
    other, own = given.dtype.type(coupling), given.dtype.type(1 - coupling)
    for v in range(LANES):
        out[v] = 0
    for s in range(shared.shape[1]):
        a, before, kept = rate[s], left[s], cell[s]
        b_row, b_col, c_row, c_col = shared[B_ROW, s], shared[B_COL, s], shared[C_ROW, s], shared[C_COL, s]
        for v in range(LANES):
            dt_row, dt_col, x = given[DT_ROW + v], given[DT_COL + v], given[X + v]
            g_left, h_left, g_up, h_up = before[G + v], before[H + v], kept[G + v], kept[H + v]
            along = own * exp(dt_row * a[A_1 + v]) * g_left + other * exp(dt_row * a[A_2 + v]) * h_left
            along += dt_row * x * b_row
            down = other * exp(dt_col * a[A_3 + v]) * g_up + own * exp(dt_col * a[A_4 + v]) * h_up
            down += dt_col * x * b_col
            kept[G + v] = along
            kept[H + v] = down
            out[v] += along * c_row + down * c_col


_scan = rows.around(rows.scan, step=_step)


@kernel
def forward(k: RoesserForward, low: int, high: int) -> None:
    """Scan the channels of each task, row by row."""
    fields, rates, maps = (k.u, k.dt_row, k.dt_col), (k.A_1, k.A_2, k.A_3, k.A_4), (k.B_row, k.B_col, k.C_row, k.C_col)
    _scan(2, fields, rates, maps, k.coupling, k.y, k.states, k.span, k.bottom, k.right, low, high)


@inner(fastmath={"contract"})
def _advance(
    given: Any, i: int, j: int, coupling: float, rate: Any, shared: Any, left: Any, up: Any, cell: Any
) -> None:
    """One cell that keeps its states and its weighted transitions: see `operators.cpu.wavefront.rows.scan_back`."""
    other, own = given.dtype.type(coupling), given.dtype.type(1 - coupling)
    for s in range(shared.shape[1]):
        a, before, above, kept, b_row, b_col = rate[s], left[s], up[s], cell[s], shared[B_ROW, s], shared[B_COL, s]
        for v in range(LANES):
            dt_row, dt_col, x = given[DT_ROW + v], given[DT_COL + v], given[X + v]
            e_1, e_2 = own * exp(dt_row * a[A_1 + v]), other * exp(dt_row * a[A_2 + v])
            e_3, e_4 = other * exp(dt_col * a[A_3 + v]), own * exp(dt_col * a[A_4 + v])
            kept[E_1 + v] = e_1
            kept[E_2 + v] = e_2
            kept[E_3 + v] = e_3
            kept[E_4 + v] = e_4
            kept[G + v] = e_1 * before[G + v] + e_2 * before[H + v] + dt_row * x * b_row
            kept[H + v] = e_3 * above[G + v] + e_4 * above[H + v] + dt_col * x * b_col


@inner(fastmath={"contract", "reassoc"})
def _step_back(
    given: Any, i: int, j: int, coupling: float, rate: Any, shared: Any, cell: Any, left: Any, up: Any,
    to_left: Any, to_up: Any, grads: Any, grad_shared: Any,
) -> None:  # fmt: skip
    """One cell backward: see `operators.cpu.wavefront.rows.scan_back`."""
    grads[:] = 0
    for s in range(shared.shape[1]):
        a, kept, before, above, back_row, back_col = rate[s], cell[s], left[s], up[s], to_left[s], to_up[s]
        b_row, b_col, c_row, c_col = shared[B_ROW, s], shared[B_COL, s], shared[C_ROW, s], shared[C_COL, s]
        sum_b_row = sum_b_col = sum_c_row = sum_c_col = given.dtype.type(0)
        for v in range(LANES):
            dt_row, dt_col, x, dy = given[DT_ROW + v], given[DT_COL + v], given[X + v], given[DY + v]
            g_along = back_row[G + v] + back_col[G + v] + dy * c_row
            g_down = back_row[H + v] + back_col[H + v] + dy * c_col
            sum_c_row += dy * kept[G + v]
            sum_c_col += dy * kept[H + v]
            sum_b_row += g_along * x * dt_row
            sum_b_col += g_down * x * dt_col
            g_1, g_2 = g_along * kept[E_1 + v], g_along * kept[E_2 + v]
            g_3, g_4 = g_down * kept[E_3 + v], g_down * kept[E_4 + v]
            back_row[G + v] = g_1
            back_row[H + v] = g_2
            back_col[G + v] = g_3
            back_col[H + v] = g_4
            g_1 *= before[G + v]
            g_2 *= before[H + v]
            g_3 *= above[G + v]
            g_4 *= above[H + v]
            grads[X + v] += g_along * b_row * dt_row + g_down * b_col * dt_col
            grads[DT_ROW + v] += g_1 * a[A_1 + v] + g_2 * a[A_2 + v] + g_along * b_row * x
            grads[DT_COL + v] += g_3 * a[A_3 + v] + g_4 * a[A_4 + v] + g_down * b_col * x
            a[GRAD_A_1 + v] += g_1 * dt_row
            a[GRAD_A_2 + v] += g_2 * dt_row
            a[GRAD_A_3 + v] += g_3 * dt_col
            a[GRAD_A_4 + v] += g_4 * dt_col
        grad_shared[B_ROW, s] = sum_b_row
        grad_shared[B_COL, s] = sum_b_col
        grad_shared[C_ROW, s] = sum_c_row
        grad_shared[C_COL, s] = sum_c_col


_scan_back = rows.around(rows.scan_back, advance=_advance, step_back=_step_back)


@kernel
def backward(k: RoesserBackward, low: int, high: int) -> None:
    """Write the gradients from the channels of each task, from the last band to the first."""
    fields, rates, maps = (k.u, k.dt_row, k.dt_col), (k.A_1, k.A_2, k.A_3, k.A_4), (k.B_row, k.B_col, k.C_row, k.C_col)
    grad_fields = (k.grad_u, k.grad_dt_row, k.grad_dt_col)
    grad_rates = (k.grad_a_1, k.grad_a_2, k.grad_a_3, k.grad_a_4)
    grad_maps = (k.grad_b_row, k.grad_b_col, k.grad_c_row, k.grad_c_col)
    _scan_back(
        6, 2, fields, rates, maps, k.coupling, k.states, k.grad_y, grad_fields, grad_rates,
        grad_maps, k.span, k.bottom, k.right, low, high,
    )  # fmt: skip
