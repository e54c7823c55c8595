"""Comparisons with an arm that was chosen by the scores themselves, such as the best one.

Who picks the best of k arms and tests the others against it looks, in effect, at all k (k - 1) / 2 pairs. Adjusting for
k - 1 of them promises too much: of studies of arms that are all alike, three seeds each, Holm's method over paired t
tests finds something in 8 % with nine arms and in 10 % with eighteen, where 5 % were promised (simulated). Tukey's
studentized range covers all pairs at once, whichever of them one looks at; and its residual is pooled over all arms,
(k - 1)(n - 1) degrees of freedom for n seeds, where a pair of its own has n - 1.

The price is the assumption that seeds move all arms alike. With one arm of nine that varies three times as much as the
others, 14 % are found instead of 5 %, with one of eighteen 18 %; if standard deviations spread evenly from one to
three, 8 % and 11 % (simulated). `loudest` tells such arms; `paired_differences` does not need the assumption.

Sources: Tukey, "The problem of multiple comparisons" (1953); Kramer, Biometrics 12 (1956), for unequal numbers of
seeds; Hayter, Ann. Statist. 12 (1984), that these are then on the safe side; Montgomery, Design and Analysis of
Experiments, ch. 4.1, for blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from scipy import special, stats

from ablations.statistics.effects import Observation
from ablations.statistics.factorial import FactorialFit, fit_factorial
from ablations.statistics.intervals import Interval
from operators.errors import InputError, check_choice

Scores = Mapping[str, Mapping[int, float]]
"""Arm -> seed -> score; one that is not finite (a run that diverged) counts as absent."""


@dataclass(frozen=True)
class SimultaneousDifference:
    """An arm less the chosen one. `interval` and `p` hold for all pairs of the `arms` together."""

    arm: str
    interval: Interval
    error: float
    arms: int
    df: int

    @cached_property
    def p(self) -> float:
        """The level at which the interval just reaches zero."""
        if not self.df:
            return 1.0
        if self.error == 0:
            return 1.0 if self.interval.mean == 0 else 0.0
        span = math.sqrt(2) * abs(self.interval.mean) / self.error
        return float(stats.studentized_range.sf(span, self.arms, self.df))


@dataclass(frozen=True)
class Loudest:
    """The arm that varies most over seeds: its standard deviation over that of the others, and Cochran's p-value."""

    arm: str
    ratio: float
    p: float


def compare_with(scores: Scores, chosen: str, level: float = 0.95) -> tuple[SimultaneousDifference, ...]:
    """All other arms less `chosen`, in the order of `scores`, by Tukey's method in blocks of seeds.

    Arms without a score are left out. Where seeds leave no degree of freedom, or do not connect the arms, intervals are
    infinite and p is 1.

    Raises:
        InputError: `chosen` is no arm with a score, or the only one; a level that is not between 0 and 1.
    """
    fit, arms = _fit(scores, chosen, level)
    others = [arm for arm in arms if arm != chosen]
    if "arm" in fit.model.matrix.dropped_terms:
        unknown = Interval(math.nan, math.inf, 0)
        return tuple(SimultaneousDifference(arm, unknown, math.nan, len(arms), 0) for arm in others)
    df = fit.residual.df
    found = []
    for arm in others:
        effect = fit.difference("arm", arm, chosen)
        half = _width(len(arms), df, level) * effect.error if df else math.inf
        interval = Interval(effect.interval.mean, half, len(scores[arm]))
        found.append(SimultaneousDifference(arm, interval, effect.error, len(arms), df))
    return tuple(found)


def loudest(scores: Scores) -> Loudest | None:
    """The arm that varies most about arms and seeds, and the chance that one does so where all vary alike.

    None with fewer than three arms or two seeds, where an arm lacks a seed, or where nothing varies. With three or four
    arms it hardly ever finds one: arms and seeds taken out, what is left of one arm is left of the others too.

    Source: Cochran, "The distribution of the largest of a set of estimated variances as a fraction of their total",
    Annals of Eugenics 11 (1941).
    """
    seeds = {seed for of_arm in scores.values() for seed in of_arm}
    table = np.array([[of_arm.get(seed, math.nan) for seed in sorted(seeds)] for of_arm in scores.values()])
    if len(scores) < 3 or len(seeds) < 2 or not np.isfinite(table).all():
        return None
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    squares = (rest**2).sum(axis=1)
    if not squares.sum() > 1e-24 * np.square(table).max():
        return None
    others, df = len(scores) - 1, len(seeds) - 1
    place = int(squares.argmax())
    share = float(squares[place] / squares.sum())
    ratio = math.sqrt(share / (1 - share) * others) if share < 1 else math.inf
    tail = float(special.fdtrc(df, others * df, others * share / (1 - share))) if share < 1 else 0.0
    return Loudest(list(scores)[place], ratio, min(1.0, len(scores) * tail))


def _fit(scores: Scores, chosen: str, level: float) -> tuple[FactorialFit, list[str]]:
    observations = [
        Observation({"arm": arm}, seed, value)
        for arm, of_arm in scores.items()
        for seed, value in of_arm.items()
        if math.isfinite(value)
    ]
    arms = list(dict.fromkeys(str(one.levels["arm"]) for one in observations))
    check_choice("arm", chosen, arms)
    if len(arms) < 2:
        raise InputError(f"{chosen} is the only arm with a score: a comparison needs another one")
    return fit_factorial(observations, {"arm": arms}, level=level), arms


@cache
def _width(arms: int, df: int, level: float) -> float:
    """Half of an interval in standard errors of a difference."""
    return float(stats.studentized_range.isf(1 - level, arms, df)) / math.sqrt(2)
