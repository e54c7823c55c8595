"""Compiled filters of images whose channels come last: transform, product with a transfer function, transform back.

A task takes 16 channels of an image through all of it in the cache. Vectors run over channels, so that transforms of
any axis are the same code: Stockham's, by factors of 8, 4, 2, 3, 5 and 7. Two rows of an image are the real and the
imaginary part of one row to transform; columns of the half plane are transformed, multiplied and transformed back at
once. Zeros and reflections, by which `boundary` extends an image, are made line by line and stand nowhere else.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from operators.cpu.jit import array, call, compile_function, compile_share, copy16, inner, named, share
from operators.cpu.vectors import Complex, Place, lanes
from operators.runtime.once import once

RADICES = (8, 4, 2, 3, 5, 7)
PAIRS, EXCHANGED = (32, 0, 16), (32, 16, 0)
"""Where the complex vectors of a line are, see `_transform`."""


def factors(length: int) -> list[int] | None:
    """The factors by which an axis of that length is transformed; None if it has others."""
    found = []
    for radix in RADICES:
        while length % radix == 0:
            found.append(radix)
            length //= radix
    return found if length == 1 else None


@once
def table(length: int, dtype: str) -> tuple[Any, Any]:
    """How to transform an axis: its passes, and numbers exp(-2 pi i p j / (radix · m)) for them.

    A pass is the address of its code, the p it has (m), the transforms it makes side by side, and where its numbers
    begin, which go by p and j = 1 … radix - 1.
    """
    passes, turns, begin, side, rest = [], [], 0, 1, length
    radices = factors(length)
    assert radices, f"{length} is not served"
    for radix in radices:
        m = rest // radix
        angle = -2 * np.pi * ((np.arange(m)[:, None] * np.arange(1, radix)) % rest) / rest
        turns.append(np.stack([np.cos(angle), np.sin(angle)], -1).ravel())
        passes.append((_address(radix, dtype), m, side, begin))
        begin, side, rest = begin + turns[-1].size, side * radix, m
    return np.array(passes, np.int64), np.concatenate(turns).astype(dtype)


def _small(x: list[Complex]) -> list[Complex]:
    """The transform of few numbers."""
    n = len(x)
    if n == 1:
        return x
    if n % 2 == 0:
        even, odd = _small(x[::2]), _small(x[1::2])
        turned = []
        for k, value in enumerate(odd):
            if 4 * k == n:
                turned.append(value.turned())
            elif k == 0:
                turned.append(value)
            else:
                c, s = math.cos(2 * math.pi * k / n), math.sin(2 * math.pi * k / n)
                turned.append(Complex(value.re * c + value.im * s, value.im * c - value.re * s))
        pairs = list(zip(even, turned, strict=True))
        return [a.plus(b) for a, b in pairs] + [a.minus(b) for a, b in pairs]
    sums = [x[i].plus(x[n - i]) for i in range(1, n // 2 + 1)]
    differences = [x[i].minus(x[n - i]).turned() for i in range(1, n // 2 + 1)]
    first = x[0]
    for one in sums:
        first = first.plus(one)
    found = [first] * n
    for k in range(1, n // 2 + 1):
        angles = [2 * math.pi * i * k / n for i in range(1, n // 2 + 1)]
        cosines = x[0]
        for one, angle in zip(sums, angles, strict=True):
            cosines = cosines.plus(one.scaled(math.cos(angle)))
        sines = differences[0].scaled(math.sin(angles[0]))
        for one, angle in zip(differences[1:], angles[1:], strict=True):
            sines = sines.plus(one.scaled(math.sin(angle)))
        found[k], found[n - k] = cosines.plus(sines), cosines.minus(sines)
    return found


def _pass(radix: int) -> Any:
    """A factor of a transform: for every p and q, `radix` numbers transformed and turned."""

    def butterfly(turned: bool) -> Any:
        @lanes
        def small(
            target: Place, to_step: Any, to_re: Any, to_im: Any, source: Place, of_step: Any, of_re: Any, of_im: Any,
            turns: Place,
        ) -> None:  # fmt: skip
            places = [source.after(i, of_step) for i in range(radix)]
            x = [Complex(place.moved(of_re).load(), place.moved(of_im).load()) for place in places]
            for j, value in enumerate(_small(x)):
                if j and turned:
                    value = value.times(Complex(turns.number(2 * j - 2), turns.number(2 * j - 1)))
                place = target.after(j, to_step)
                place.moved(to_re).store(value.re)
                place.moved(to_im).store(value.im)

        return small

    straight, turned = butterfly(False), butterfly(True)

    @inner
    @named(str(radix))
    def whole(target: Any, to: Any, source: Any, of: Any, turns: Any, m: int, s: int) -> None:
        to_step, to_re, to_im = to
        of_step, of_re, of_im = of
        for q in range(s):
            straight((
                (target, q * to_step), s * to_step, to_re, to_im,
                (source, q * of_step), s * m * of_step, of_re, of_im, (turns, 0),
            ))  # fmt: skip
        for p in range(1, m):
            for q in range(s):
                turned((
                    (target, (q + s * radix * p) * to_step), s * to_step, to_re, to_im,
                    (source, (q + s * p) * of_step), s * m * of_step, of_re, of_im, (turns, p * 2 * (radix - 1)),
                ))  # fmt: skip

    return whole


_pass8, _pass4, _pass2, _pass3, _pass5, _pass7 = map(_pass, RADICES)


@once
def _address(radix: int, dtype: str) -> int:
    """The address of a compiled pass: a unit of its own, since all that uses it would be compiled with it again."""
    kind = {"float32": np.float32, "float64": np.float64}[dtype]

    def whole(
        target: int, to_step: int, to_re: int, to_im: int, source: int, of_step: int, of_re: int, of_im: int,
        turns: int, m: int, s: int,
    ) -> None:  # fmt: skip
        to, of = (to_step, to_re, to_im), (of_step, of_re, of_im)
        if radix == 8:
            _pass8(array(target, 0, kind), to, array(source, 0, kind), of, array(turns, 0, kind), m, s)
        elif radix == 4:
            _pass4(array(target, 0, kind), to, array(source, 0, kind), of, array(turns, 0, kind), m, s)
        elif radix == 2:
            _pass2(array(target, 0, kind), to, array(source, 0, kind), of, array(turns, 0, kind), m, s)
        elif radix == 3:
            _pass3(array(target, 0, kind), to, array(source, 0, kind), of, array(turns, 0, kind), m, s)
        elif radix == 5:
            _pass5(array(target, 0, kind), to, array(source, 0, kind), of, array(turns, 0, kind), m, s)
        else:
            _pass7(array(target, 0, kind), to, array(source, 0, kind), of, array(turns, 0, kind), m, s)

    return compile_function(whole, 11)


@inner
def _transform(target: Any, at: int, to: Any, source: Any, of_at: int, of: Any, plan: Any, scratch: Any) -> None:
    """Transform complex vectors of `source`, the first of which is at `of_at`, to `target`.

    `to` and `of`: the distance of neighbours, and the distances of real and of imaginary part from a vector's place.
    The inverse, without its factor 1 / length, is the same with these two exchanged on both sides. `plan`: of `table`.
    """
    steps, turns = plan
    size, between = target.itemsize, (32, 0, 16)
    last = len(steps) - 1
    for n in range(last + 1):
        address, m, s, turn = steps[n]
        reads = source.ctypes.data + of_at * size if n == 0 else scratch[(n - 1) % 2].ctypes.data
        writes = target.ctypes.data + at * size if n == last else scratch[n % 2].ctypes.data
        r, w = of if n == 0 else between, to if n == last else between
        call(address, (writes, *w, reads, *r, turns.ctypes.data + turn * size, m, s))


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
def _part(one: Place, other: Place, first: Place, second: Place) -> None:
    """From z[k] and z[-k] of a row whose parts are two real rows, twice what is theirs."""
    z, w = _complex(one), _complex(other)
    _store(first, Complex(z.re + w.re, z.im - w.im))
    _store(second, Complex(z.im + w.im, w.re - z.re))


@lanes
def _join(first: Place, second: Place, one: Place, other: Place) -> None:
    """The reverse, without the factor."""
    a, b = _complex(first), _complex(second)
    _store(one, Complex(a.re - b.im, a.im + b.re))
    _store(other, Complex(a.re + b.im, b.re - a.im))


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
    """Extend the first `length` complex vectors of a line to all of its `whole`: 2 by zeros, 1 evenly, -1 oddly."""
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
def _rows(waves: Any, source: Any, at: int, strides: Any, sizes: Any, mode: int, plan: Any, memory: Any) -> None:
    """Twice the half-line spectra of a block of an image's rows: waves[r, k], of (height, columns / 2 + 1)."""
    height, width, _, columns = sizes
    half = columns // 2 + 1
    line, scratch = memory[0], memory[1:]
    for r in range(0, height, 2):
        of = at + r * strides[1]
        paired = r + 1 < height
        for c in range(width):
            place = of + c * strides[2]
            if paired:
                _load_pair(((scratch[1], c * 32), (source, place), (source, place + strides[1])))
            else:
                _load_single(((scratch[1], c * 32), (source, place)))
        _spread(scratch[1], width, columns, mode)
        _transform(line, 0, PAIRS, scratch[1], 0, PAIRS, plan, scratch)
        second = (r + 1 if paired else height) * half * 32
        for k in range(half):
            _part((
                (line, k * 32), (line, (columns - k) % columns * 32),
                (waves, (r * half + k) * 32), (waves, second + k * 32),
            ))  # fmt: skip


