"""Medians, quartiles, and the exponent of a power law."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile, interpolated linearly between the ordered values."""
    ordered = sorted(values)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        below = math.floor(place)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (place - below) * (ordered[above] - ordered[below])

    return at(0.25), at(0.5), at(0.75)


@dataclass(frozen=True)
class Power:
    """A fitted law y = c xᵖ.

    Attributes:
        exponent: p.
        error: its standard error; None for two points, which leave nothing to judge it by.
        points: how many points it was fitted to.
    """

    exponent: float
    error: float | None
    points: int


def fit_power(x: Sequence[float], y: Sequence[float]) -> Power | None:
    """Least squares of log y over log x (all positive); None unless there are two different x."""
    a, b = [math.log(value) for value in x], [math.log(value) for value in y]
    mean_a, mean_b = sum(a) / max(len(a), 1), sum(b) / max(len(b), 1)
    spread = sum((value - mean_a) ** 2 for value in a)
    if len(set(x)) < 2:
        return None
    exponent = sum((u - mean_a) * (v - mean_b) for u, v in zip(a, b, strict=True)) / spread
    if len(a) == 2:
        return Power(exponent, None, 2)
    rest = sum((v - mean_b - exponent * (u - mean_a)) ** 2 for u, v in zip(a, b, strict=True))
    return Power(exponent, math.sqrt(rest / (len(a) - 2) / spread), len(a))
