"""Compiled filters of images whose channels come last: transform, product with a transfer function, transform back.

A task takes 16 channels of an image through all of it in the cache. Vectors run over channels, so that transforms of
any axis are the same code. Two rows of an image are the real and the imaginary part of one row to transform; columns of
the half plane are transformed, multiplied and transformed back at once. Zeros and reflections, by which `boundary`
extends an image, are made line by line and stand nowhere else.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from operators.cpu.compilation import inner
from operators.cpu.kernel import Flat, Integers, kernel
from operators.cpu.transform import EXCHANGED, PAIRS, transform
from operators.cpu.vectors import Complex, Place, copy16, lanes


class FilterForward(NamedTuple):
    """task = block of 16 channels · batch + image.

    u with its strides of (B, H, W); response (2, rows, columns / 2 + 1, D) of the extended grid, rows × columns; of
    `table`, how to transform either axis, and `_spread`, how its mode extends it. Written: y (B, H, W, D).
    """

    u: Flat
    response: Flat
    y: Flat
    row_passes: Integers
    row_turns: Flat
    column_passes: Integers
    column_turns: Flat
    u_image: int
    u_row: int
    u_column: int
    height: int
    width: int
    rows: int
    columns: int
    batch: int
    channels: int
    row_mode: int
    column_mode: int


class FilterBackward(NamedTuple):
    """task = block of 16 channels · parts + part of the batch.

    As `FilterForward`, and the output's gradient grad_y with its strides. Written: grad_u (B, H, W, D) and
    grad_response (parts, 2, rows, columns / 2 + 1, D), to be summed over parts.
    """

    u: Flat
    response: Flat
    grad_y: Flat
    grad_u: Flat
    grad_response: Flat
    row_passes: Integers
    row_turns: Flat
    column_passes: Integers
    column_turns: Flat
    u_image: int
    u_row: int
    u_column: int
    grad_image: int
    grad_row: int
    grad_column: int
    height: int
    width: int
    rows: int
    columns: int
    batch: int
    channels: int
    row_mode: int
    column_mode: int
    parts: int


@lanes
def _load_pair(target: Place, real: Place, imaginary: Place) -> None:
    target.store(real.load())
    target.moved(16).store(imaginary.load())


@lanes
def _load_single(target: Place, real: Place) -> None:
    value = real.load()
    target.store(value)
    target.moved(16).store(value * 0)


@lanes
def _copy(target: Place, source: Place) -> None:
    target.store(source.load())
    target.moved(16).store(source.moved(16).load())


@lanes
def _negate(target: Place, source: Place) -> None:
    target.store(-source.load())
    target.moved(16).store(-source.moved(16).load())


def _complex(place: Place) -> Complex:
    return Complex(place.load(), place.moved(16).load())


def _store(place: Place, value: Complex) -> None:
    place.store(value.re)
    place.moved(16).store(value.im)


@lanes
def _add(target: Place, other: Place) -> None:
    _store(target, _complex(target).plus(_complex(other)))


@lanes
def _subtract(target: Place, other: Place) -> None:
    _store(target, _complex(target).minus(_complex(other)))


@lanes
def _part(left: Place, right: Place, first: Place, second: Place) -> None:
    """From z[k] and z[-k] of a row whose parts are two real rows, twice what is theirs."""
    z, w = _complex(left), _complex(right)
    _store(first, Complex(z.re + w.re, z.im - w.im))
    _store(second, Complex(z.im + w.im, w.re - z.re))


@lanes
def _join(first: Place, second: Place, left: Place, right: Place) -> None:
    """The reverse, without the factor."""
    a, b = _complex(first), _complex(second)
    _store(left, Complex(a.re - b.im, a.im + b.re))
    _store(right, Complex(a.re + b.im, b.re - a.im))


@lanes
def _multiply(target: Place, factor: Place) -> None:
    _store(target, _complex(target).times(_complex(factor)))


@lanes
def _back_and_sum(gradient: Place, field: Place, factor: Place, total: Place) -> None:
    """Add gradient · conj(field) to the total, and multiply the gradient by conj(factor)."""
    g = _complex(gradient)
    _store(total, _complex(total).plus(g.times(_complex(field).conjugate())))
    _store(gradient, g.times(_complex(factor).conjugate()))


@lanes
def _put(target: Place, source: Place, scale: Place) -> None:
    target.store(source.load() * scale.number(0))


@inner
def _spread(line: Any, length: int, whole: int, mode: int) -> None:
    """Extend the first `length` complex vectors of a line to all `whole`: 2 by zeros, 1 evenly, -1 oddly, 0 not."""
    if mode == 2:
        line[length * 32 : whole * 32] = 0
    elif mode == 1:
        for c in range(length):
            _copy(((line, (whole - 1 - c) * 32), (line, c * 32)))
    elif mode == -1:
        for c in range(length):
            _negate(((line, (whole - 1 - c) * 32), (line, c * 32)))


@inner
def _fold(line: Any, length: int, whole: int, mode: int) -> None:
    """What `_spread` does, transposed."""
    if mode == 1:
        for c in range(length):
            _add(((line, c * 32), (line, (whole - 1 - c) * 32)))
    elif mode == -1:
        for c in range(length):
            _subtract(((line, c * 32), (line, (whole - 1 - c) * 32)))


@inner
def _rows(waves: Any, source: Any, at: int, steps: Any, sizes: Any, mode: int, plan: Any, memory: Any) -> None:
    """Twice the half-line spectra of a block of an image's rows: waves[r, k], of (height, columns / 2 + 1)."""
    height, width, _, columns = sizes
    half = columns // 2 + 1
    row, column = steps
    line, scratch = memory
    for r in range(0, height, 2):
        of = at + r * row
        paired = r + 1 < height
        for c in range(width):
            place = of + c * column
            if paired:
                _load_pair(((scratch[-1], c * 32), (source, place), (source, place + row)))
            else:
                _load_single(((scratch[-1], c * 32), (source, place)))
        _spread(scratch[-1], width, columns, mode)
        transform(line, 0, PAIRS, scratch[-1], 0, PAIRS, plan, scratch)
        second = (r + 1 if paired else height) * half * 32
        for k in range(half):
            _part((
                (line, k * 32), (line, (columns - k) % columns * 32),
                (waves, (r * half + k) * 32), (waves, second + k * 32),
            ))  # fmt: skip


