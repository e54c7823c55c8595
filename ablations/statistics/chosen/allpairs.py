"""Comparisons with an arm that was chosen by the scores themselves, such as the best one.

Who picks the best of k arms and tests the others against it looks, in effect, at all k (k - 1) / 2 pairs. Adjusting for
k - 1 of them promises too much: of studies of arms that are all alike, three seeds each, Holm's method over paired t
tests finds something in 8 % with nine arms and in 10 % with eighteen, where 5 % were promised (simulated). So all pairs
are a family here, as in Tukey's method. Tukey's own residual, pooled over all arms, asks that seeds move all arms
alike: with one arm of nine that varies three times as much as the others it alarms falsely in 14 %. The errors here
are those of `moderated.py`: 4 % with five seeds, 3 % with ten, 7 % with three.

The interval of the best arm's own score allows for the choice as well. Of k equal arms the best one is the luckiest;
the lower end (the upper one of a loss) lies as much farther out as that takes: as far as the runner-up is near
(`largest.py`), and at most as for k equal arms.

Sources: Tukey, "The problem of multiple comparisons" (1953); Montgomery, Design and Analysis of Experiments, ch. 4.1,
for blocks; Efron and Morris, J. Am. Stat. Assoc. 70 (1975), for the shrunken estimate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from statistics import fmean

import numpy as np
from scipy import special

from ablations.statistics.chosen.largest import lower_end
from ablations.statistics.effects import Observation
from ablations.statistics.factorial import FactorialFit, fit_factorial
from ablations.statistics.families import DRAWS
from ablations.statistics.intervals import Interval, check_level
from ablations.statistics.moderated import moderate
from operators.errors import InputError, check_choice

Scores = Mapping[str, Mapping[int, float]]
"""Arm -> seed -> score; one that is not finite (a run that diverged) counts as absent."""


_STEPS = 10
"""Drawn shares of the variance that seeds give to all arms alike; others lie between two of them."""
_FAR = 1e6
"""Standard errors below the best mean from which on a runner-up makes no difference."""


@dataclass(frozen=True)
class SimultaneousDifference:
    """An arm less the chosen one. `interval` and `p` hold for all pairs of arms together."""

    arm: str
    interval: Interval
    error: float
    p: float


@dataclass(frozen=True)
class BestArm:
    """The score of the best of `arms` arms. `low` and `high` bound it, its having been chosen allowed for.

    `shrunken` is the mean, moved toward that of all arms by what the choice is expected to add; the mean itself with
    fewer than four arms.
    """

    arm: str
    mean: float
    low: float
    high: float
    shrunken: float
    arms: int


@dataclass(frozen=True)
class Loudest:
    """The arm that varies most over seeds: its standard deviation over that of the others, and Cochran's p-value."""

    arm: str
    ratio: float
    p: float


def compare_with(
    scores: Scores, chosen: str, level: float = 0.95, resolution: float = 0.0
) -> tuple[SimultaneousDifference, ...]:
    """All other arms less `chosen`, in the order of `scores`, with intervals for all pairs of arms together.

    Arms without a score are left out. Where seeds leave no degree of freedom, or do not connect the arms, intervals are
    infinite and p is 1. `resolution` is the smallest step of a score.

    Raises:
        InputError: `chosen` is no arm with a score, or the only one; a level that is not between 0 and 1.
    """
    fit, arms = _fit(scores, chosen, level)
    others = [arm for arm in arms if arm != chosen]
    if "arm" in fit.model.matrix.dropped_terms:
        return tuple(SimultaneousDifference(arm, Interval(math.nan, math.inf, 0), math.nan, 1.0) for arm in others)
    pairs = [(arm, chosen) for arm in others] + list(combinations(others, 2))
    family = moderate(fit, [fit.difference("arm", *pair) for pair in pairs], resolution)
    return tuple(
        SimultaneousDifference(
            arm=arm,
            interval=Interval(pair.together.mean, pair.together.half, sum(map(math.isfinite, scores[arm].values()))),
            error=pair.error,
            p=pair.p_together,
        )
        for arm, pair in zip(others, family, strict=False)
    )


