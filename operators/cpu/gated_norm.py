"""Compiled code of `operators.shell.gated_norm`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from operators.cpu.compilation import inner
from operators.cpu.exponential import exp
from operators.cpu.kernel import Flat, kernel


class NormForward(NamedTuple):
    """A task is a row. y, z: rows are y_row and z_row numbers apart; weight (D,); written: out (rows, D)."""

    y: Flat
    z: Flat
    weight: Flat
    out: Flat
    eps: float
    y_row: int
    z_row: int


class NormBackward(NamedTuple):
    """A task is one of `parts` parts of the rows; as in `NormForward`, rows of grad_out are grad_row numbers apart.

    Written: grad_y and grad_z (rows, D); grad_weight (parts, D), yet to be summed.
    """

    y: Flat
    z: Flat
    weight: Flat
    grad_out: Flat
    grad_y: Flat
    grad_z: Flat
    grad_weight: Flat
    eps: float
    y_row: int
    z_row: int
    grad_row: int
    rows: int
    parts: int


_FAST = {"contract", "reassoc", "nsz"}


@inner(fastmath=_FAST)
def _scale(y: Any, eps: Any) -> Any:
    """1 / sqrt(mean of squares + eps), in the type of y."""
    total = y[0] * y[0]
    for d in range(1, len(y)):
        total += y[d] * y[d]
    return y.dtype.type(1) / np.sqrt(total / y.dtype.type(len(y)) + eps)


@inner(fastmath={"contract"})
def _forward_row(y: Any, z: Any, weight: Any, r: Any, out: Any) -> None:
    one = y.dtype.type(1)
    for d in range(len(y)):
        out[d] = y[d] * r * weight[d] * (z[d] / (one + exp(-z[d])))


@inner(fastmath=_FAST)
def _backward_row(
    y: Any, z: Any, weight: Any, g: Any, r: Any, grad_y: Any, grad_z: Any, grad_weight: Any, opening: Any, gated: Any
) -> None:
    """Gradients of a row, from that of its output g; the weight's is added up. `opening` and `gated` are scratch.

    In short loops: LLVM makes vectors of those only whose arrays it can tell apart with few comparisons.
    """
    one = y.dtype.type(1)
    for d in range(len(y)):
        opening[d] = one / (one + exp(-z[d]))
    for d in range(len(y)):
        gated[d] = g[d] * z[d] * opening[d]
    for d in range(len(y)):
        grad_z[d] = g[d] * y[d] * r * weight[d] * opening[d] * (one + z[d] * (one - opening[d]))
    for d in range(len(y)):
        grad_weight[d] += gated[d] * y[d] * r
    dot = y.dtype.type(0)
    for d in range(len(y)):
        dot += gated[d] * weight[d] * y[d]
    dot *= r * r / y.dtype.type(len(y))
    for d in range(len(y)):
        grad_y[d] = r * (gated[d] * weight[d] - y[d] * dot)


@kernel
def forward(k: NormForward, low: int, high: int) -> None:
    """Normalise and gate the rows `low` to `high` - 1."""
    y, z, weight, out = k.y, k.z, k.weight, k.out
    width = len(weight)
    for t in range(low, high):
        y_t, z_t = y[t * k.y_row : t * k.y_row + width], z[t * k.z_row : t * k.z_row + width]
        _forward_row(y_t, z_t, weight, _scale(y_t, k.eps), out[t * width : t * width + width])


@kernel
def backward(k: NormBackward, low: int, high: int) -> None:
    """Write the gradients of all rows of these parts."""
    y, z, weight, g, grad_y, grad_z = k.y, k.z, k.weight, k.grad_out, k.grad_y, k.grad_z
    width = len(weight)
    opening, gated = np.empty_like(weight), np.empty_like(weight)
    for part in range(low, high):
        own = k.grad_weight[part * width : part * width + width]
        own[:] = 0
        for t in range(k.rows * part // k.parts, k.rows * (part + 1) // k.parts):
            y_t, z_t = y[t * k.y_row : t * k.y_row + width], z[t * k.z_row : t * k.z_row + width]
            g_t, at = g[t * k.grad_row : t * k.grad_row + width], t * width
            grad_y_t, grad_z_t = grad_y[at : at + width], grad_z[at : at + width]
            _backward_row(y_t, z_t, weight, g_t, _scale(y_t, k.eps), grad_y_t, grad_z_t, own, opening, gated)
