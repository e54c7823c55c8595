"""Compiled products of separable propagators with images whose channels come last, forward and backward.

Every channel has matrices of its own, so that vectors run over channels. A task takes 16 channels of an image through
both products without leaving the cache: nothing is transposed in memory, and nothing with an axis for the states exists
outside.

Channels come in blocks of 16. A block of fields or matrices lies in a panel: rows r, columns c in fours, then channels:
(columns / 4, rows, 4, 16), both padded with zeros to multiples of 4. `_contract` sums over the rows of two panels; its
innermost part holds 4 × 4 vectors of sums in registers and reads 8 vectors for 16 multiply-adds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from operators.jit import add_product16, array, compile_share, copy16, multiply16, share, vectors


def _tile(add: bool) -> Any:
    """y[i, j] = sum over rows k of x[k, i] m[k, j], for vectors of 16 channels and i, j of 0 … 3; or += that."""

    @intrinsic
    def tile(_context: Any, y: Any, y_at: Any, m: Any, m_at: Any, x: Any, x_at: Any, rows: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            *places, count = arguments
            (to, of_m, of_x), width = vectors(context, builder, signature, places)
            vector = to.type.pointee

            def load(pointer: Any, number: Any) -> Any:
                return builder.load(builder.gep(pointer, [number]), align=width)

            def place(number: int) -> Any:
                return context.get_constant(types.int64, number)

            sums = []
            for number in range(16):
                sums.append(cgutils.alloca_once(builder, vector))
                builder.store(load(to, place(number)) if add else vector(None), sums[-1])
            with cgutils.for_range(builder, count) as loop:
                first = builder.mul(loop.index, place(4))
                across = [load(of_m, builder.add(first, place(j))) for j in range(4)]
                for i in range(4):
                    down = load(of_x, builder.add(first, place(i)))
                    for j in range(4):
                        product = builder.fmul(down, across[j], flags=("contract",))
                        total = builder.fadd(builder.load(sums[4 * i + j]), product, flags=("contract",))
                        builder.store(total, sums[4 * i + j])
            for number in range(16):
                builder.store(builder.load(sums[number]), builder.gep(to, [place(number)]), align=width)
            return context.get_dummy_value()

        return types.void(y, types.int64, m, types.int64, x, types.int64, types.int64), code

    return tile


_tile_set, _tile_add = _tile(add=False), _tile(add=True)


@njit(error_model="numpy")
def _contract(m: Any, x: Any, y: Any, rows: int, m_columns: int, x_columns: int) -> None:
    """Panel y of rows i and columns j: y[i, j] = sum over rows k of x[k, i] m[k, j]. Columns are multiples of 4."""
    padded, ni = _padded(rows), x_columns // 4
    for j in range(m_columns // 4):
        for i in range(ni):
            _tile_set(y, (j * ni + i) * 256, m, j * padded * 64, x, i * padded * 64, rows)


@njit(error_model="numpy")
def _add_contraction(m: Any, x: Any, y: Any, rows: int, m_columns: int, x_columns: int) -> None:
    """Add to y what `_contract` makes."""
    padded, ni = _padded(rows), x_columns // 4
    for j in range(m_columns // 4):
        for i in range(ni):
            _tile_add(y, (j * ni + i) * 256, m, j * padded * 64, x, i * padded * 64, rows)


@njit(error_model="numpy")
def _pack(panels: Any, source: Any, base: int, row: int, column: int, rows: int, columns: int, blocks: int) -> None:
    """panels[q][r, c] = source[base + r · row + c · column + 16 q + channel] for blocks q of channels.

    Panels stand one after the other. A pixel's channels are read together: memory is slow to jump in.
    """
    padded = _padded(rows)
    size = padded * _padded(columns) * 16
    for c in range(columns):
        for r in range(rows):
            to, of = ((c // 4) * padded + r) * 64 + (c % 4) * 16, base + r * row + c * column
            for q in range(blocks):
                copy16(panels, q * size + to, source, of + 16 * q)


@njit(error_model="numpy")
def _unpack(panels: Any, target: Any, base: int, row: int, column: int, rows: int, columns: int, blocks: int) -> None:
    """The reverse of `_pack`."""
    padded = _padded(rows)
    size = padded * _padded(columns) * 16
    for c in range(columns):
        for r in range(rows):
            of, to = ((c // 4) * padded + r) * 64 + (c % 4) * 16, base + r * row + c * column
            for q in range(blocks):
                copy16(target, to + 16 * q, panels, q * size + of)


@njit(error_model="numpy")
def _turn(panel: Any, turned: Any, rows: int, columns: int) -> None:
    """turned[c, r] = panel[r, c]."""
    for c in range(columns):
        for r in range(rows):
            of, to = ((c // 4) * rows + r) * 64 + (c % 4) * 16, ((r // 4) * columns + c) * 64 + (r % 4) * 16
            copy16(turned, to, panel, of)


@njit(error_model="numpy")
def _scale(panel: Any, factors: Any, product: Any) -> None:
    """Multiply a panel by a factor for each channel."""
    for place in range(0, len(panel), 16):
        multiply16(product, place, panel, place, factors, 0)


@njit(error_model="numpy")
def _scalar_product(one: Any, other: Any, total: Any) -> None:
    """Add the scalar product of two panels to `total`, for each channel."""
    for place in range(0, len(one), 16):
        add_product16(total, 0, one, place, other, place)


@njit(error_model="numpy")
def _padded(length: int) -> int:
    return (length + 3) // 4 * 4


@njit(error_model="numpy")
def _forward(
    u: Any, rows: Any, columns: Any, skip: Any, y: Any, u_strides: Any,
    batch: int, height: int, width: int, channels: int, states: int, bundle: int, low: int, high: int,
) -> None:  # fmt: skip
    """Tasks `low` to `high` - 1; task = (block of channels / bundle) · batch + image.

    u: flat, with the strides of (B, H, W); rows (S, H, H, D), columns (S, W, W, D), skip (D,), y (B, H, W, D): flat.
    """
    h, w = _padded(height), _padded(width)
    hw, hh, ww = h * w * 16, h * h * 16, w * w * 16
    x, out, z = np.zeros(bundle * hw, u.dtype), np.zeros(bundle * hw, u.dtype), np.zeros(hw, u.dtype)
    down, along = np.zeros((states, bundle * hh), u.dtype), np.zeros((states, bundle * ww), u.dtype)
    factors = np.zeros(bundle * 16, u.dtype)
    packed = -1
    for task in range(low, high):
        place, image = divmod(task, batch)
        first = 16 * bundle * place
        blocks = min(bundle, (channels - first) // 16)
        if place != packed:
            packed = place
            factors[: 16 * blocks] = skip[first : first + 16 * blocks]
            for s in range(states):
                _pack(
                    down[s],
                    rows,
                    s * height * height * channels + first,
                    channels,
                    height * channels,
                    height,
                    height,
                    blocks,
                )
                _pack(
                    along[s],
                    columns,
                    s * width * width * channels + first,
                    channels,
                    width * channels,
                    width,
                    width,
                    blocks,
                )
        _pack(x, u, image * u_strides[0] + first, u_strides[2], u_strides[1], width, height, blocks)
        for q in range(blocks):
            x_q, out_q = x[q * hw : (q + 1) * hw], out[q * hw : (q + 1) * hw]
            _scale(x_q, factors[16 * q : 16 * q + 16], out_q)
            for s in range(states):
                _contract(along[s, q * ww : (q + 1) * ww], x_q, z, width, w, h)
                _add_contraction(down[s, q * hh : (q + 1) * hh], z, out_q, height, h, w)
        _unpack(out, y, image * height * width * channels + first, channels, width * channels, width, height, blocks)


@njit(error_model="numpy")
def _backward(
    u: Any, rows: Any, columns: Any, skip: Any, g: Any, grad_u: Any, grad_rows: Any, grad_columns: Any, grad_skip: Any,
    u_strides: Any, g_strides: Any,
    batch: int, height: int, width: int, channels: int, states: int, bundle: int, parts: int, low: int, high: int,
) -> None:  # fmt: skip
    """Gradients from tasks `low` to `high` - 1; task = (block of channels / bundle) · parts + part of the batch.

    Flat, with the strides of (B, H, W): u and the output's gradient g. Flat and written: grad_u (B, H, W, D), grad_rows
    (parts, S, H, H, D), grad_columns (parts, S, W, W, D) and grad_skip (parts, D), to be summed over parts.
    """
    h, w = _padded(height), _padded(width)
    hw, hh, ww = h * w * 16, h * h * 16, w * w * 16
    # Panels of fields are named by their axes: x_wh has pixels of a row as its rows. A bundle of blocks each:
    x_wh, g_wh, grad_x = np.zeros(bundle * hw, u.dtype), np.zeros(bundle * hw, u.dtype), np.zeros(bundle * hw, u.dtype)
    down, grad_down = np.zeros((states, bundle * hh), u.dtype), np.zeros((states, bundle * hh), u.dtype)
    up, against = np.zeros((states, bundle * hh), u.dtype), np.zeros((states, bundle * ww), u.dtype)
    along, grad_along = np.zeros((states, bundle * ww), u.dtype), np.zeros((states, bundle * ww), u.dtype)
    factors, grad_factors = np.zeros(bundle * 16, u.dtype), np.zeros(bundle * 16, u.dtype)
    # And one block:
    x_hw, g_hw, grad_hw = np.zeros(hw, u.dtype), np.zeros(hw, u.dtype), np.zeros(hw, u.dtype)
    across, back, turned = np.zeros(hw, u.dtype), np.zeros(hw, u.dtype), np.zeros(hw, u.dtype)
    for task in range(low, high):
        place, part = divmod(task, parts)
        first = 16 * bundle * place
        blocks = min(bundle, (channels - first) // 16)
        for s in range(states):
            _pack(
                down[s],
                rows,
                s * height * height * channels + first,
                channels,
                height * channels,
                height,
                height,
                blocks,
            )
            _pack(
                along[s],
                columns,
                s * width * width * channels + first,
                channels,
                width * channels,
                width,
                width,
                blocks,
            )
            for q in range(blocks):
                _turn(down[s, q * hh : (q + 1) * hh], up[s, q * hh : (q + 1) * hh], h, h)
                _turn(along[s, q * ww : (q + 1) * ww], against[s, q * ww : (q + 1) * ww], w, w)
        factors[: 16 * blocks] = skip[first : first + 16 * blocks]
        grad_down[:], grad_along[:], grad_factors[:] = 0, 0, 0
        for image in range(batch * part // parts, batch * (part + 1) // parts):
            _pack(x_wh, u, image * u_strides[0] + first, u_strides[2], u_strides[1], width, height, blocks)
            _pack(g_wh, g, image * g_strides[0] + first, g_strides[2], g_strides[1], width, height, blocks)
            for q in range(blocks):
                x_q, g_q = x_wh[q * hw : (q + 1) * hw], g_wh[q * hw : (q + 1) * hw]
                _turn(x_q, x_hw, w, h)
                _turn(g_q, g_hw, w, h)
                _scale(g_hw, factors[16 * q : 16 * q + 16], grad_hw)
                _scalar_product(g_hw, x_hw, grad_factors[16 * q : 16 * q + 16])
                for s in range(states):
                    _contract(x_q, along[s, q * ww : (q + 1) * ww], across, width, h, w)
                    _add_contraction(g_q, across, grad_down[s, q * hh : (q + 1) * hh], width, h, h)
                    _contract(up[s, q * hh : (q + 1) * hh], g_hw, back, height, h, w)
                    _add_contraction(against[s, q * ww : (q + 1) * ww], back, grad_hw, width, w, h)
                    _turn(back, turned, w, h)
                    _add_contraction(turned, x_hw, grad_along[s, q * ww : (q + 1) * ww], height, w, w)
                _turn(grad_hw, grad_x[q * hw : (q + 1) * hw], h, w)
            place_u = image * height * width * channels + first
            _unpack(grad_x, grad_u, place_u, channels, width * channels, width, height, blocks)
        to = part * channels + first
        grad_skip[to : to + 16 * blocks] = grad_factors[: 16 * blocks]
        for s in range(states):
            to = (part * states + s) * height * height * channels + first
            _unpack(grad_down[s], grad_rows, to, channels, height * channels, height, height, blocks)
            to = (part * states + s) * width * width * channels + first
            _unpack(grad_along[s], grad_columns, to, channels, width * channels, width, width, blocks)


def compiled(dtype: str) -> tuple[Any, Any]:
    """The forward and the backward pass for `float32` or `float64`, for `operators.jit.run`, kept on disk if possible.

    Their arrays and numbers are the arguments of `_forward` and `_backward`, in order.
    """
    kind = {"float32": np.float32, "float64": np.float64}[dtype]

    def forward(data: Any) -> None:
        t, low, high = share(data, 19)
        u, rows, columns = array(t[0], t[1], kind), array(t[2], t[3], kind), array(t[4], t[5], kind)
        skip, y = array(t[6], t[7], kind), array(t[8], t[9], kind)
        _forward(u, rows, columns, skip, y, (t[10], t[11], t[12]), t[13], t[14], t[15], t[16], t[17], t[18], low, high)

    def backward(data: Any) -> None:
        t, low, high = share(data, 31)
        u, rows, columns = array(t[0], t[1], kind), array(t[2], t[3], kind), array(t[4], t[5], kind)
        skip, g, grad_u = array(t[6], t[7], kind), array(t[8], t[9], kind), array(t[10], t[11], kind)
        grad_rows, grad_columns = array(t[12], t[13], kind), array(t[14], t[15], kind)
        grad_skip = array(t[16], t[17], kind)
        _backward(
            u, rows, columns, skip, g, grad_u, grad_rows, grad_columns, grad_skip,
            (t[18], t[19], t[20]), (t[21], t[22], t[23]), t[24], t[25], t[26], t[27], t[28], t[29], t[30], low, high,
        )  # fmt: skip

    return compile_share(forward), compile_share(backward)
