"""Selective recurrences over both axes of a grid, as pure functions.

Every cell of a grid takes over what its left and its upper neighbour hand on. From one corner, all cells are reached in
H + W − 1 steps, in each of which an antidiagonal of cells can be computed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from operators.cpu import availability as compiled
from operators.errors import InputError, check_choice
from operators.precision import full_precision, wide
from operators.runtime.differentiation import differentiated
from operators.wavefront import diagonals, ops, reference

BACKENDS = ("diagonals", "cpu", "reference")

__all__ = ["BACKENDS", "availability", "lattice_scan", "roesser_scan", "serving", "two_step_scan"]


class GridRecurrence(NamedTuple):
    """One recurrence, and what carries it out."""

    compiled: ops.GridScanOp
    diagonals: Callable[..., Tensor]
    reference: Callable[..., Tensor]


LATTICE = GridRecurrence(ops.LATTICE, diagonals.lattice, reference.lattice)
TWO_STEP = GridRecurrence(ops.TWO_STEP, diagonals.two_step, reference.two_step)
ROESSER = GridRecurrence(ops.ROESSER, diagonals.roesser, reference.roesser)


def availability() -> dict[str, str | None]:
    """For each of `BACKENDS` None, or the reason why it cannot serve on this machine."""
    reason = compiled.refusal()
    return {**dict.fromkeys(BACKENDS), "cpu": None if reason is None else f"it {reason}"}


def serving(backend: str, device: torch.device) -> str:
    """Which of `BACKENDS` serves a call with `backend` on tensors of that device.

    Args:
        backend: one of `BACKENDS`, or `auto`: `cpu` on tensors of the CPU (and of the meta device) where compiled code
            runs, else `diagonals`.
        device: where the tensors are.

    Raises:
        InputError: the backend cannot serve such a call; says why.
    """
    check_choice("backend of the scan", backend, ("auto", *BACKENDS))
    on_cpu = device.type in ("cpu", "meta")
    if backend == "auto":
        return "cpu" if on_cpu and compiled.refusal() is None else "diagonals"
    if backend == "cpu":
        reason = availability()["cpu"] if on_cpu else f"it serves CPU tensors only, and these are on {device.type}"
        if reason is not None:
            raise InputError(f"backend='cpu' cannot serve this scan: {reason}; use auto, diagonals or reference")
    return backend


def lattice_scan(
    u: Tensor,
    dt_row: Tensor,
    dt_col: Tensor,
    A_row: Tensor,
    A_col: Tensor,
    B_row: Tensor,
    B_col: Tensor,
    C: Tensor,
    *,
    bottom: bool = False,
    right: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Scan u along rows and columns at once: a state is the mean of what its two neighbours hand on.

        l[i, j] = exp(dt_row A_row) h[i, j − 1] + dt_row B_row u
        t[i, j] = exp(dt_col A_col) h[i − 1, j] + dt_col B_col u
        h[i, j] = (l[i, j] + t[i, j]) / 2
        y[i, j] = C · h[i, j]

    with steps and maps of cell (i, j). In the first row h is l, and in the rest of the first column t. Computed in
    float32, under autocast too, or in float64 where a tensor is float64.

    Args:
        u: (B, H, W, D).
        dt_row: steps (B, H, W, D) from the left neighbour.
        dt_col: steps (B, H, W, D) from the upper one.
        A_row: rates (D, S) along rows; negative for a memory that fades.
        A_col: rates (D, S) along columns.
        B_row: (B, H, W, S).
        B_col: (B, H, W, S).
        C: (B, H, W, S).
        bottom: whether the scan starts in the last row and goes up.
        right: whether it starts in the last column.
        backend: `auto` or one of `BACKENDS`, see `serving`; `cpu` has first derivatives in reverse mode only, and keeps
            every eighth row of states for them. `auto` means `diagonals` in forward mode and in `torch.func`.

    Returns:
        y (B, H, W, D) in the type of u.

    Raises:
        InputError: shapes that do not fit, or a backend that cannot serve the call.

    Source:
        Mamba2D, arXiv 2412.16146; the border as in `models/kernels/wf_cuda/wf_cuda.cu` of cocoalex00/Mamba2D at
        9acb361.
    """
    given = {
        "u": u, "dt_row": dt_row, "dt_col": dt_col, "A_row": A_row, "A_col": A_col, "B_row": B_row, "B_col": B_col,
        "C": C,
    }  # fmt: skip
    return _scanned(LATTICE, given, bottom, right, backend)


