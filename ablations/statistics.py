"""Intervals for means and paired differences over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A mean over n values with its two-sided t interval; `half` is infinite for n = 1."""

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
    """
    array = np.asarray(values, dtype=np.float64)
    n = len(array)
    if n < 2:
        return Interval(float(array.mean()), math.inf, n)
    error = array.std(ddof=1) / math.sqrt(n)
    return Interval(float(array.mean()), float(stats.t.ppf((1 + level) / 2, n - 1) * error), n)
