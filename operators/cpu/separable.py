"""Compiled products of separable propagators with images whose channels come last, forward and backward.

Every channel has matrices of its own, so that vectors run over channels. A task takes 16 channels of an image through
both products without leaving the cache: nothing is transposed in memory, and nothing with an axis for the states exists
outside.

All is made of the sums of `operators.cpu.contraction`. What they read is in panels, which fit into the cache and are
read along either axis; memory that is needed next is fetched while sums are made.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from operators.cpu.compilation import inner
from operators.cpu.contraction import contract, contract_scaled
from operators.cpu.kernel import Flat, kernel
from operators.cpu.vectors import add_products16, copy16


class SeparableForward(NamedTuple):
    """task = (block of 16 channels / bundle) · batch + image.

    u with its strides of (B, H, W); rows (S, H, H, D); columns (S, W, W, D); skip (D,); written: y (B, H, W, D). The
    addresses are `contractions`.
    """

    u: Flat
    rows: Flat
    columns: Flat
    skip: Flat
    y: Flat
    u_image: int
    u_row: int
    u_column: int
    batch: int
    height: int
    width: int
    channels: int
    states: int
    bundle: int
    from_zero: int
    to_sum: int
    from_scaled: int


class SeparableBackward(NamedTuple):
    """task = (block of 16 channels / bundle) · parts + part of the batch.

    As `SeparableForward`, and the output's gradient grad_y with its strides. Written: grad_u (B, H, W, D), grad_rows
    (parts, S, H, H, D) and grad_columns (parts, S, W, W, D); added to: grad_skip (parts, D). To be summed over parts.
    """

    u: Flat
    rows: Flat
    columns: Flat
    skip: Flat
    grad_y: Flat
    grad_u: Flat
    grad_rows: Flat
    grad_columns: Flat
    grad_skip: Flat
    u_image: int
    u_row: int
    u_column: int
    grad_image: int
    grad_row: int
    grad_column: int
    batch: int
    height: int
    width: int
    channels: int
    states: int
    bundle: int
    parts: int
    from_zero: int
    to_sum: int
    from_scaled: int


@inner
def _at(numbers: Any, place: int) -> int:
    address: int = numbers.ctypes.data + place * numbers.itemsize
    return address


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
                copy16(((panels, q * size + to), (source, of + 16 * q)))


@inner
def _unpack(
    panels: Any, target: Any, at: int, row: int, column: int, rows: int, columns: int, blocks: int, size: int
) -> None:
    """The reverse of `_pack`."""
    for r in range(rows):
        for c in range(columns):
            of, to = r * _pitch(columns) + c * 16, at + r * row + c * column
            for q in range(blocks):
                copy16(((target, to + 16 * q), (panels, q * size + of)))


@inner
def _lines(field: Any, at: int, row: int, column: int, height: int, width: int) -> Any:
    """For `ahead`: the field of a block of channels, if its pixels follow each other in memory; it is a hint only."""
    return _at(field, at), column, height * width if row == width * column else 0


@kernel
def forward(k: SeparableForward, low: int, high: int) -> None:
    """Multiply by both matrices, block by block of channels."""
    u, rows, columns, skip, y = k.u, k.rows, k.columns, k.skip, k.y
    batch, height, width, channels, states, bundle = k.batch, k.height, k.width, k.channels, k.states, k.bundle
    # States and rows are one axis: matrices [state and k, i] and [state and j, l].
    by_h, by_w = _pitch(height), _pitch(width)
    hh, ww = states * height * by_h, states * width * by_w
    down, along = np.empty(bundle * hh, u.dtype), np.empty(bundle * ww, u.dtype)
    x, across = np.empty(height * by_w, u.dtype), np.empty(states * height * by_w, u.dtype)
    row = width * channels
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
            of, to = image * k.u_image + block, image * height * row + block
            further = of + 16 if q + 1 < blocks else of - 16 * q + k.u_image
            _pack(x, u, of, k.u_row, k.u_column, height, width, 1, 0)
            for s in range(states):
                contract(
                    k.from_zero, (_at(across, s * height * by_w), by_w, 16), (_at(x, 0), by_w, 16),
                    (_at(along, q * ww + s * width * by_w), by_w, 16), (height, width, width),
                    _lines(y, to, row, channels, height, width),
                )  # fmt: skip
            contract_scaled(
                k.from_scaled, (_at(y, to), row, channels), (_at(down, q * hh), 16, by_h), (_at(across, 0), 16, by_w),
                (height, width, states * height), _lines(u, further, k.u_row, k.u_column, height, width),
                (_at(x, 0), by_w, 16), _at(skip, block),
            )  # fmt: skip


@kernel
def backward(k: SeparableBackward, low: int, high: int) -> None:
    """Write all gradients, block by block of channels."""
    u, rows, columns, skip, g = k.u, k.rows, k.columns, k.skip, k.grad_y
    grad_u, grad_rows, grad_columns, grad_skip = k.grad_u, k.grad_rows, k.grad_columns, k.grad_skip
    batch, height, width, channels, states, bundle = k.batch, k.height, k.width, k.channels, k.states, k.bundle
    parts = k.parts
    # States and rows are one axis: matrices [state and i, k] and [state and j, l], and back [state and j, k].
    by_h, by_w = _pitch(height), _pitch(width)
    hh, ww = states * height * by_h, states * width * by_w
    down, along = np.empty(bundle * hh, u.dtype), np.empty(bundle * ww, u.dtype)
    grad_down, grad_along = np.empty(bundle * hh, u.dtype), np.empty(bundle * ww, u.dtype)
    x, d = np.empty(height * by_w, u.dtype), np.empty(height * by_w, u.dtype)
    across, back = np.empty(height * by_w, u.dtype), np.empty(states * width * by_h, u.dtype)
    row = width * channels
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
                u_at, g_at = image * k.u_image + block, image * k.grad_image + block
                to = image * height * row + block
                if q + 1 < blocks:
                    u_next, g_next = u_at + 16, g_at + 16
                else:
                    u_next, g_next = u_at - 16 * q + k.u_image, g_at - 16 * q + k.grad_image
                _pack(x, u, u_at, k.u_row, k.u_column, height, width, 1, 0)
                _pack(d, g, g_at, k.grad_row, k.grad_column, height, width, 1, 0)
                for h in range(height):
                    add_products16(((grad_skip, part * channels + block), (x, h * by_w), 16, (d, h * by_w), 16, width))
                for s in range(states):
                    # across[k, j] from x and columns; d rows[i, k] from that.
                    contract(
                        k.from_zero, (_at(across, 0), by_w, 16), (_at(x, 0), by_w, 16),
                        (_at(along, q * ww + s * width * by_w), by_w, 16), (height, width, width),
                        _lines(grad_u, to, row, channels, height, width),
                    )  # fmt: skip
                    contract(
                        k.to_sum, (_at(grad_down, q * hh + s * height * by_h), by_h, 16), (_at(d, 0), by_w, 16),
                        (_at(across, 0), by_w, 16), (height, height, width), nothing,
                    )  # fmt: skip
                    # back[j, k] from the gradient and rows; d columns[j, l] from that.
                    turned = _at(back, s * width * by_h)
                    contract(
                        k.from_zero, (turned, by_h, 16), (_at(d, 0), 16, by_w),
                        (_at(down, q * hh + s * height * by_h), 16, by_h), (width, height, height), nothing,
                    )  # fmt: skip
                    contract(
                        k.to_sum, (_at(grad_along, q * ww + s * width * by_w), by_w, 16), (turned, by_h, 16),
                        (_at(x, 0), 16, by_w), (width, width, height),
                        _lines(u, u_next, k.u_row, k.u_column, height, width),
                    )  # fmt: skip
                contract_scaled(
                    k.from_scaled, (_at(grad_u, to), row, channels), (_at(back, 0), 16, by_h),
                    (_at(along, q * ww), 16, by_w), (height, width, states * width),
                    _lines(g, g_next, k.grad_row, k.grad_column, height, width),
                    (_at(d, 0), by_w, 16), _at(skip, block),
                )  # fmt: skip
        at = part * states * height * height * channels + first
        _unpack(grad_down, grad_rows, at, height * channels, channels, states * height, height, blocks, hh)
        at = part * states * width * width * channels + first
        _unpack(grad_along, grad_columns, at, width * channels, channels, states * width, width, blocks, ww)
