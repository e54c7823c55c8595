from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ablations.statistics.datasets import (
    DataScores,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)
from operators.errors import InputError


def scores(table: np.ndarray) -> DataScores:
    """Of a table (data sets, seeds)."""
    return {f"set {place}": dict(enumerate(row.tolist())) for place, row in enumerate(table)}


TABLE = np.random.default_rng(0).normal(size=(3, 5))
OTHER = np.round(TABLE[:, ::-1] + 0.5, 1)


def test_the_interquartile_mean_is_the_trimmed_mean_of_all_runs() -> None:
    assert interquartile_mean(scores(TABLE)).mean == pytest.approx(stats.trim_mean(TABLE.ravel(), 0.25))
    assert math.isinf(interquartile_mean(scores(TABLE[:, :1])).half)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_profile_counts_the_runs_that_are_as_good_with_wilsons_interval(direction: str) -> None:
    for point in performance_profile(scores(TABLE), [-1.0, 0.0, float(TABLE[0, 0])], direction):
        good = point.threshold <= TABLE if direction == "maximize" else point.threshold >= TABLE
        interval = stats.binomtest(int(good.sum()), 15).proportion_ci(method="wilson")
        assert point.share.value == pytest.approx(good.mean())
        assert (point.share.low, point.share.high) == pytest.approx(tuple(interval))


def test_data_sets_with_more_runs_do_not_count_more() -> None:
    uneven = {"a": {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}, "b": {0: 0.0}}
    assert performance_profile(uneven, [0.5])[0].share.value == 0.5


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_probability_of_improvement_is_the_mann_whitney_statistic(direction: str) -> None:
    found = probability_of_improvement(scores(OTHER), scores(TABLE), direction)
    sign = 1 if direction == "maximize" else -1
    expected = [stats.mannwhitneyu(sign * a, sign * b).statistic / 25 for a, b in zip(OTHER, TABLE, strict=True)]
    assert list(found.by_data.values()) == pytest.approx(expected)
    assert found.share.value == pytest.approx(np.mean(expected))
    back = probability_of_improvement(scores(TABLE), scores(OTHER), direction).share
    assert (1 - back.high, 1 - back.low) == pytest.approx((found.share.low, found.share.high))


def test_runs_that_always_win_leave_a_probability_below_one() -> None:
    found = probability_of_improvement(scores(TABLE + 100), scores(TABLE)).share
    assert found.value == found.high == 1
    assert 0.5 < found.low < 0.95


def test_refusals_name_what_is_wrong() -> None:
    with pytest.raises(InputError, match="no scores"):
        interquartile_mean({"a": {0: math.nan}})
    with pytest.raises(InputError, match="no data set has scores of both"):
        probability_of_improvement({"a": {0: 1.0}}, {"b": {0: 1.0}})


@pytest.mark.slow
@pytest.mark.parametrize("data_sets", [3, 5, 10])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_coverage(data_sets: int, seeds: int) -> None:
    """Nominal 95 %: 300 comparisons of arms on data sets of unlike difficulty and noise."""
    draw = np.random.default_rng(data_sets + 100 * seeds)
    mean, sd = np.linspace(0.5, 0.9, data_sets)[:, None], np.linspace(0.01, 0.03, data_sets)[:, None]
    gain, level = np.linspace(-0.5, 2, data_sets)[:, None], float(mean[data_sets // 2, 0] + 0.005)
    middle = stats.trim_mean((mean + sd * draw.normal(size=(data_sets, 100_000))).ravel(), 0.25)
    truths = {
        "interquartile mean": middle,
        "profile": stats.norm.sf((level - mean) / sd).mean(),
        "improvement": stats.norm.cdf(gain / 2**0.5).mean(),
    }
    held: dict[str, list[bool]] = {name: [] for name in truths}
    for _ in range(300):
        reference, arm = (mean + sd * (draw.normal(size=(data_sets, seeds)) + add) for add in (0.0, gain))
        found = {
            "interquartile mean": interquartile_mean(scores(reference)),
            "profile": performance_profile(scores(reference), [level])[0].share,
            "improvement": probability_of_improvement(scores(arm), scores(reference)).share,
        }
        for name, truth in truths.items():
            held[name].append(found[name].low <= truth <= found[name].high)
    for name, values in held.items():
        assert np.mean(values) >= 0.915, f"{name}: {np.mean(values):.4f}"
    assert np.mean(held["interquartile mean"]) <= 0.98
