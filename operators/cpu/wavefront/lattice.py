"""The compiled lattice scan: a state that is the mean of what its left and its upper neighbour hand on.

See `operators.wavefront.lattice_scan` for the recurrence, and `operators.cpu.wavefront.rows` for the way through it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from operators.cpu.compilation import inner
from operators.cpu.exponential import exp
from operators.cpu.kernel import Axes2, Axes3, Axes4, Axes5, kernel
from operators.cpu.wavefront import rows
from operators.cpu.wavefront.rows import LANES

X, DT_ROW, DT_COL, DY = range(0, 4 * LANES, LANES)
A_ROW, A_COL, GRAD_A_ROW, GRAD_A_COL = range(0, 4 * LANES, LANES)
H, E_ROW, E_COL = range(0, 3 * LANES, LANES)
"""Parts of what belongs together: fields, rates, and what is kept of a cell."""
B_ROW, B_COL, C = range(3)
"""Where the input and output maps stand among those of a cell."""


class LatticeForward(NamedTuple):
    """u, dt_row, dt_col, y (B, H, W, D), of which y is written; A_row, A_col (D, S); B_row, B_col, C (B, H, W, S).

    states (B, bands, W, S, D) is written: the row of states before each band of `span` rows but the first. The scan
    starts in the last row if `bottom`, in the last column if `right`.
    """

    u: Axes4
    dt_row: Axes4
    dt_col: Axes4
    A_row: Axes2
    A_col: Axes2
    B_row: Axes4
    B_col: Axes4
    C: Axes4
    y: Axes4
    states: Axes5
    bottom: int
    right: int
    span: int


class LatticeBackward(NamedTuple):
    """As `LatticeForward`, with the gradient of y (B, H, W, D).

    Written: the gradients of fields (B, H, W, D); of rates (B, S, D), to be summed over images; of maps (blocks, B, H,
    W, S), to be summed over blocks.
    """

    u: Axes4
    dt_row: Axes4
    dt_col: Axes4
    A_row: Axes2
    A_col: Axes2
    B_row: Axes4
    B_col: Axes4
    C: Axes4
    states: Axes5
    grad_y: Axes4
    grad_u: Axes4
    grad_dt_row: Axes4
    grad_dt_col: Axes4
    grad_a_row: Axes3
    grad_a_col: Axes3
    grad_b_row: Axes5
    grad_b_col: Axes5
    grad_c: Axes5
    bottom: int
    right: int
    span: int


@inner
def _share(i: int, j: int) -> tuple[float, float]:
    """How much the left and the upper neighbour count, in the order of the scan."""
    if i == 0:
        return 1.0, 0.0
    if j == 0:
        return 0.0, 1.0
    return 0.5, 0.5


@inner(fastmath={"contract"})
def _step(given: Any, i: int, j: int, coupling: float, rate: Any, shared: Any, left: Any, cell: Any, out: Any) -> None:
    """One cell forward: see `operators.cpu.wavefront.rows.scan`."""
    from_left, from_above = _share(i, j)
    w_row, w_col = given.dtype.type(from_left), given.dtype.type(from_above)
    for v in range(LANES):
        out[v] = 0
    for s in range(shared.shape[1]):
        a, h_left, h = rate[s], left[s], cell[s]
        b_row, b_col, c = w_row * shared[B_ROW, s], w_col * shared[B_COL, s], shared[C, s]
        for v in range(LANES):
            dt_row, dt_col = given[DT_ROW + v], given[DT_COL + v]
            e_row, e_col = exp(dt_row * a[A_ROW + v]), exp(dt_col * a[A_COL + v])
            new = w_row * e_row * h_left[v] + w_col * e_col * h[v] + (dt_row * b_row + dt_col * b_col) * given[X + v]
            h[v] = new
            out[v] += new * c


_scan = rows.around(rows.scan, step=_step)


@kernel
def forward(k: LatticeForward, low: int, high: int) -> None:
    """Scan the channels of each task, row by row."""
    fields, rates, maps = (k.u, k.dt_row, k.dt_col), (k.A_row, k.A_col), (k.B_row, k.B_col, k.C)
    _scan(1, fields, rates, maps, 0.0, k.y, k.states, k.span, k.bottom, k.right, low, high)


@inner(fastmath={"contract"})
def _advance(
    given: Any, i: int, j: int, coupling: float, rate: Any, shared: Any, left: Any, up: Any, cell: Any
) -> None:
    """One cell that keeps its state and its weighted transitions: see `operators.cpu.wavefront.rows.scan_back`."""
    from_left, from_above = _share(i, j)
    w_row, w_col = given.dtype.type(from_left), given.dtype.type(from_above)
    for s in range(shared.shape[1]):
        a, h_left, h_up, kept = rate[s], left[s], up[s], cell[s]
        b_row, b_col = w_row * shared[B_ROW, s], w_col * shared[B_COL, s]
        for v in range(LANES):
            dt_row, dt_col = given[DT_ROW + v], given[DT_COL + v]
            e_row, e_col = w_row * exp(dt_row * a[A_ROW + v]), w_col * exp(dt_col * a[A_COL + v])
            kept[E_ROW + v] = e_row
            kept[E_COL + v] = e_col
            kept[H + v] = e_row * h_left[H + v] + e_col * h_up[H + v] + (dt_row * b_row + dt_col * b_col) * given[X + v]


@inner(fastmath={"contract", "reassoc"})
def _step_back(
    given: Any, i: int, j: int, coupling: float, rate: Any, shared: Any, cell: Any, left: Any, up: Any,
    to_left: Any, to_up: Any, grads: Any, grad_shared: Any,
) -> None:  # fmt: skip
    """One cell backward: see `operators.cpu.wavefront.rows.scan_back`."""
    from_left, from_above = _share(i, j)
    w_row, w_col = given.dtype.type(from_left), given.dtype.type(from_above)
    grads[:] = 0
    for s in range(shared.shape[1]):
        a, kept, h_left, h_up, back_row, back_col = rate[s], cell[s], left[s], up[s], to_left[s], to_up[s]
        b_row, b_col, c = w_row * shared[B_ROW, s], w_col * shared[B_COL, s], shared[C, s]
        sum_row = sum_col = sum_c = given.dtype.type(0)
        for v in range(LANES):
            dt_row, dt_col, x, dy = given[DT_ROW + v], given[DT_COL + v], given[X + v], given[DY + v]
            g = back_row[v] + back_col[v] + dy * c
            g_x, g_row, g_col = g * x, g * kept[E_ROW + v], g * kept[E_COL + v]
            sum_c += dy * kept[H + v]
            sum_row += g_x * dt_row
            sum_col += g_x * dt_col
            back_row[v] = g_row
            back_col[v] = g_col
            g_row *= h_left[H + v]
            g_col *= h_up[H + v]
            grads[X + v] += g * (dt_row * b_row + dt_col * b_col)
            grads[DT_ROW + v] += g_x * b_row + g_row * a[A_ROW + v]
            grads[DT_COL + v] += g_x * b_col + g_col * a[A_COL + v]
            a[GRAD_A_ROW + v] += g_row * dt_row
            a[GRAD_A_COL + v] += g_col * dt_col
        grad_shared[B_ROW, s] = w_row * sum_row
        grad_shared[B_COL, s] = w_col * sum_col
        grad_shared[C, s] = sum_c


_scan_back = rows.around(rows.scan_back, advance=_advance, step_back=_step_back)


@kernel
def backward(k: LatticeBackward, low: int, high: int) -> None:
    """Write the gradients from the channels of each task, from the last band to the first."""
    fields, rates, maps = (k.u, k.dt_row, k.dt_col), (k.A_row, k.A_col), (k.B_row, k.B_col, k.C)
    grad_fields, grad_rates = (k.grad_u, k.grad_dt_row, k.grad_dt_col), (k.grad_a_row, k.grad_a_col)
    grad_maps = (k.grad_b_row, k.grad_b_col, k.grad_c)
    _scan_back(
        3, 1, fields, rates, maps, 0.0, k.states, k.grad_y, grad_fields, grad_rates, grad_maps,
        k.span, k.bottom, k.right, low, high,
    )  # fmt: skip