@inner
def _rows_back(target: Any, at: int, steps: Any, waves: Any, sizes: Any, mode: int, plan: Any, memory: Any) -> None:
    """The rows whose spectra are waves[r, k], folded, to a block of an image."""
    height, width, _, columns = sizes
    half = columns // 2 + 1
    row, column = steps
    line, scratch = memory
    for r in range(0, height, 2):
        to = at + r * row
        paired = r + 1 < height
        second = (r + 1 if paired else height) * half * 32
        if not paired:
            waves[second : second + half * 32] = 0
        for k in range(half):
            # Of waves that are their own conjugates the imaginary parts are nothing but errors.
            if k == 0 or 2 * k == columns:
                _load_pair(((line, k * 32), (waves, (r * half + k) * 32), (waves, second + k * 32)))
            else:
                _join((
                    (waves, (r * half + k) * 32), (waves, second + k * 32),
                    (line, k * 32), (line, (columns - k) * 32),
                ))  # fmt: skip
        if paired and width == columns:
            transform(target, to, (column, row, 0), line, 0, EXCHANGED, plan, scratch)
            continue
        transform(scratch[-1], 0, EXCHANGED, line, 0, EXCHANGED, plan, scratch)
        _fold(scratch[-1], width, columns, mode)
        for c in range(width):
            copy16(((target, to + c * column), (scratch[-1], c * 32)))
            if paired:
                copy16(((target, to + row + c * column), (scratch[-1], c * 32 + 16)))


@inner
def _column(line: Any, waves: Any, k: int, sizes: Any, mode: int, plan: Any, memory: Any) -> None:
    """The transformed column k of waves."""
    height, _, rows, columns = sizes
    half = columns // 2 + 1
    short, scratch = memory
    if mode == 0:
        transform(line, 0, PAIRS, waves, k * 32, (half * 32, 0, 16), plan, scratch)
        return
    for r in range(height):
        _copy(((short, r * 32), (waves, (r * half + k) * 32)))
    _spread(short, height, rows, mode)
    transform(line, 0, PAIRS, short, 0, PAIRS, plan, scratch)


@inner
def _column_back(waves: Any, line: Any, k: int, sizes: Any, mode: int, plan: Any, memory: Any) -> None:
    """Column k of waves from its transform, folded."""
    height, _, rows, columns = sizes
    half = columns // 2 + 1
    short, scratch = memory
    if height == rows:
        transform(waves, k * 32, (half * 32, 16, 0), line, 0, EXCHANGED, plan, scratch)
        return
    transform(short, 0, EXCHANGED, line, 0, EXCHANGED, plan, scratch)
    _fold(short, height, rows, mode)
    for r in range(height):
        _copy(((waves, (r * half + k) * 32), (short, r * 32)))


@inner
def _pack_response(packed: Any, response: Any, first: int, rows: int, columns: int, channels: int) -> None:
    """packed[k, p] of 16 channels from response (2, rows, columns / 2 + 1, channels), with the transforms' factors."""
    half = columns // 2 + 1
    scale = np.full(1, 0.5 / (rows * columns), packed.dtype)
    for p in range(rows):
        for k in range(half):
            at, to = (p * half + k) * channels + first, (k * rows + p) * 32
            _put(((packed, to), (response, at), (scale, 0)))
            _put(((packed, to + 16), (response, at + rows * half * channels), (scale, 0)))


