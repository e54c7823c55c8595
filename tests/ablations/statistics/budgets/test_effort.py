from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from ablations.statistics import t_interval
from ablations.statistics.budgets import best_of_trials, expected_curve, over_seeds
from operators.errors import InputError

SCORES = [0.71, 0.64, 0.9, 0.83, 0.83, 0.2, 0.77]


@pytest.mark.parametrize(("direction", "best"), [("maximize", max), ("minimize", min)])
def test_the_expected_best_is_the_mean_over_all_subsets(direction: str, best) -> None:
    for curve in expected_curve(SCORES, direction):
        assert curve.expected == pytest.approx(np.mean([best(chosen) for chosen in combinations(SCORES, curve.trials)]))


def test_the_interval_is_the_sign_tests_of_the_quantile() -> None:
    draws = np.sort(np.random.default_rng(0).normal(size=40))
    found = best_of_trials(draws.tolist(), 4)
    below = stats.binom(40, 2**-0.25)
    assert found.low == draws[max(k for k in range(40) if below.cdf(k) <= 0.025)]
    assert found.high == draws[min(k for k in range(40) if 1 - below.cdf(k) <= 0.025)]


def test_an_interval_has_no_end_where_few_trials_do_not_bound_it() -> None:
    assert best_of_trials(SCORES, 1).high is not None
    assert best_of_trials(SCORES, 4).high is None
    mirrored = best_of_trials([-score for score in SCORES], 4, "minimize")
    assert mirrored.low is None
    assert mirrored.high == -best_of_trials(SCORES, 4).low


def test_over_seeds_is_a_t_interval_at_each_number_of_trials() -> None:
    found = over_seeds([[0.5, 0.7], [0.6, 0.75], [0.4, 0.8]])
    expected = t_interval([0.7, 0.75, 0.8])
    assert (found[1].trials, found[1].expected) == (2, pytest.approx(0.75))
    assert (found[1].low, found[1].high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert over_seeds([[0.5, 0.7]])[0].low is None


def test_refusals_name_what_is_wrong() -> None:
    with pytest.raises(InputError, match="trials=8"):
        best_of_trials(SCORES, 8)
    with pytest.raises(InputError, match="not finite"):
        best_of_trials([*SCORES, float("nan")], 2)
    with pytest.raises(InputError, match="direction"):
        best_of_trials(SCORES, 2, "up")
    with pytest.raises(InputError, match="same number"):
        over_seeds([[1.0], [1.0, 2.0]])


@pytest.mark.parametrize("trials", [1, 4, 16])
def test_the_median_best_lies_within_its_interval(trials: int) -> None:
    """At least nominally 95 %, whatever the distribution: 500 tunings of 32 trials with two-peaked scores."""
    draw = np.random.default_rng(trials)
    held = []
    truth = np.quantile(two_peaked(draw, 1_000_000), 2 ** (-1 / trials))
    for _ in range(500):
        found = best_of_trials(two_peaked(draw, 32).tolist(), trials)
        held.append((found.low is None or found.low <= truth) and (found.high is None or truth <= found.high))
    assert np.mean(held) >= 0.94


def two_peaked(draw: np.random.Generator, count: int) -> np.ndarray:
    return np.where(draw.random(count) < 0.4, draw.normal(0.3, 0.1, count), draw.normal(0.8, 0.02, count))