@inner
def _rows_back(target: Any, at: int, strides: Any, waves: Any, sizes: Any, mode: int, plan: Any, memory: Any) -> None:
    """The rows whose spectra are waves[r, k], folded, to a block of an image."""
    height, width, _, columns = sizes
    half = columns // 2 + 1
    line, scratch = memory[0], memory[1:]
    for r in range(0, height, 2):
        to = at + r * strides[1]
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
            _transform(target, to, (strides[2], strides[1], 0), line, 0, EXCHANGED, plan, scratch)
            continue
        _transform(scratch[1], 0, EXCHANGED, line, 0, EXCHANGED, plan, scratch)
        _fold(scratch[1], width, columns, mode)
        for c in range(width):
            copy16(target, to + c * strides[2], scratch[1], c * 32)
            if paired:
                copy16(target, to + strides[1] + c * strides[2], scratch[1], c * 32 + 16)


@inner
def _column(line: Any, waves: Any, k: int, sizes: Any, mode: int, plan: Any, memory: Any) -> None:
    """The transformed column k of waves."""
    height, _, rows, columns = sizes
    half = columns // 2 + 1
    if mode == 0:
        _transform(line, 0, PAIRS, waves, k * 32, (half * 32, 0, 16), plan, memory[1:])
        return
    for r in range(height):
        _copy(((memory[0], r * 32), (waves, (r * half + k) * 32)))
    _spread(memory[0], height, rows, mode)
    _transform(line, 0, PAIRS, memory[0], 0, PAIRS, plan, memory[1:])