def best_arm(scores: Scores, sign: int, level: float = 0.95, resolution: float = 0.0) -> BestArm:
    """The arm with the best mean, and what its score may be believed to be.

    The interval is made of the arm's own standard error, so that other arms may be noisier or less noisy. The end that
    the choice flatters is that of the largest estimate, given those of the other arms. Its farthest is the quantile of
    the chosen arm's t over drawn tables of equal arms. In both, seeds move all arms alike by as much of the variance as
    they do here, estimated from all arms. The other end is that of the plain t interval.

    Args:
        scores: arm -> seed -> score.
        sign: +1 if more is better, -1 if less is.
        level: of the interval.
        resolution: smallest step of a score.

    Raises:
        InputError: no score, or a level that is not between 0 and 1.
    """
    check_level("level", level)
    tables = {arm: [v for v in by_seed.values() if math.isfinite(v)] for arm, by_seed in scores.items()}
    tables = {arm: values for arm, values in tables.items() if values}
    if not tables:
        raise InputError("no score: a best arm needs at least one")
    means = {arm: fmean(values) for arm, values in tables.items()}
    best = max(means, key=lambda arm: sign * means[arm])
    values = tables[best]
    n = len(values)
    if n == 1:
        return BestArm(best, means[best], -math.inf, math.inf, means[best], len(means))
    error = max(float(np.std(values, ddof=1)), resolution / math.sqrt(2)) / math.sqrt(n)
    plain = float(special.stdtrit(n - 1, (1 + level) / 2))
    fit = _fit({arm: scores[arm] for arm in tables}, best, level)[0] if len(tables) > 1 else None
    mean, flat = means[best], plain * error
    luck = flat
    if fit is not None and error > 0:
        shared = _shared(fit, len(means))
        others = [sign * means[arm] for arm in means if arm != best]
        farthest = flattered(len(means), n, level, shared)
        luck = max(flat, _luck(sign * mean, others, error, n - 1, level, shared, farthest))
    low, high = (luck, flat) if sign > 0 else (flat, luck)
    shrunken = mean if fit is None else _shrunken(fit, means, mean)
    return BestArm(best, mean, mean - low, mean + high, shrunken, len(means))


def _luck(
    mean: float, others: Sequence[float], error: float, df: int, level: float, shared: float, farthest: float
) -> float:
    """How far the end lies that the choice flatters; `farthest` in standard errors, `shared` as of `flattered`."""
    # A mean of another arm moves with the chosen one by the part that they share.
    bound = (max(others) - shared * mean) / (1 - shared) if shared < 1 else -math.inf
    bound = max(bound, mean - _FAR * error)
    size, needed, errors, freedom, far = np.array([[mean], [bound], [error], [df], [farthest * error]])
    return mean - float(lower_end(size, needed, errors, freedom, level, far)[0])


def _shared(fit: FactorialFit, arms: int) -> float:
    """Estimated share of a score's variance over seeds that all arms have in common."""
    if fit.block is None or math.isnan(fit.block.f):
        return 0.0
    ratio = max(fit.block.f - 1, 0.0) / arms
    return ratio / (1 + ratio) if math.isfinite(ratio) else 1.0


def _shrunken(fit: FactorialFit, means: Mapping[str, float], mean: float) -> float:
    """The mean of one of the arms, moved toward that of all by the positive-part rule of Efron and Morris."""
    if len(means) < 4 or fit.residual.df == 0:
        return mean
    values = np.array(list(means.values()))
    noise = fit.residual.sum_of_squares / (fit.residual.df + 2) * len(means) / fit.model.runs
    spread = float(np.square(values - values.mean()).sum())
    share = min(1.0, (len(means) - 3) * noise / spread) if spread > 0 else 1.0
    return float(values.mean() + (1 - share) * (mean - values.mean()))


def flattered(arms: int, n: int, level: float, shared: float = 0.0) -> float:
    """Factor of the standard error at the end that choosing the best of `arms` flatters, with `n` scores of each.

    `shared` is the part of a score's variance that a seed gives to all arms alike, and which no choice flatters.
    """
    below = min(int(shared * _STEPS), _STEPS - 1)
    ends = [_flattered(arms, n, level, step / _STEPS) for step in (below, below + 1)]
    plain = float(special.stdtrit(n - 1, (1 + level) / 2))
    return max(plain, float(np.interp(shared * _STEPS, [below, below + 1], ends)))


@cache
def _flattered(arms: int, n: int, level: float, shared: float) -> float:
    rng = np.random.default_rng(0)
    tables = math.sqrt(1 - shared) * rng.standard_normal((DRAWS, arms, n))
    tables += math.sqrt(shared) * rng.standard_normal((DRAWS, 1, n))
    means = tables.mean(axis=2)
    chosen = means.argmax(axis=1)[:, None]
    own = np.take_along_axis(tables, chosen[:, :, None], axis=1)[:, 0]
    t = own.mean(axis=1) / (own.std(axis=1, ddof=1) / math.sqrt(n))
    below = float((t < -special.stdtrit(n - 1, (1 + level) / 2)).mean())
    return float(np.quantile(t, level + below))


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
    arms = list(dict.fromkeys(str(observation.levels["arm"]) for observation in observations))
    check_choice("arm", chosen, arms)
    if len(arms) < 2:
        raise InputError(f"{chosen} is the only arm with a score: a comparison needs another one")
    return fit_factorial(observations, {"arm": arms}, level=level), arms
