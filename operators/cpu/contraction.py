"""Compiled sums y[i, j] = sum over k of a[i, k] b[j, k] of vectors of 16 channels, in tiles that stay in registers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from operators.cpu.compilation import array, compile_function, inner
from operators.cpu.vectors import Vectors, prefetch
from operators.runtime.once import once


def _tile(start: str) -> Any:
    """y[i + j] = y₀ + sum over k of a[i + k] b[j + k] for 4 × 4 vectors of 16 channels, whose sums stay in registers.

    Places of the 4 i and of the 4 j in their arrays are given, and the distances between terms k. `start` says what y₀
    is: `zero`; `sum`, what stands in y; `scaled`, a vector of factors times what stands in another array. Indices may
    repeat the one before them: all are read before any is written.
    """

    @intrinsic
    def tile(
        _context: Any, y: Any, y_i: Any, y_j: Any, a: Any, a_i: Any, a_k: Any, b: Any, b_j: Any, b_k: Any, terms: Any,
        other: Any, other_i: Any, other_j: Any, factors: Any, factors_at: Any,
    ) -> Any:  # fmt: skip
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vectors = Vectors(context, builder, signature, arguments)

            def four(argument: int) -> list[Any]:
                return cgutils.unpack_tuple(builder, arguments[argument])

            targets = [vectors.place(0, i, j) for i in four(1) for j in four(2)]
            if start == "scaled":
                factor = vectors.load(vectors.place(13, arguments[14]))
                others = [vectors.load(vectors.place(10, i, j)) for i in four(11) for j in four(12)]
                begin = [builder.fmul(factor, other) for other in others]
            else:
                begin = [vectors.load(target) if start == "sum" else vectors.type(None) for target in targets]
            sums = [cgutils.alloca_once_value(builder, value) for value in begin]
            down, right = [vectors.place(3, i) for i in four(4)], [vectors.place(6, j) for j in four(7)]
            with cgutils.for_range(builder, arguments[9]) as loop:
                a_at, b_at = (builder.mul(loop.index, arguments[distance]) for distance in (5, 8))
                row = [vectors.load(vectors.move(place, b_at)) for place in right]
                for i in range(4):
                    value = vectors.load(vectors.move(down[i], a_at))
                    for j in range(4):
                        vectors.add_product(sums[4 * i + j], value, row[j])
            for target, total in zip(targets, sums, strict=True):
                vectors.store(builder.load(total), target)
            return context.get_dummy_value()

        signature = types.void(
            y, y_i, y_j, a, a_i, types.int64, b, b_j, types.int64, types.int64,
            other, other_i, other_j, factors, types.int64,
        )  # fmt: skip
        return signature, code

    return tile


_tile_from_zero, _tile_to_sum, _tile_scaled = map(_tile, ("zero", "sum", "scaled"))


@inner
def _four(step: int, first: int, length: int) -> Any:
    """Places of indices `first` to `first` + 3 of an axis; the last index stands for those beyond it."""
    last = length - 1
    return first * step, min(first + 1, last) * step, min(first + 2, last) * step, min(first + 3, last) * step


@once
def contractions(dtype: str) -> tuple[int, ...]:
    """Addresses of compiled code that makes y[i, j] = y₀ + sum over k of a[i, k] b[j, k], y₀ as `_tile` says.

    They are units of their own, since all that uses them would be compiled with them again.
    """
    return tuple(_contraction(start, dtype) for start in range(3))


def _contraction(start: int, dtype: str) -> int:
    kind = {"float32": np.float32, "float64": np.float64}[dtype]

    def contract(
        y: int, y_i: int, y_j: int, a: int, a_i: int, a_k: int, b: int, b_j: int, b_k: int,
        rows: int, columns: int, terms: int, ahead: int, step: int, count: int,
        other: int, other_i: int, other_j: int, factors: int,
    ) -> None:  # fmt: skip
        to, one, two = array(y, 0, kind), array(a, 0, kind), array(b, 0, kind)
        scaled, scales, further = array(other, 0, kind), array(factors, 0, kind), array(ahead, 0, kind)
        each = count // (((rows + 3) // 4) * ((columns + 3) // 4)) + 1
        fetched = 0
        for j in range(0, columns, 4):
            for i in range(0, rows, 4):
                to_i, to_j = _four(y_i, i, rows), _four(y_j, j, columns)
                down, right = _four(a_i, i, rows), _four(b_j, j, columns)
                if start == 0:
                    _tile_from_zero(to, to_i, to_j, one, down, a_k, two, right, b_k, terms, to, to_i, to_j, to, 0)
                elif start == 1:
                    _tile_to_sum(to, to_i, to_j, one, down, a_k, two, right, b_k, terms, to, to_i, to_j, to, 0)
                else:
                    of_i, of_j = _four(other_i, i, rows), _four(other_j, j, columns)
                    _tile_scaled(
                        to, to_i, to_j, one, down, a_k, two, right, b_k, terms, scaled, of_i, of_j, scales, 0
                    )  # fmt: skip
                until = min(fetched + each, count)
                for line in range(fetched, until):
                    prefetch(further, line * step)
                fetched = until

    return compile_function(contract, 19)