@kernel
def forward(k: FilterForward, low: int, high: int) -> None:
    """Filter image after image of a block of channels."""
    u, batch, channels, row_mode, column_mode = k.u, k.batch, k.channels, k.row_mode, k.column_mode
    row_plan, column_plan = (k.row_passes.reshape(-1, 4), k.row_turns), (k.column_passes.reshape(-1, 4), k.column_turns)
    sizes = height, width, rows, columns = k.height, k.width, k.rows, k.columns
    half, longest = columns // 2 + 1, max(rows, columns) * 32
    memory, line = (np.empty(longest, u.dtype), np.empty((2, longest), u.dtype)), np.empty(rows * 32, u.dtype)
    # With a row more, the partner of an odd one.
    waves, packed = np.empty((height + 1) * half * 32, u.dtype), np.empty(half * rows * 32, u.dtype)
    u_steps, y_steps = (k.u_row, k.u_column), (width * channels, channels)
    last = -1
    for task in range(low, high):
        place, image = divmod(task, batch)
        if place != last:
            last = place
            _pack_response(packed, k.response, 16 * place, rows, columns, channels)
        _rows(waves, u, image * k.u_image + 16 * place, u_steps, sizes, column_mode, column_plan, memory)
        for wave in range(half):
            _column(line, waves, wave, sizes, row_mode, row_plan, memory)
            for p in range(rows):
                _multiply(((line, p * 32), (packed, (wave * rows + p) * 32)))
            _column_back(waves, line, wave, sizes, 0, row_plan, memory)
        to = image * height * width * channels + 16 * place
        _rows_back(k.y, to, y_steps, waves, sizes, 0, column_plan, memory)


@kernel
def backward(k: FilterBackward, low: int, high: int) -> None:
    """Write both gradients, image after image of a block of channels."""
    u, batch, channels, row_mode, column_mode, parts = k.u, k.batch, k.channels, k.row_mode, k.column_mode, k.parts
    row_plan, column_plan = (k.row_passes.reshape(-1, 4), k.row_turns), (k.column_passes.reshape(-1, 4), k.column_turns)
    sizes = height, width, rows, columns = k.height, k.width, k.rows, k.columns
    half, longest = columns // 2 + 1, max(rows, columns) * 32
    memory = np.empty(longest, u.dtype), np.empty((2, longest), u.dtype)
    field, gradient, scale = np.empty(rows * 32, u.dtype), np.empty(rows * 32, u.dtype), np.empty(1, u.dtype)
    waves, packed = np.empty((height + 1) * half * 32, u.dtype), np.empty(half * rows * 32, u.dtype)
    d_waves, d_packed = np.empty((height + 1) * half * 32, u.dtype), np.empty(half * rows * 32, u.dtype)
    u_steps, g_steps, to_steps = (k.u_row, k.u_column), (k.grad_row, k.grad_column), (width * channels, channels)
    # The output's gradient is zero where the output was cut off; the transpose of zeros is to cut off.
    row_zeros, row_fold = (0, 0) if row_mode == 0 else (2, 0 if row_mode == 2 else row_mode)
    column_zeros, column_fold = (0, 0) if column_mode == 0 else (2, 0 if column_mode == 2 else column_mode)
    for task in range(low, high):
        place, part = divmod(task, parts)
        _pack_response(packed, k.response, 16 * place, rows, columns, channels)
        d_packed[:] = 0
        for image in range(batch * part // parts, batch * (part + 1) // parts):
            _rows(waves, u, image * k.u_image + 16 * place, u_steps, sizes, column_mode, column_plan, memory)
            at = image * k.grad_image + 16 * place
            _rows(d_waves, k.grad_y, at, g_steps, sizes, column_zeros, column_plan, memory)
            for wave in range(half):
                _column(field, waves, wave, sizes, row_mode, row_plan, memory)
                _column(gradient, d_waves, wave, sizes, row_zeros, row_plan, memory)
                for p in range(rows):
                    at = (wave * rows + p) * 32
                    _back_and_sum(((gradient, p * 32), (field, p * 32), (packed, at), (d_packed, at)))
                _column_back(d_waves, gradient, wave, sizes, row_fold, row_plan, memory)
            to = image * height * width * channels + 16 * place
            _rows_back(k.grad_u, to, to_steps, d_waves, sizes, column_fold, column_plan, memory)
        # Of a wave and its conjugate, only one of which is in the half plane, the gradient is the sum.
        for wave in range(half):
            scale[0] = (0.25 if wave == 0 or 2 * wave == columns else 0.5) / (rows * columns)
            for p in range(rows):
                to = ((2 * part * rows + p) * half + wave) * channels + 16 * place
                _put(((k.grad_response, to), (d_packed, (wave * rows + p) * 32), (scale, 0)))
                to += rows * half * channels
                _put(((k.grad_response, to), (d_packed, (wave * rows + p) * 32 + 16), (scale, 0)))