@inner
def _column_back(waves: Any, line: Any, k: int, sizes: Any, mode: int, plan: Any, memory: Any) -> None:
    """Column k of waves from its transform, folded."""
    height, _, rows, columns = sizes
    half = columns // 2 + 1
    if height == rows:
        _transform(waves, k * 32, (half * 32, 16, 0), line, 0, EXCHANGED, plan, memory[1:])
        return
    _transform(memory[0], 0, EXCHANGED, line, 0, EXCHANGED, plan, memory[1:])
    _fold(memory[0], height, rows, mode)
    for r in range(height):
        _copy(((waves, (r * half + k) * 32), (memory[0], r * 32)))


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


@inner(once=True)
def _forward(
    u: Any, response: Any, y: Any, row_plan: Any, column_plan: Any, u_strides: Any, sizes: Any, batch: int,
    channels: int, mode: int, low: int, high: int,
) -> None:  # fmt: skip
    """Tasks `low` to `high` - 1; task = block of channels · batch + image."""
    height, width, rows, columns = sizes
    half = columns // 2 + 1
    memory, line = np.empty((3, max(rows, columns) * 32), u.dtype), np.empty(rows * 32, u.dtype)
    # With a row more, the partner of an odd one.
    waves, packed = np.empty((height + 1) * half * 32, u.dtype), np.empty(half * rows * 32, u.dtype)
    strides = (height * width * channels, width * channels, channels)
    last = -1
    for task in range(low, high):
        place, image = divmod(task, batch)
        if place != last:
            last = place
            _pack_response(packed, response, 16 * place, rows, columns, channels)
        _rows(waves, u, image * u_strides[0] + 16 * place, u_strides, sizes, mode, column_plan, memory)
        for k in range(half):
            _column(line, waves, k, sizes, mode, row_plan, memory)
            for p in range(rows):
                _multiply(((line, p * 32), (packed, (k * rows + p) * 32)))
            _column_back(waves, line, k, sizes, 0, row_plan, memory)
        _rows_back(y, image * strides[0] + 16 * place, strides, waves, sizes, 0, column_plan, memory)


