"""Compiled sums y[i, j] = y₀ + sum over k of a[i, k] b[j, k], of vectors of 16 channels, in tiles of registers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba.core import cgutils

from operators.cpu.compilation import array, call, compile_function, inner
from operators.cpu.vectors import Lanes, Place, Sum, lanes, prefetch
from operators.runtime.once import once


class Contractions(NamedTuple):
    """Addresses of compiled sums by what y₀ is: zero; what stands in y; factors times what stands in another array.

    They are units of their own, since all that uses them would be compiled with them again.
    """

    from_zero: int
    to_sum: int
    from_scaled: int


@once
def contractions(dtype: str) -> Contractions:
    """The sums for `float32` or `float64`."""
    return Contractions(*(_contraction(start, dtype) for start in Contractions._fields))


def _tile(start: str) -> Any:
    """y[i + j] = y₀ + sum over k of a[i + k] b[j + k] for 4 × 4 vectors of 16 channels, whose sums stay in registers.

    The places of the 4 i and of the 4 j are given as distances, and the distances between terms k. Indices may repeat
    the one before them: all are read before any is written. `start`: of `Contractions`.
    """

    @lanes
    def tile(
        y: Place, y_i: Any, y_j: Any, a: Place, a_i: Any, a_k: Any, b: Place, b_j: Any, b_k: Any, terms: Any,
        other: Place, other_i: Any, other_j: Any, factors: Place,
    ) -> None:  # fmt: skip
        builder = y.builder
        targets = [y.moved(i).moved(j) for i in y_i for j in y_j]
        if start == "from_zero":
            begin = [y.zeros() for _ in targets]
        elif start == "to_sum":
            begin = [target.load() for target in targets]
        else:
            factor = factors.load()
            others = [other.moved(i).moved(j).load() for i in other_i for j in other_j]
            # Rounded before terms are added.
            begin = [Lanes(builder, builder.fmul(factor.value, value.value)) for value in others]
        sums = [Sum(value) for value in begin]
        down, right = [a.moved(i) for i in a_i], [b.moved(j) for j in b_j]
        with cgutils.for_range(builder, terms) as loop:
            row = [place.times(loop.index, b_k).load() for place in right]
            rest = iter(sums)
            for place in down:
                value = place.times(loop.index, a_k).load()
                for factor in row:
                    next(rest).add_product(value, factor)
        for target, total in zip(targets, sums, strict=True):
            target.store(total.value)

    return tile


_tile_from_zero, _tile_to_sum, _tile_from_scaled = map(_tile, Contractions._fields)


@inner
def _four(step: int, first: int, length: int) -> Any:
    """Places of indices `first` to `first` + 3 of an axis; the last index stands for those beyond it."""
    last = length - 1
    return first * step, min(first + 1, last) * step, min(first + 2, last) * step, min(first + 3, last) * step


def _contraction(start: str, dtype: str) -> int:
    kind = {"float32": np.float32, "float64": np.float64}[dtype]

    def contract(
        y: int, y_i: int, y_j: int, a: int, a_i: int, a_k: int, b: int, b_j: int, b_k: int,
        rows: int, columns: int, terms: int, ahead: int, step: int, count: int,
        other: int, other_i: int, other_j: int, factors: int,
    ) -> None:  # fmt: skip
        to, a_all, b_all = (array(y, 0, kind), 0), (array(a, 0, kind), 0), (array(b, 0, kind), 0)
        scaled, scales, further = (array(other, 0, kind), 0), (array(factors, 0, kind), 0), array(ahead, 0, kind)
        each = count // (((rows + 3) // 4) * ((columns + 3) // 4)) + 1
        fetched = 0
        for j in range(0, columns, 4):
            for i in range(0, rows, 4):
                to_i, to_j = _four(y_i, i, rows), _four(y_j, j, columns)
                down, right = _four(a_i, i, rows), _four(b_j, j, columns)
                if start == "from_zero":
                    _tile_from_zero((to, to_i, to_j, a_all, down, a_k, b_all, right, b_k, terms, to, to_i, to_j, to))
                elif start == "to_sum":
                    _tile_to_sum((to, to_i, to_j, a_all, down, a_k, b_all, right, b_k, terms, to, to_i, to_j, to))
                else:
                    of_i, of_j = _four(other_i, i, rows), _four(other_j, j, columns)
                    _tile_from_scaled(
                        (to, to_i, to_j, a_all, down, a_k, b_all, right, b_k, terms, scaled, of_i, of_j, scales)
                    )  # fmt: skip
                until = min(fetched + each, count)
                for line in range(fetched, until):
                    prefetch(((further, line * step),))
                fetched = until

    return compile_function(contract, 19)


@inner
def contract(code: int, y: Any, a: Any, b: Any, sizes: Any, ahead: Any) -> None:
    """y[i, j] = sum over k of a[i, k] b[j, k], or that added to y, of (i, j, k) = `sizes`, while `ahead` is fetched.

    Arrays are tuples: the address of the first number, and the distances of neighbours along i and j; for a and b,
    along i or j and then k. `ahead`: address, distance and number of places. `code`: of `Contractions`.
    """
    call(code, (*y, *a, *b, *sizes, *ahead, 0, 0, 0, 0))


@inner
def contract_scaled(code: int, y: Any, a: Any, b: Any, sizes: Any, ahead: Any, other: Any, factors: int) -> None:
    """As `contract`, and the 16 factors at that address times the other array added."""
    call(code, (*y, *a, *b, *sizes, *ahead, *other, factors))
