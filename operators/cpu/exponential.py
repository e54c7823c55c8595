"""An exponential for compiled kernels.

Numba calls the C library for each exponential, so float32 has one of its own, which LLVM turns into vector
instructions; float64 takes the library's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload
from numpy.polynomial import Chebyshev, Polynomial

_f = np.float32
_LOG2_E = _f(1.4426950408889634)
_LN2_HIGH = _f(0.693145751953125)  # few bits: its product with an exponent is exact
_LN2_LOW = _f(1.42860677e-6)
_ROUND = _f(12582912.0)  # 1.5 · 2²³: adding it rounds to an integer, which then stands in the low bits
_LEAST, _MOST = _f(-87.33), _f(88.72283)  # beyond them float32 has 0 (denormals apart) and inf
# (exp(r) - 1 - r) / r² on |r| <= ln 2 / 2, interpolated at Chebyshev's points: exp(r) is off by less than 1e-8.
_SERIES = Polynomial([1 / math.factorial(n + 2) for n in range(15)])
_FIT = Chebyshev.interpolate(_SERIES, 4, [-0.34658, 0.34658])
_C2, _C3, _C4, _C5, _C6 = Polynomial.cast(_FIT, domain=[-1, 1]).coef.astype(_f)
_ONE, _ZERO, _INF = _f(1), _f(0), _f(math.inf)


@njit(fastmath={"contract"})
def exp32(x: Any) -> Any:
    """The exponential in float32, to about one unit in the last place; NaN stays NaN.

    exp(x) = 2ⁿ exp(r) with n = round(x / ln 2) and |r| <= ln 2 / 2, exp(r) by a polynomial of sixth degree, 2ⁿ by
    adding n to the exponent's bits.
    """
    shifted = _f(x * _LOG2_E + _ROUND)
    n = shifted - _ROUND
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = _f((((((_C6 * r + _C5) * r + _C4) * r + _C3) * r + _C2) * r + _ONE) * r + _ONE)
    exponent = np.int32(shifted.view(np.int32) << np.int32(23))
    y = np.int32(p.view(np.int32) + exponent).view(np.float32)
    y = _ZERO if x < _LEAST else y
    return y if x <= _MOST else x + _INF  # the bits of a NaN have been shifted in y


def exp(x: float) -> float:
    """The exponential in the type of x; compiled for float32, it is `exp32`."""
    return np.exp(x)


@overload(exp, strict=False)
def _choose_exp(x: Any) -> Callable[[Any], Any]:
    if x == types.float32:
        return lambda x: exp32(x)
    return lambda x: math.exp(x)
