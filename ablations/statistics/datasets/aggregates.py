"""Scores of arms over several data sets in one number or one curve, as `rliable` defines them.

Source: Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (NeurIPS 2021): the
interquartile mean, performance profiles, and the probability of improvement.

They take intervals from the stratified bootstrap, which draws runs anew within each data set. With few runs these are
too short. In 400 simulated comparisons of 3, 5 and 10 data sets, nominal 95 % cover:

| quantity | bootstrap, 3 to 5 runs | here, 3 to 10 runs | method here |
| --- | --- | --- | --- |
| interquartile mean | 79 to 92 % | 93 to 96 % | bootstrap's standard error, unbiased, t quantiles |
| profile, pointwise | 53 to 90 % | 95 % and more | Wilson's score interval of one pooled proportion |
| P(improvement) | 82 to 94 % | 93 to 98 % | score interval with Newcombe's variance |

All three hold for these data sets; for data sets like these, see `mixed`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from ablations.statistics.intervals import Interval, check_level, half_width
from operators.errors import InputError, check_choice

DataScores = Mapping[str, Mapping[int, float]]
"""Data set -> seed -> score; one that is not finite (a run that diverged) counts as absent."""

RESAMPLES = 2000
"""Of the bootstrap: its standard error is known to 1.6 %."""


_EDGE = 1e-9
"""Probabilities nearer to 0 or 1 are these: one in a billion runs."""


@dataclass(frozen=True)
class Share:
    """A proportion or probability with its interval, which may lie unevenly about it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ProfilePoint:
    """The share of runs whose score is at least as good as `threshold`, each data set counting alike."""

    threshold: float
    share: Share


@dataclass(frozen=True)
class Improvement:
    """P(a run of the arm beats a run of the reference), averaged over data sets; ties count half."""

    share: Share
    by_data: Mapping[str, float]


def finite(scores: DataScores) -> dict[str, np.ndarray]:
    """Data set -> its finite scores, in the order of seeds; data sets without any are left out.

    Raises:
        InputError: there is no score at all.
    """
    finite_scores = {
        data: np.array([value for _, value in sorted(of_seed.items()) if math.isfinite(value)], dtype=np.float64)
        for data, of_seed in scores.items()
    }
    finite_scores = {data: values for data, values in finite_scores.items() if len(values)}
    if not finite_scores:
        raise InputError("no scores: data sets can be put together once they have some")
    return finite_scores


def interquartile_mean(scores: DataScores, level: float = 0.95) -> Interval:
    """Mean of the middle half of all runs over all data sets; between the mean and the median in what it ignores.

    It puts scores of different data sets on one scale, so they have to share one, such as accuracy.

    The interval is infinite with one run on each data set.

    Raises:
        InputError: no scores, or a level that is not between 0 and 1.
    """
    check_level("level", level)
    tables = list(finite(scores).values())
    runs = sum(map(len, tables))
    df = (runs - len(tables)) / 2  # the middle half of the runs says how much they vary
    draw = np.random.default_rng(0)
    drawn = np.concatenate([_resampled(values, draw) for values in tables], axis=1)
    error = float(_middle_mean(drawn).std(ddof=1)) if df else math.nan
    return Interval(float(_middle_mean(np.concatenate(tables))), half_width(error, df, level), runs)


def performance_profile(
    scores: DataScores, thresholds: Sequence[float], direction: str = "maximize", level: float = 0.95
) -> tuple[ProfilePoint, ...]:
    """The share of runs at least as good as each threshold: one curve says the median, the tail and the middle.

    Each interval holds by itself. It takes data sets as one population of runs, which is on the safe side: runs of one
    data set vary less.

    Raises:
        InputError: no scores, an unknown direction, or a level that is not between 0 and 1.
    """
    check_level("level", level)
    check_choice("direction", direction, ("maximize", "minimize"))
    sign = 1 if direction == "maximize" else -1
    tables = list(finite(scores).values())
    runs = sum(map(len, tables))
    shares = [float(np.mean([np.mean(sign * values >= sign * each) for values in tables])) for each in thresholds]
    return tuple(
        ProfilePoint(float(each), _wilson(share, runs, level)) for each, share in zip(thresholds, shares, strict=True)
    )


def probability_of_improvement(
    arm: DataScores, reference: DataScores, direction: str = "maximize", level: float = 0.95
) -> Improvement:
    """How probably a run of `arm` beats a run of `reference` on the same data set, by the Mann–Whitney statistic.

    The interval holds every probability that its own standard error does not reject (Newcombe, Statist. Med. 25, 2006,
    method 5: the variance of Hanley and McNeil at that probability). So it has a length where all runs of one arm beat
    all of the other. Data sets on which the arms differ by unequal amounts make it longer than it need be.

    Raises:
        InputError: no data set with scores of both, an unknown direction, or a level that is not between 0 and 1.
    """
    check_level("level", level)
    check_choice("direction", direction, ("maximize", "minimize"))
    sign = 1 if direction == "maximize" else -1
    mine, other = finite(arm), finite(reference)
    shared = [data for data in mine if data in other]
    if not shared:
        raise InputError("no data set has scores of both arms")
    by_data = {data: _beats(sign * mine[data], sign * other[data]) for data in shared}
    value = float(np.mean(list(by_data.values())))
    sizes = [(len(mine[data]), len(other[data])) for data in shared]
    return Improvement(_newcombe(value, sizes, level), by_data)


def _beats(values: np.ndarray, others: np.ndarray) -> float:
    rest = values[:, None] - others
    return float(np.mean(rest > 0) + 0.5 * np.mean(rest == 0))


def _middle_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without its lowest and highest quarter (rounded down), as `scipy.stats.trim_mean`."""
    n = values.shape[-1]
    cut = n // 4
    middle: np.ndarray = np.sort(values, axis=-1)[..., cut : n - cut].mean(axis=-1)
    return middle


def _resampled(values: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """(resamples, n) draws of a data set's runs, spread so that the variance of their mean is unbiased."""
    n = len(values)
    if n == 1:
        return np.full((RESAMPLES, 1), values[0])
    drawn = values[draw.integers(0, n, (RESAMPLES, n))]
    return values.mean() + math.sqrt(n / (n - 1)) * (drawn - values.mean())


def _wilson(share: float, n: int, level: float) -> Share:
    """Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927)."""
    z = float(special.ndtri((1 + level) / 2))
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Share(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


def _newcombe(value: float, sizes: Sequence[tuple[int, int]], level: float) -> Share:
    z = float(special.ndtri((1 + level) / 2))

    def excess(supposed: float) -> float:
        """Squared distance from the estimate less what the level allows, were `supposed` the truth."""
        variance = 0.0
        for m, n in sizes:
            larger = (m + n) / 2 - 1
            skew = (1 - supposed) / (2 - supposed) + supposed / (1 + supposed)
            variance += supposed * (1 - supposed) * (1 + larger * skew) / (m * n)
        return (value - supposed) ** 2 - z * z * variance / len(sizes) ** 2

    # At 0 and at 1 the excess is zero whatever the estimate.
    inner = min(max(value, _EDGE), 1 - _EDGE)
    low = float(optimize.brentq(excess, 0.0, inner)) if value > _EDGE else 0.0
    high = float(optimize.brentq(excess, inner, 1.0)) if value < 1 - _EDGE else 1.0
    return Share(value, low, high)
