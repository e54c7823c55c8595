"""Compiled products of separable propagators with images whose channels come last, forward and backward.

Every channel has matrices of its own, so that vectors run over channels. A task takes 16 channels of an image through
both products without leaving the cache: nothing is transposed in memory, and nothing with an axis for the states exists
outside.

A block of fields or matrices lies in a panel: rows r, columns c in fours, then 16 channels: (columns / 4, rows, 4, 16),
both padded with zeros to multiples of 8. `_contract` sums over the rows of two panels; its innermost part holds 4 × 4
vectors of sums in registers and reads 8 vectors for 16 multiply-adds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from operators.jit import array, compile_share, share

_CONTRACT = {"contract", "nsz"}


@njit(fastmath=_CONTRACT, error_model="numpy")
def _add(a: Any, m: Any, x: Any, at: int) -> Any:
    """One row of the sums a[4 i + j] += x[i] m[j], for the channel and row at which `at` points."""
    m0, m1, m2, m3 = m[at], m[at + 16], m[at + 32], m[at + 48]
    x0, x1, x2, x3 = x[at], x[at + 16], x[at + 32], x[at + 48]
    return (
        a[0] + x0 * m0, a[1] + x0 * m1, a[2] + x0 * m2, a[3] + x0 * m3,
        a[4] + x1 * m0, a[5] + x1 * m1, a[6] + x1 * m2, a[7] + x1 * m3,
        a[8] + x2 * m0, a[9] + x2 * m1, a[10] + x2 * m2, a[11] + x2 * m3,
        a[12] + x3 * m0, a[13] + x3 * m1, a[14] + x3 * m2, a[15] + x3 * m3,
    )  # fmt: skip


@njit(fastmath=_CONTRACT, error_model="numpy")
def _tile(m: Any, x: Any, y: Any) -> None:
    """y[i, j] += sum over 8 rows k of x[k, i] m[k, j], for vectors of 16 channels and i, j of 0 … 3."""
    for v in range(16):  # the loop that becomes vectors; written out, since the compiler unrolls none around it
        a = (
            y[v], y[16 + v], y[32 + v], y[48 + v], y[64 + v], y[80 + v], y[96 + v], y[112 + v],
            y[128 + v], y[144 + v], y[160 + v], y[176 + v], y[192 + v], y[208 + v], y[224 + v], y[240 + v],
        )  # fmt: skip
        a = _add(a, m, x, v)
        a = _add(a, m, x, 64 + v)
        a = _add(a, m, x, 128 + v)
        a = _add(a, m, x, 192 + v)
        a = _add(a, m, x, 256 + v)
        a = _add(a, m, x, 320 + v)
        a = _add(a, m, x, 384 + v)
        a = _add(a, m, x, 448 + v)
        (
            y[v], y[16 + v], y[32 + v], y[48 + v], y[64 + v], y[80 + v], y[96 + v], y[112 + v],
            y[128 + v], y[144 + v], y[160 + v], y[176 + v], y[192 + v], y[208 + v], y[224 + v], y[240 + v],
        ) = a  # fmt: skip


@njit(error_model="numpy")
def _contract(m: Any, x: Any, y: Any, rows: int, m_columns: int, x_columns: int) -> None:
    """Panel y of rows i and columns j: y[i, j] += sum over rows k of x[k, i] m[k, j]."""
    steps, ni = rows // 8, x_columns // 4
    for j in range(m_columns // 4):
        for i in range(ni):
            y_ij = y[(j * ni + i) * 256 :]
            for k in range(steps):
                _tile(m[(j * steps + k) * 512 :], x[(i * steps + k) * 512 :], y_ij)


@njit(error_model="numpy")
def _pack(
    panel: Any, source: Any, base: int, row: int, column: int, rows: int, columns: int, padded: int, n: int
) -> None:
    """panel[r, c] = source[base + r · row + c · column + channel] for n channels, zero for the others of 16."""
    for c in range(columns):
        for r in range(rows):
            to = panel[((c // 4) * padded + r) * 64 + (c % 4) * 16 :]
            of = source[base + r * row + c * column :]
            if n == 16:
                for v in range(16):
                    to[v] = of[v]
            else:
                for v in range(n):
                    to[v] = of[v]
                for v in range(n, 16):
                    to[v] = 0


@njit(error_model="numpy")
def _unpack(
    panel: Any, target: Any, base: int, row: int, column: int, rows: int, columns: int, padded: int, n: int
) -> None:
    """The reverse of `_pack`."""
    for c in range(columns):
        for r in range(rows):
            of = panel[((c // 4) * padded + r) * 64 + (c % 4) * 16 :]
            to = target[base + r * row + c * column :]
            if n == 16:
                for v in range(16):
                    to[v] = of[v]
            else:
                for v in range(n):
                    to[v] = of[v]


@njit(error_model="numpy")
def _turn(panel: Any, turned: Any, rows: int, columns: int) -> None:
    """turned[c, r] = panel[r, c]."""
    for c in range(columns):
        for r in range(rows):
            of = panel[((c // 4) * rows + r) * 64 + (c % 4) * 16 :]
            to = turned[((r // 4) * columns + c) * 64 + (r % 4) * 16 :]
            for v in range(16):
                to[v] = of[v]


@njit(error_model="numpy")
def _scale(panel: Any, factors: Any, product: Any) -> None:
    """Multiply a panel by a factor for each channel."""
    for at in range(0, len(panel), 16):
        of, to = panel[at:], product[at:]
        for v in range(16):
            to[v] = of[v] * factors[v]


@njit(fastmath=_CONTRACT, error_model="numpy")
def _scalar_product(one: Any, other: Any, total: Any) -> None:
    """Add the scalar product of two panels to `total`, for each channel."""
    for at in range(0, len(one), 16):
        a, b = one[at:], other[at:]
        for v in range(16):
            total[v] += a[v] * b[v]


@njit(error_model="numpy")
def _padded(length: int) -> int:
    return (length + 7) // 8 * 8


@njit(error_model="numpy")
def _forward(
    u: Any, rows: Any, columns: Any, skip: Any, y: Any, u_strides: Any,
    batch: int, height: int, width: int, channels: int, states: int, low: int, high: int,
) -> None:  # fmt: skip
    """Tasks `low` to `high` - 1; task = block of channels · batch + image.

    u: flat, with the strides of (B, H, W); rows (S, H, H, D), columns (S, W, W, D), skip (D,), y (B, H, W, D): flat.
    """
    h, w = _padded(height), _padded(width)
    x, z, out = np.zeros(h * w * 16, u.dtype), np.zeros(h * w * 16, u.dtype), np.zeros(h * w * 16, u.dtype)
    down, along = np.zeros((states, h * h * 16), u.dtype), np.zeros((states, w * w * 16), u.dtype)
    factors = np.zeros(16, u.dtype)
    packed = -1
    for task in range(low, high):
        block, image = divmod(task, batch)
        first = 16 * block
        n = min(16, channels - first)
        if block != packed:
            packed = block
            factors[:n], factors[n:] = skip[first : first + n], 0
            for s in range(states):
                at = s * height * height * channels + first
                _pack(down[s], rows, at, channels, height * channels, height, height, h, n)
                at = s * width * width * channels + first
                _pack(along[s], columns, at, channels, width * channels, width, width, w, n)
        _pack(x, u, image * u_strides[0] + first, u_strides[2], u_strides[1], width, height, w, n)
        _scale(x, factors, out)
        for s in range(states):
            z[:] = 0
            _contract(along[s], x, z, w, w, h)
            _contract(down[s], z, out, h, h, w)
        _unpack(out, y, image * height * width * channels + first, channels, width * channels, width, height, w, n)


@njit(error_model="numpy")
def _backward(
    u: Any, rows: Any, columns: Any, skip: Any, g: Any, grad_u: Any, grad_rows: Any, grad_columns: Any, grad_skip: Any,
    u_strides: Any, g_strides: Any,
    batch: int, height: int, width: int, channels: int, states: int, parts: int, low: int, high: int,
) -> None:  # fmt: skip
    """Gradients from tasks `low` to `high` - 1; task = block of channels · parts + part of the batch.

    Flat, with the strides of (B, H, W): u and the output's gradient g. Flat and written: grad_u (B, H, W, D), grad_rows
    (parts, S, H, H, D), grad_columns (parts, S, W, W, D) and grad_skip (parts, D), to be summed over parts.
    """
    h, w = _padded(height), _padded(width)
    x_wh, x_hw = np.zeros(h * w * 16, u.dtype), np.zeros(h * w * 16, u.dtype)
    g_wh, g_hw = np.zeros(h * w * 16, u.dtype), np.zeros(h * w * 16, u.dtype)
    across, back, turned = np.zeros(h * w * 16, u.dtype), np.zeros(h * w * 16, u.dtype), np.zeros(h * w * 16, u.dtype)
    grad_x = np.zeros(h * w * 16, u.dtype)
    up, grad_down = np.zeros((states, h * h * 16), u.dtype), np.zeros((states, h * h * 16), u.dtype)
    along, against = np.zeros((states, w * w * 16), u.dtype), np.zeros((states, w * w * 16), u.dtype)
    grad_along = np.zeros((states, w * w * 16), u.dtype)
    factors, grad_factors = np.zeros(16, u.dtype), np.zeros(16, u.dtype)
    for task in range(low, high):
        block, part = divmod(task, parts)
        first = 16 * block
        n = min(16, channels - first)
        for s in range(states):
            at = s * height * height * channels + first
            _pack(up[s], rows, at, height * channels, channels, height, height, h, n)
            at = s * width * width * channels + first
            _pack(along[s], columns, at, channels, width * channels, width, width, w, n)
            _pack(against[s], columns, at, width * channels, channels, width, width, w, n)
        factors[:n], factors[n:] = skip[first : first + n], 0
        grad_down[:], grad_along[:], grad_factors[:] = 0, 0, 0
        for image in range(batch * part // parts, batch * (part + 1) // parts):
            at = image * u_strides[0] + first
            _pack(x_wh, u, at, u_strides[2], u_strides[1], width, height, w, n)
            _pack(x_hw, u, at, u_strides[1], u_strides[2], height, width, h, n)
            at = image * g_strides[0] + first
            _pack(g_wh, g, at, g_strides[2], g_strides[1], width, height, w, n)
            _pack(g_hw, g, at, g_strides[1], g_strides[2], height, width, h, n)
            _scale(g_hw, factors, grad_x)
            _scalar_product(g_hw, x_hw, grad_factors)
            for s in range(states):
                across[:], back[:] = 0, 0
                _contract(x_wh, along[s], across, w, h, w)
                _contract(g_wh, across, grad_down[s], w, h, h)
                _contract(up[s], g_hw, back, h, h, w)
                _contract(against[s], back, grad_x, w, w, h)
                _turn(back, turned, w, h)
                _contract(turned, x_hw, grad_along[s], h, w, w)
            at = image * height * width * channels + first
            _unpack(grad_x, grad_u, at, width * channels, channels, height, width, h, n)
        grad_skip[part * channels + first : part * channels + first + n] = grad_factors[:n]
        for s in range(states):
            at = (part * states + s) * height * height * channels + first
            _unpack(grad_down[s], grad_rows, at, channels, height * channels, height, height, h, n)
            at = (part * states + s) * width * width * channels + first
            _unpack(grad_along[s], grad_columns, at, channels, width * channels, width, width, w, n)


def compiled(dtype: str) -> tuple[Any, Any]:
    """The forward and the backward pass for `float32` or `float64`, for `operators.jit.run`, kept on disk if possible.

    Their arrays and numbers are the arguments of `_forward` and `_backward`, in order.
    """
    kind = {"float32": np.float32, "float64": np.float64}[dtype]

    def forward(data: Any) -> None:
        t, low, high = share(data, 18)
        u, rows, columns = array(t[0], t[1], kind), array(t[2], t[3], kind), array(t[4], t[5], kind)
        skip, y = array(t[6], t[7], kind), array(t[8], t[9], kind)
        _forward(u, rows, columns, skip, y, (t[10], t[11], t[12]), t[13], t[14], t[15], t[16], t[17], low, high)

    def backward(data: Any) -> None:
        t, low, high = share(data, 30)
        u, rows, columns = array(t[0], t[1], kind), array(t[2], t[3], kind), array(t[4], t[5], kind)
        skip, g, grad_u = array(t[6], t[7], kind), array(t[8], t[9], kind), array(t[10], t[11], kind)
        grad_rows, grad_columns = array(t[12], t[13], kind), array(t[14], t[15], kind)
        grad_skip = array(t[16], t[17], kind)
        _backward(
            u, rows, columns, skip, g, grad_u, grad_rows, grad_columns, grad_skip,
            (t[18], t[19], t[20]), (t[21], t[22], t[23]), t[24], t[25], t[26], t[27], t[28], t[29], low, high,
        )  # fmt: skip

    return compile_share(forward), compile_share(backward)