def two_step_scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    bottom: bool = False,
    right: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Scan u along each row, and the states that this makes down each column, with the same transitions.

        g[i, j] = exp(dt A) g[i, j − 1] + dt B u
        h[i, j] = exp(dt A) h[i − 1, j] + g[i, j]
        y[i, j] = C · h[i, j]

    with steps and maps of cell (i, j). What comes from cell (s, t) has gone along row s, then down column j.

    Args:
        u: (B, H, W, D).
        dt: steps (B, H, W, D).
        A: rates (D, S); negative for a memory that fades.
        B: (B, H, W, S).
        C: (B, H, W, S).
        bottom: whether the scan starts in the last row and goes up.
        right: whether it starts in the last column.
        backend: as of `lattice_scan`. `diagonals` takes rows and columns one after another, W + H steps.

    Returns:
        y (B, H, W, D) in the type of u.

    Raises:
        InputError: shapes that do not fit, or a backend that cannot serve the call.

    Source:
        2DMamba, arXiv 2412.00678; `cuda_kernel/include/selective_scan/` of AtlasAnalyticsLab/2DMamba at 9fe12aa.
    """
    return _scanned(TWO_STEP, {"u": u, "dt": dt, "A": A, "B": B, "C": C}, bottom, right, backend)


def roesser_scan(
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
    *,
    coupling: float = 0.5,
    bottom: bool = False,
    right: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Scan u with two states, g along rows and h down columns, each of which also takes over the other (Roesser).

        g[i, j] = (1 − c) exp(dt_row A_1) g[i, j − 1] + c exp(dt_row A_2) h[i, j − 1] + dt_row B_row u
        h[i, j] = c exp(dt_col A_3) g[i − 1, j] + (1 − c) exp(dt_col A_4) h[i − 1, j] + dt_col B_col u
        y[i, j] = C_row · g[i, j] + C_col · h[i, j]

    with steps and maps of cell (i, j), and c = `coupling`. A signal has binom(m + n, m) ways over m rows and n columns:
    without the factors 1 − c and c, states grow exponentially where rates are small. With c = 0 they are a scan of each
    row and one of each column.

    Args:
        u: (B, H, W, D).
        dt_row: steps (B, H, W, D) along rows.
        dt_col: steps (B, H, W, D) along columns.
        A_1: rates (D, S), negative for a memory that fades, from g to g.
        A_2: from h to g.
        A_3: from g to h.
        A_4: from h to h.
        B_row: (B, H, W, S).
        B_col: (B, H, W, S).
        C_row: (B, H, W, S).
        C_col: (B, H, W, S).
        coupling: the share c of the other state, 0 to 1.
        bottom: whether the scan starts in the last row and goes up.
        right: whether it starts in the last column.
        backend: as of `lattice_scan`.

    Returns:
        y (B, H, W, D) in the type of u.

    Raises:
        InputError: shapes that do not fit, or a backend that cannot serve the call.

    Source:
        Chimera, arXiv 2406.04320, with Euler's rule for the input; the factor 1/2 of arXiv 2306.06635.
    """
    given = {
        "u": u, "dt_row": dt_row, "dt_col": dt_col, "A_1": A_1, "A_2": A_2, "A_3": A_3, "A_4": A_4, "B_row": B_row,
        "B_col": B_col, "C_row": C_row, "C_col": C_col,
    }  # fmt: skip
    return _scanned(ROESSER, given, bottom, right, backend, coupling)


def _scanned(
    recurrence: GridRecurrence, given: Mapping[str, Tensor], bottom: bool, right: bool, backend: str, *numbers: float
) -> Tensor:
    u = given["u"]
    _check(recurrence.compiled, given)
    dtype = wide(u.dtype)
    for tensor in given.values():
        dtype = torch.promote_types(dtype, tensor.dtype)
    engine = "diagonals" if backend == "auto" and differentiated() else serving(backend, u.device)
    with full_precision(u):
        tensors = [tensor.to(dtype) for tensor in given.values()]
        if engine == "cpu":
            y: Tensor = recurrence.compiled.operator(*tensors, bottom, right, *numbers)[0]
            return y.to(u.dtype)
        axes = [axis for axis, flipped in ((1, bottom), (2, right)) if flipped]
        turned = [tensor.flip(axes) if axes and tensor.ndim == 4 else tensor for tensor in tensors]
        carry_out = recurrence.diagonals if engine == "diagonals" else recurrence.reference
        y = carry_out(*turned, *numbers)
        return (y.flip(axes) if axes else y).to(u.dtype)


def _check(op: ops.GridScanOp, given: Mapping[str, Tensor]) -> None:
    """Raise `InputError` unless all tensors have the shapes that u (B, H, W, D) and the rates (D, S) ask for."""
    rates = given[op.rates]
    if given["u"].ndim != 4 or rates.ndim != 2 or min(*given["u"].shape[1:], *rates.shape) < 1:
        shapes = tuple(given["u"].shape), tuple(rates.shape)
        raise InputError(
            f"{op.name} takes u (B, H, W, D) and rates (D, S), H, W, D, S > 0, not {shapes[0]}, {shapes[1]}"
        )
    expected = op.shapes(given)
    for name, tensor in given.items():
        if tuple(tensor.shape) != expected[name]:
            raise InputError(f"{op.name} takes {name} of shape {expected[name]}, not {tuple(tensor.shape)}")
