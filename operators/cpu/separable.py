"""Compiled products of separable propagators with images whose channels come last, forward and backward.

Every channel has matrices of its own, so that vectors run over channels. A task takes 16 channels of an image through
both products without leaving the cache: nothing is transposed in memory, and nothing with an axis for the states exists
outside.

All is made of the sums of `operators.cpu.contraction`. What they read is in panels, which fit into the cache and are
read along either axis; memory that is needed next is fetched while sums are made.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from operators.cpu.compilation import array, call, compile_share, inner
from operators.cpu.sharing import share
from operators.cpu.vectors import add_products16, copy16


@inner
def _at(numbers: Any, place: int) -> int:
    address: int = numbers.ctypes.data + place * numbers.itemsize
    return address


@inner
def _contract(code: int, y: Any, a: Any, b: Any, sizes: Any, ahead: Any) -> None:
    """y[i, j] = sum over k of a[i, k] b[j, k], or that added to y, of (i, j, k) = `sizes`, while `ahead` is fetched.

    Arrays are tuples: the address of the first number, and the distances of neighbours along i and j; for a and b,
    along i or j and then k. `ahead`: address, distance and number of places.
    """
    call(code, (*y, *a, *b, *sizes, *ahead, 0, 0, 0, 0))


@inner
def _pitch(columns: int) -> int:
    """From row to row of a panel: an odd number of vectors, so that a column does not fall into few sets of a cache."""
    return (columns | 1) * 16


@inner
def _pack(
    panels: Any, source: Any, at: int, row: int, column: int, rows: int, columns: int, blocks: int, size: int
) -> None:
    """Panels, `size` numbers from one to the next, of source[at + r · row + c · column + 16 q + channel], blocks q.

    A place's channels are read together: memory is slow to jump in.
    """
    for r in range(rows):
        for c in range(columns):
            to, of = r * _pitch(columns) + c * 16, at + r * row + c * column
            for q in range(blocks):
                copy16(panels, q * size + to, source, of + 16 * q)


@inner
def _unpack(
    panels: Any, target: Any, at: int, row: int, column: int, rows: int, columns: int, blocks: int, size: int
) -> None:
    """The reverse of `_pack`."""
    for r in range(rows):
        for c in range(columns):
            of, to = r * _pitch(columns) + c * 16, at + r * row + c * column
            for q in range(blocks):
                copy16(target, to + 16 * q, panels, q * size + of)


@inner
def _lines(field: Any, at: int, strides: Any, height: int, width: int) -> Any:
    """For `ahead`: the field of a block of channels, if its pixels follow each other in memory; it is a hint only."""
    return _at(field, at), strides[2], height * width if strides[1] == width * strides[2] else 0


@inner(once=True)
def _forward(
    u: Any, rows: Any, columns: Any, skip: Any, y: Any, u_strides: Any,
    batch: int, height: int, width: int, channels: int, states: int, bundle: int, codes: Any, low: int, high: int,
) -> None:  # fmt: skip
    """Tasks `low` to `high` - 1; task = (block of channels / bundle) · batch + image.

    u: flat, with the strides of (B, H, W); rows (S, H, H, D), columns (S, W, W, D), skip (D,), y (B, H, W, D): flat.
    `codes`: what `contractions` gives.
    """
    # States and rows are one axis: matrices [state and k, i] and [state and j, l].
    by_h, by_w = _pitch(height), _pitch(width)
    hh, ww = states * height * by_h, states * width * by_w
    down, along = np.empty(bundle * hh, u.dtype), np.empty(bundle * ww, u.dtype)
    x, across = np.empty(height * by_w, u.dtype), np.empty(states * height * by_w, u.dtype)
    strides = (height * width * channels, width * channels, channels)
    packed = -1
    for task in range(low, high):
        place, image = divmod(task, batch)
        first = 16 * bundle * place
        blocks = min(bundle, (channels - first) // 16)
        if place != packed:
            packed = place
            for s in range(states):
                at = s * height * height * channels + first
                _pack(down[s * height * by_h :], rows, at, channels, height * channels, height, height, blocks, hh)
            _pack(along, columns, first, width * channels, channels, states * width, width, blocks, ww)
        for q in range(blocks):
            block = first + 16 * q
            of, to = image * u_strides[0] + block, image * strides[0] + block
            further = of + 16 if q + 1 < blocks else of - 16 * q + u_strides[0]
            _pack(x, u, of, u_strides[1], u_strides[2], height, width, 1, 0)
            for s in range(states):
                _contract(
                    codes[0], (_at(across, s * height * by_w), by_w, 16), (_at(x, 0), by_w, 16),
                    (_at(along, q * ww + s * width * by_w), by_w, 16), (height, width, width),
                    _lines(y, to, strides, height, width),
                )  # fmt: skip
            call(codes[2], (
                _at(y, to), strides[1], strides[2], _at(down, q * hh), 16, by_h, _at(across, 0), 16, by_w,
                height, width, states * height, *_lines(u, further, u_strides, height, width),
                _at(x, 0), by_w, 16, _at(skip, block),
            ))  # fmt: skip


@inner(once=True)
def _backward(
    u: Any, rows: Any, columns: Any, skip: Any, g: Any, grad_u: Any, grad_rows: Any, grad_columns: Any, grad_skip: Any,
    u_strides: Any, g_strides: Any,
    batch: int, height: int, width: int, channels: int, states: int, bundle: int, parts: int, codes: Any,
    low: int, high: int,
) -> None:  # fmt: skip
    """Gradients from tasks `low` to `high` - 1; task = (block of channels / bundle) · parts + part of the batch.

    Flat, with the strides of (B, H, W): u and the output's gradient g. Flat and written: grad_u (B, H, W, D), grad_rows
    (parts, S, H, H, D) and grad_columns (parts, S, W, W, D); added to: grad_skip (parts, D). To be summed over parts.
    """
    # States and rows are one axis: matrices [state and i, k] and [state and j, l], and back [state and j, k].
    by_h, by_w = _pitch(height), _pitch(width)
    hh, ww = states * height * by_h, states * width * by_w
    down, along = np.empty(bundle * hh, u.dtype), np.empty(bundle * ww, u.dtype)
    grad_down, grad_along = np.empty(bundle * hh, u.dtype), np.empty(bundle * ww, u.dtype)
    x, d = np.empty(height * by_w, u.dtype), np.empty(height * by_w, u.dtype)
    across, back = np.empty(height * by_w, u.dtype), np.empty(states * width * by_h, u.dtype)
    strides = (height * width * channels, width * channels, channels)
    nothing = (0, 0, 0)
    for task in range(low, high):
        place, part = divmod(task, parts)
        first = 16 * bundle * place
        blocks = min(bundle, (channels - first) // 16)
        _pack(down, rows, first, height * channels, channels, states * height, height, blocks, hh)
        _pack(along, columns, first, width * channels, channels, states * width, width, blocks, ww)
        grad_down[:], grad_along[:] = 0, 0
        for image in range(batch * part // parts, batch * (part + 1) // parts):
            for q in range(blocks):
                block = first + 16 * q
                u_at, g_at = image * u_strides[0] + block, image * g_strides[0] + block
                to = image * strides[0] + block
                if q + 1 < blocks:
                    u_next, g_next = u_at + 16, g_at + 16
                else:
                    u_next, g_next = u_at - 16 * q + u_strides[0], g_at - 16 * q + g_strides[0]
                _pack(x, u, u_at, u_strides[1], u_strides[2], height, width, 1, 0)
                _pack(d, g, g_at, g_strides[1], g_strides[2], height, width, 1, 0)
                for h in range(height):
                    add_products16(grad_skip, part * channels + block, x, h * by_w, 16, d, h * by_w, 16, width)
                for s in range(states):
                    # across[k, j] from x and columns; d rows[i, k] from that.
                    _contract(
                        codes[0], (_at(across, 0), by_w, 16), (_at(x, 0), by_w, 16),
                        (_at(along, q * ww + s * width * by_w), by_w, 16), (height, width, width),
                        _lines(grad_u, to, strides, height, width),
                    )  # fmt: skip
                    _contract(
                        codes[1], (_at(grad_down, q * hh + s * height * by_h), by_h, 16), (_at(d, 0), by_w, 16),
                        (_at(across, 0), by_w, 16), (height, height, width), nothing,
                    )  # fmt: skip
                    # back[j, k] from the gradient and rows; d columns[j, l] from that.
                    turned = _at(back, s * width * by_h)
                    _contract(
                        codes[0], (turned, by_h, 16), (_at(d, 0), 16, by_w),
                        (_at(down, q * hh + s * height * by_h), 16, by_h), (width, height, height), nothing,
                    )  # fmt: skip
                    _contract(
                        codes[1], (_at(grad_along, q * ww + s * width * by_w), by_w, 16), (turned, by_h, 16),
                        (_at(x, 0), 16, by_w), (width, width, height), _lines(u, u_next, u_strides, height, width),
                    )  # fmt: skip
                call(codes[2], (
                    _at(grad_u, to), strides[1], strides[2], _at(back, 0), 16, by_h, _at(along, q * ww), 16, by_w,
                    height, width, states * width, *_lines(g, g_next, g_strides, height, width),
                    _at(d, 0), by_w, 16, _at(skip, block),
                ))  # fmt: skip
        at = part * states * height * height * channels + first
        _unpack(grad_down, grad_rows, at, height * channels, channels, states * height, height, blocks, hh)
        at = part * states * width * width * channels + first
        _unpack(grad_along, grad_columns, at, width * channels, channels, states * width, width, blocks, ww)


def compiled(dtype: str) -> tuple[Any, Any]:
    """The forward and the backward pass for `float32` or `float64`, for `sharing.run`, kept on disk if possible.

    Their arrays and numbers are the arguments of `_forward` and `_backward`, in order.
    """
    kind = {"float32": np.float32, "float64": np.float64}[dtype]

    def forward(data: Any) -> None:
        t, low, high = share(data, 22)
        u, rows, columns = array(t[0], t[1], kind), array(t[2], t[3], kind), array(t[4], t[5], kind)
        skip, y = array(t[6], t[7], kind), array(t[8], t[9], kind)
        _forward(
            u, rows, columns, skip, y, (t[10], t[11], t[12]), t[13], t[14], t[15], t[16], t[17], t[18], t[19:22],
            low, high,
        )  # fmt: skip

    def backward(data: Any) -> None:
        t, low, high = share(data, 34)
        u, rows, columns = array(t[0], t[1], kind), array(t[2], t[3], kind), array(t[4], t[5], kind)
        skip, g, grad_u = array(t[6], t[7], kind), array(t[8], t[9], kind), array(t[10], t[11], kind)
        grad_rows, grad_columns = array(t[12], t[13], kind), array(t[14], t[15], kind)
        grad_skip = array(t[16], t[17], kind)
        _backward(
            u, rows, columns, skip, g, grad_u, grad_rows, grad_columns, grad_skip,
            (t[18], t[19], t[20]), (t[21], t[22], t[23]), t[24], t[25], t[26], t[27], t[28], t[29], t[30], t[31:34],
            low, high,
        )  # fmt: skip

    return compile_share(forward), compile_share(backward)
