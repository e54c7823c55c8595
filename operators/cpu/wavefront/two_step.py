"""The compiled two-step scan: along each row, and down each column of what that has made.

See `operators.wavefront.two_step_scan` for the recurrence, and `operators.cpu.wavefront.rows` for the way through it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from operators.cpu.compilation import inner
from operators.cpu.exponential import exp
from operators.cpu.kernel import Axes2, Axes3, Axes4, Axes5, kernel
from operators.cpu.wavefront import rows
from operators.cpu.wavefront.rows import LANES

X, DT, DY = range(0, 3 * LANES, LANES)
A, GRAD_A = range(0, 2 * LANES, LANES)
H, G, E = range(0, 3 * LANES, LANES)
"""Parts of what belongs together: fields, rates, and what is kept of a cell, columns' state before rows'."""
B, C = range(2)
"""Where the input and output maps stand among those of a cell."""


class TwoStepForward(NamedTuple):
    """u, dt, y (B, H, W, D), of which y is written; A (D, S); B, C (B, H, W, S).

    states (B, bands, W, S, D) is written: the row of states before each band of `span` rows but the first. The scan
    starts in the last row if `bottom`, in the last column if `right`.
    """

    u: Axes4
    dt: Axes4
    A: Axes2
    B: Axes4
    C: Axes4
    y: Axes4
    states: Axes5
    bottom: int
    right: int
    span: int


class TwoStepBackward(NamedTuple):
    """As `TwoStepForward`, with the gradient of y (B, H, W, D).

    Written: the gradients of fields (B, H, W, D); of rates (B, S, D), to be summed over images; of maps (blocks, B, H,
    W, S), to be summed over blocks.
    """

    u: Axes4
    dt: Axes4
    A: Axes2
    B: Axes4
    C: Axes4
    states: Axes5
    grad_y: Axes4
    grad_u: Axes4
    grad_dt: Axes4
    grad_a: Axes3
    grad_b: Axes5
    grad_c: Axes5
    bottom: int
    right: int
    span: int


@inner(fastmath={"contract"})
def _step(given: Any, i: int, j: int, coupling: float, rate: Any, shared: Any, left: Any, cell: Any, out: Any) -> None:
    """One cell forward: see `operators.cpu.wavefront.rows.scan`."""
    for v in range(LANES):
        out[v] = 0
    for s in range(shared.shape[1]):
        a, before, kept, b, c = rate[s], left[s], cell[s], shared[B, s], shared[C, s]
        for v in range(LANES):
            dt = given[DT + v]
            e = exp(dt * a[v])
            along = e * before[G + v] + dt * given[X + v] * b
            down = e * kept[H + v] + along
            kept[G + v] = along
            kept[H + v] = down
            out[v] += down * c


_scan = rows.around(rows.scan, step=_step)


@kernel
def forward(k: TwoStepForward, low: int, high: int) -> None:
    """Scan the channels of each task, row by row."""
    _scan(2, (k.u, k.dt), (k.A,), (k.B, k.C), 0.0, k.y, k.states, k.span, k.bottom, k.right, low, high)


@inner(fastmath={"contract"})
def _advance(
    given: Any, i: int, j: int, coupling: float, rate: Any, shared: Any, left: Any, up: Any, cell: Any
) -> None:
    """One cell that keeps its states and its transition: see `operators.cpu.wavefront.rows.scan_back`."""
    for s in range(shared.shape[1]):
        a, before, above, kept, b = rate[s], left[s], up[s], cell[s], shared[B, s]
        for v in range(LANES):
            dt = given[DT + v]
            e = exp(dt * a[A + v])
            along = e * before[G + v] + dt * given[X + v] * b
            kept[E + v] = e
            kept[G + v] = along
            kept[H + v] = e * above[H + v] + along


@inner(fastmath={"contract", "reassoc"})
def _step_back(
    given: Any, i: int, j: int, coupling: float, rate: Any, shared: Any, cell: Any, left: Any, up: Any,
    to_left: Any, to_up: Any, grads: Any, grad_shared: Any,
) -> None:  # fmt: skip
    """One cell backward: see `operators.cpu.wavefront.rows.scan_back`."""
    grads[:] = 0
    for s in range(shared.shape[1]):
        a, kept, before, above, back_row, back_col = rate[s], cell[s], left[s], up[s], to_left[s], to_up[s]
        b, c = shared[B, s], shared[C, s]
        sum_b = sum_c = given.dtype.type(0)
        for v in range(LANES):
            dt, x, dy, e = given[DT + v], given[X + v], given[DY + v], kept[E + v]
            g_down = back_col[v] + dy * c
            g_along = back_row[v] + g_down
            sum_c += dy * kept[H + v]
            sum_b += g_along * x * dt
            handed_row, handed_col = g_along * e, g_down * e
            back_row[v] = handed_row
            back_col[v] = handed_col
            exponent = handed_row * before[G + v] + handed_col * above[H + v]
            grads[X + v] += g_along * b * dt
            grads[DT + v] += exponent * a[A + v] + g_along * b * x
            a[GRAD_A + v] += exponent * dt
        grad_shared[B, s] = sum_b
        grad_shared[C, s] = sum_c


_scan_back = rows.around(rows.scan_back, advance=_advance, step_back=_step_back)


@kernel
def backward(k: TwoStepBackward, low: int, high: int) -> None:
    """Write the gradients from the channels of each task, from the last band to the first."""
    _scan_back(
        3, 1, (k.u, k.dt), (k.A,), (k.B, k.C), 0.0, k.states, k.grad_y, (k.grad_u, k.grad_dt),
        (k.grad_a,), (k.grad_b, k.grad_c), k.span, k.bottom, k.right, low, high,
    )  # fmt: skip