@inner(once=True)
def _backward(
    u: Any, response: Any, g: Any, grad_u: Any, grad_response: Any, row_plan: Any, column_plan: Any,
    u_strides: Any, g_strides: Any, sizes: Any, batch: int, channels: int, parts: int, mode: int, low: int, high: int,
) -> None:  # fmt: skip
    """Gradients from tasks `low` to `high` - 1; task = block of channels · parts + part of the batch."""
    height, width, rows, columns = sizes
    half = columns // 2 + 1
    memory = np.empty((3, max(rows, columns) * 32), u.dtype)
    field, gradient = np.empty(rows * 32, u.dtype), np.empty(rows * 32, u.dtype)
    waves, packed = np.empty((height + 1) * half * 32, u.dtype), np.empty(half * rows * 32, u.dtype)
    d_waves, d_packed = np.empty((height + 1) * half * 32, u.dtype), np.empty(half * rows * 32, u.dtype)
    scale = np.empty(1, u.dtype)
    strides = (height * width * channels, width * channels, channels)
    # The output's gradient is zero where the output was cut off; the transpose of zeros is to cut off.
    zeros, fold = (0, 0) if mode == 0 else (2, 0 if mode == 2 else mode)
    for task in range(low, high):
        place, part = divmod(task, parts)
        _pack_response(packed, response, 16 * place, rows, columns, channels)
        d_packed[:] = 0
        for image in range(batch * part // parts, batch * (part + 1) // parts):
            _rows(waves, u, image * u_strides[0] + 16 * place, u_strides, sizes, mode, column_plan, memory)
            _rows(d_waves, g, image * g_strides[0] + 16 * place, g_strides, sizes, zeros, column_plan, memory)
            for k in range(half):
                _column(field, waves, k, sizes, mode, row_plan, memory)
                _column(gradient, d_waves, k, sizes, zeros, row_plan, memory)
                for p in range(rows):
                    at = (k * rows + p) * 32
                    _back_and_sum(((gradient, p * 32), (field, p * 32), (packed, at), (d_packed, at)))
                _column_back(d_waves, gradient, k, sizes, fold, row_plan, memory)
            _rows_back(grad_u, image * strides[0] + 16 * place, strides, d_waves, sizes, fold, column_plan, memory)
        # Of a wave and its conjugate, only one of which is in the half plane, the gradient is the sum.
        for k in range(half):
            scale[0] = (0.25 if k == 0 or 2 * k == columns else 0.5) / (rows * columns)
            for p in range(rows):
                to = ((2 * part * rows + p) * half + k) * channels + 16 * place
                _put(((grad_response, to), (d_packed, (k * rows + p) * 32), (scale, 0)))
                to += rows * half * channels
                _put(((grad_response, to), (d_packed, (k * rows + p) * 32 + 16), (scale, 0)))


def compiled(dtype: str) -> tuple[Any, Any]:
    """The forward and the backward pass for `float32` or `float64`, for `jit.run`, kept on disk if possible.

    Their arrays and numbers are those of `_forward` and `_backward`; plans come as two arrays each.
    """
    kind = {"float32": np.float32, "float64": np.float64}[dtype]

    def forward(data: Any) -> None:
        t, low, high = share(data, 24)
        u, response, y = array(t[0], t[1], kind), array(t[2], t[3], kind), array(t[4], t[5], kind)
        of_rows = array(t[6], t[7], np.int64).reshape(-1, 4), array(t[8], t[9], kind)
        of_columns = array(t[10], t[11], np.int64).reshape(-1, 4), array(t[12], t[13], kind)
        strides, sizes = (t[14], t[15], t[16]), (t[17], t[18], t[19], t[20])
        _forward(u, response, y, of_rows, of_columns, strides, sizes, t[21], t[22], t[23], low, high)

    def backward(data: Any) -> None:
        t, low, high = share(data, 32)
        u, response, g = array(t[0], t[1], kind), array(t[2], t[3], kind), array(t[4], t[5], kind)
        grad_u, grad_response = array(t[6], t[7], kind), array(t[8], t[9], kind)
        of_rows = array(t[10], t[11], np.int64).reshape(-1, 4), array(t[12], t[13], kind)
        of_columns = array(t[14], t[15], np.int64).reshape(-1, 4), array(t[16], t[17], kind)
        strides, g_strides, sizes = (t[18], t[19], t[20]), (t[21], t[22], t[23]), (t[24], t[25], t[26], t[27])
        _backward(
            u, response, g, grad_u, grad_response, of_rows, of_columns, strides, g_strides, sizes,
            t[28], t[29], t[31], t[30], low, high,
        )  # fmt: skip

    return compile_share(forward), compile_share(backward)
