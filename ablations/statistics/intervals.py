"""Student's t: intervals and p-values of a mean, and of any estimate with a standard error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from operators.errors import InputError


@dataclass(frozen=True)
class Interval:
    """An estimate from n values with its two-sided t interval; `half` is infinite where no degree of freedom is left.

    `mean` is the mean of the values, or the estimate that a model makes from n runs.
    """

    mean: float
    half: float
    n: int

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean and Student-t interval of independent values (of paired differences, for a paired comparison).

    Source: Student, "The probable error of a mean", Biometrika 6 (1908); n - 1 degrees of freedom.

    Raises:
        InputError: no values, or a level that is not between 0 and 1.
    """
    array = np.asarray(values, dtype=np.float64)
    n = len(array)
    if n == 0:
        raise InputError("no values: an interval needs at least one")
    error = float(array.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return Interval(float(array.mean()), half_width(error, n - 1, level), n)


def half_width(error: float, df: float, level: float) -> float:
    """Half of the two-sided t interval of an estimate with standard error `error`; infinite without freedom.

    Raises:
        InputError: a level that is not between 0 and 1.
    """
    check_level("level", level)
    return float(special.stdtrit(df, (1 + level) / 2)) * error if df > 0 else math.inf


def t_test(estimate: float, error: float, df: float) -> float:
    """Two-sided p-value of `estimate` being zero in truth: the level at which its t interval just reaches zero.

    So it is 1 where no degree of freedom is left, and 0 or 1 where the standard error is zero.
    """
    if df <= 0:
        return 1.0
    if error == 0:
        return 1.0 if estimate == 0 else 0.0
    return 2 * float(special.stdtr(df, -abs(estimate) / error))


def check_level(what: str, level: float) -> None:
    """Raise `InputError` unless `level` is a probability other than 0 and 1."""
    if not 0 < level < 1:
        raise InputError(f"{what}={level!r} must be between 0 and 1, and neither of them; 0.95 is usual for a level")
