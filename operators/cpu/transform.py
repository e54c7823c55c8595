"""Transforms of lines of complex vectors of 16 numbers: Stockham's, by factors of 8, 4, 2, 3, 5 and 7."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from operators.cpu.compilation import array, call, compile_function, inner, named
from operators.cpu.vectors import Complex, Place, lanes
from operators.runtime.once import once

RADICES = (8, 4, 2, 3, 5, 7)
PAIRS, EXCHANGED = (32, 0, 16), (32, 16, 0)
"""Where the complex vectors of a line are, see `_transform`."""


def factors(length: int) -> list[int] | None:
    """The factors by which an axis of that length is transformed; None if it has others."""
    factors = []
    for radix in RADICES:
        while length % radix == 0:
            factors.append(radix)
            length //= radix
    return factors if length == 1 else None


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
    total = x[0]
    for value in sums:
        total = total.plus(value)
    waves = [total] * n
    for k in range(1, n // 2 + 1):
        angles = [2 * math.pi * i * k / n for i in range(1, n // 2 + 1)]
        cosines = x[0]
        for value, angle in zip(sums, angles, strict=True):
            cosines = cosines.plus(value.scaled(math.cos(angle)))
        sines, *others = (value.scaled(math.sin(angle)) for value, angle in zip(differences, angles, strict=True))
        for value in others:
            sines = sines.plus(value)
        waves[k], waves[n - k] = cosines.plus(sines), cosines.minus(sines)
    return waves


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
def transform(target: Any, at: int, to: Any, source: Any, of_at: int, of: Any, plan: Any, scratch: Any) -> None:
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
