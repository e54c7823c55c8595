"""What an arm gains over the reference on these data sets, and on data sets like these.

The model: score = arm + data set + arm × data set + seed within data set + run, where all but the arm are random.
Differences of two arms at the same data set and seed are free of data set and seed, which leaves
difference = gain + (arm × data set) + run: a random effect of the data set about the gain.

* These data sets: the mean over data sets of each one's mean difference, its error from runs alone, Welch and
  Satterthwaite's degrees of freedom. It says nothing of another data set.
* Data sets like these: restricted maximum likelihood for the two variances, and the standard error and the D − 1
  degrees of freedom of Hartung (Biometrical J. 41, 1999) and Knapp (Statist. Med. 22, 2003). With as many runs on each
  data set this is exactly the t test over the data sets' means, which is the exact test of the mixed model; estimates
  and variances agree with `statsmodels.MixedLM` (tests). Two data sets leave one degree of freedom: such an interval
  is six times as long as that of many.

Each pair of arms has variances of its own, so one arm that the data sets move more does not lengthen, or shorten, the
intervals of others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from ablations.statistics.datasets.aggregates import DataScores
from ablations.statistics.intervals import Interval, check_level, half_width, t_interval, t_test
from operators.errors import InputError

_LARGEST = 1e6
"""Ratio of the variances between data sets and between runs from which on more of it changes nothing."""


@dataclass(frozen=True)
class GainOverData:
    """Arm less reference over data sets.

    Attributes:
        alike: the gain on data sets like these (random effect of the data set).
        p: of no such gain.
        these: the gain averaged over these very data sets.
        p_these: of no gain on average over these data sets.
        data_sd: standard deviation of the gain between data sets; run_sd: of a paired difference between seeds.
        by_data: the paired difference on each data set.
    """

    alike: Interval
    p: float
    these: Interval
    p_these: float
    data_sd: float
    run_sd: float
    by_data: Mapping[str, Interval]


def gain_over_data(arm: DataScores, reference: DataScores, level: float = 0.95) -> GainOverData:
    """The gain of an arm from the data sets and seeds that it shares with the reference.

    Intervals are infinite where no degree of freedom is left: one data set for `alike`, one seed each for `these`.

    Raises:
        InputError: no data set with a common seed, or a level that is not between 0 and 1.
    """
    check_level("level", level)
    paired = {data: values for data in arm if len(values := _paired(arm[data], reference.get(data, {})))}
    if not paired:
        raise InputError("no data set has scores of both arms at one seed")
    means = np.array([values.mean() for values in paired.values()])
    sizes = np.array([len(values) for values in paired.values()])
    squares = np.array([float(np.square(values - values.mean()).sum()) for values in paired.values()])
    within_df = int((sizes - 1).sum())
    ratio = _ratio(means, sizes, float(squares.sum()))
    weights = sizes / (1 + ratio * sizes)
    gain = float(weights @ means / weights.sum())
    data_sets = len(means)
    between = float(weights @ np.square(means - gain))
    error = math.sqrt(between / max(data_sets - 1, 1) / weights.sum()) if data_sets > 1 else math.nan
    run_variance = (float(squares.sum()) + between) / max(int(sizes.sum()) - 1, 1) if within_df else math.nan
    own_error, own_df = _error_of_runs(squares, sizes)
    here = float(means.mean())
    return GainOverData(
        Interval(gain, half_width(error, data_sets - 1, level), data_sets),
        t_test(gain, error, data_sets - 1),
        Interval(here, half_width(own_error, own_df, level), data_sets),
        t_test(here, own_error, own_df),
        math.sqrt(ratio * run_variance) if within_df else math.nan,
        math.sqrt(run_variance) if within_df else math.nan,
        {data: t_interval(values.tolist(), level) for data, values in paired.items()},
    )


def _paired(scores: Mapping[int, float], others: Mapping[int, float]) -> np.ndarray:
    shared = sorted(scores.keys() & others.keys())
    rest = np.array([scores[seed] - others[seed] for seed in shared], dtype=np.float64)
    return rest[np.isfinite(rest)]


def _ratio(means: np.ndarray, sizes: np.ndarray, within: float) -> float:
    """Variance between data sets over that between runs, by restricted maximum likelihood.

    Source: Searle, Casella and McCulloch, Variance Components, ch. 6.6, profiled over gain and run variance.
    """
    if sizes.sum() == len(sizes) or len(sizes) == 1:
        return 0.0  # one run each, or one data set: the two variances cannot be told apart, and weights are alike
    if within <= 1e-24 * float(np.square(means).max()):
        return _LARGEST

    def loss(ratio: float) -> float:
        weights = sizes / (1 + ratio * sizes)
        gain = weights @ means / weights.sum()
        variance = (within + weights @ np.square(means - gain)) / (sizes.sum() - 1)
        penalty = np.log1p(ratio * sizes).sum() + math.log(weights.sum())
        return float((sizes.sum() - 1) * math.log(variance) + penalty)

    grid = np.concatenate([[0.0], np.geomspace(1e-4, _LARGEST, 61)])
    best = int(np.argmin([loss(ratio) for ratio in grid]))
    ends = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    minimum = optimize.minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-9 * ends[1]})
    return float(minimum.x) if minimum.fun < loss(0.0) else 0.0


def _error_of_runs(squares: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    """Standard error of the mean of the data sets' means from runs alone, and its degrees of freedom.

    Source: Satterthwaite, Biometrics Bulletin 2 (1946).
    """
    if (sizes < 2).any():
        return math.nan, 0
    parts = squares / (sizes - 1) / sizes
    total = float(parts.sum())
    if not total:
        return 0.0, float((sizes - 1).sum())
    return math.sqrt(total) / len(sizes), total**2 / float((parts**2 / (sizes - 1)).sum())
