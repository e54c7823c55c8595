"""Compiled code of `operators.shell.gated_norm`, for a slice of the rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from operators.cpu.compilation import array, compile_share, inner
from operators.cpu.exponential import exp
from operators.cpu.sharing import share

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


@inner(once=True)
def _forward(y: Any, z: Any, weight: Any, eps: Any, out: Any, y_row: int, z_row: int, low: int, high: int) -> None:
    """Rows `low` to `high` - 1. Flat: y and z, whose rows are y_row and z_row numbers apart; out, contiguous."""
    width = len(weight)
    for t in range(low, high):
        y_t, z_t = y[t * y_row : t * y_row + width], z[t * z_row : t * z_row + width]
        _forward_row(y_t, z_t, weight, _scale(y_t, eps), out[t * width : t * width + width])


@inner(once=True)
def _backward(
    y: Any, z: Any, weight: Any, eps: Any, g: Any, grad_y: Any, grad_z: Any, grad_weight: Any,
    y_row: int, z_row: int, g_row: int, rows: int, parts: int, low: int, high: int,
) -> None:  # fmt: skip
    """Parts `low` to `high` - 1 of the rows, as in `_forward`; grad_weight (parts, width) is yet to be summed."""
    width = len(weight)
    opening, gated = np.empty_like(weight), np.empty_like(weight)
    for part in range(low, high):
        own = grad_weight[part * width : part * width + width]
        own[:] = 0
        for t in range(rows * part // parts, rows * (part + 1) // parts):
            y_t, z_t = y[t * y_row : t * y_row + width], z[t * z_row : t * z_row + width]
            g_t, at = g[t * g_row : t * g_row + width], t * width
            grad_y_t, grad_z_t = grad_y[at : at + width], grad_z[at : at + width]
            _backward_row(y_t, z_t, weight, g_t, _scale(y_t, eps), grad_y_t, grad_z_t, own, opening, gated)


def compiled(dtype: str) -> tuple[Any, Any]:
    """The forward and the backward pass for `float32` or `float64`, for `sharing.run`, kept on disk if possible.

    Their arrays and numbers are the arguments of `_forward` and `_backward`, in order, eps as an array of one.
    """
    kind = {"float32": np.float32, "float64": np.float64}[dtype]

    def forward(data: Any) -> None:
        t, low, high = share(data, 12)
        y, z, weight = array(t[0], t[1], kind), array(t[2], t[3], kind), array(t[4], t[5], kind)
        eps, out = array(t[6], t[7], kind), array(t[8], t[9], kind)
        _forward(y, z, weight, eps[0], out, t[10], t[11], low, high)

    def backward(data: Any) -> None:
        t, low, high = share(data, 21)
        y, z, weight = array(t[0], t[1], kind), array(t[2], t[3], kind), array(t[4], t[5], kind)
        eps, g, grad_y = array(t[6], t[7], kind), array(t[8], t[9], kind), array(t[10], t[11], kind)
        grad_z, grad_weight = array(t[12], t[13], kind), array(t[14], t[15], kind)
        _backward(y, z, weight, eps[0], g, grad_y, grad_z, grad_weight, t[16], t[17], t[18], t[19], t[20], low, high)

    return compile_share(forward), compile_share(backward)
