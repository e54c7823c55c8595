"""The interval of the largest effect against truncated distributions, and by simulation over a range of truths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ablations.statistics.chosen.largest import largest_interval, lower_end, runner_up, upper_end
from tests.ablations.statistics.simulate_tables import SIGNS, Design

PLAIN = float(stats.t.ppf(0.975, 8))


def test_far_ahead_it_is_the_plain_interval_and_in_a_tie_the_one_for_all_together() -> None:
    far = largest_interval(60.0, 1.0, 1.0, 8, 0.95, 3.5)
    assert far == pytest.approx((60 - PLAIN, 60 + PLAIN), abs=1e-6)
    tie = largest_interval(60.0, 60 - 1e-6, 1.0, 8, 0.95, 3.5)
    assert tie == pytest.approx((56.5, 60), abs=1e-3)


def test_the_nearer_the_runner_up_the_lower_both_ends() -> None:
    needed = np.linspace(0, 20, 201)
    size, error, df = (np.full(201, number) for number in (20.0, 1.0, 8.0))
    low = lower_end(size, needed, error, df, 0.95, 3.5 * error)
    high = upper_end(size, needed, error, df, 0.95)
    assert np.all(np.diff(low) < 1e-9)
    assert np.all(np.diff(high) < 1e-9)
    assert np.all((low >= 16.5) & (low <= 20 - PLAIN + 1e-9))
    assert np.all((high >= 20) & (high <= 20 + PLAIN))


def test_with_a_known_error_the_ends_are_those_of_a_truncated_normal() -> None:
    low, high = largest_interval(6.0, 4.5, 1.0, 1e9, 0.95, 5.0)
    for end, share in ((low, 0.025), (high, 0.975)):
        assert stats.truncnorm.sf(6 - end, 4.5 - end, math.inf) == pytest.approx(share, abs=1e-6)


def test_zero_is_inside_where_the_effect_is_not_shown() -> None:
    """Without the interval for all together, the lower end would be above zero."""
    one = [np.array([number]) for number in (2.5, 0.1, 1.0, 30.0)]
    assert lower_end(*one, 0.95, np.array([3.0]))[0] > 0.1
    assert largest_interval(2.5, 0.1, 1.0, 30, 0.95, 3.0)[0] == -0.5
    assert largest_interval(-2.5, 0.1, 1.0, 30, 0.95, 3.0)[1] == 0.5
    assert largest_interval(2.5, 0.1, 1.0, 0, 0.95, math.inf) == (-math.inf, math.inf)


def test_the_runner_up_of_estimates_that_move_together() -> None:
    """Of three arms less a fourth: at the size that was needed, another one would have been as large."""
    estimates = np.array([[-3.0, -2.0, 1.5], [0.3, 0.2, 0.1]])
    place, needed = runner_up(estimates, np.eye(3))
    assert (place.tolist(), needed.tolist()) == ([0, 0], [2.0, 0.2])
    covariance = 0.5 + 0.5 * np.eye(3)
    place, needed = runner_up(estimates, covariance)
    for row, first, size in zip(estimates, place, needed, strict=True):
        back = (size - abs(row[first])) * np.sign(row[first]) * covariance[first] / covariance[first, first]
        sizes = np.abs(row + back)
        assert sizes[first] == pytest.approx(size)
        assert np.delete(sizes, first).max() == pytest.approx(size)


def test_the_law_is_exact_for_one_common_error() -> None:
    """Seven equal effects, three degrees of freedom: 2.5 % on either side, known within 0.2 points."""
    draw, tables = np.random.default_rng(0), 8_000
    sizes = np.sort(20 + draw.normal(size=(tables, 7)), axis=1)
    error, df = np.sqrt(draw.chisquare(3, tables) / 3), np.full(tables, 3.0)
    one = (sizes[:, -1], sizes[:, -2], error, df)
    assert np.mean(lower_end(*one, 0.95, 200 * error) > 20) == pytest.approx(0.025, abs=0.005)
    near = sizes[:, -1] - sizes[:, -2] < 0.01  # there the upper end would be below the estimate
    assert np.mean((upper_end(*one, 0.95) < 20)[~near]) < 0.025


@pytest.mark.parametrize("seeds", [3, 10])
def test_coverage_of_the_largest_effect(seeds: int) -> None:
    """No effects, one, two that are as large, all, and one that changes with the seed by its own size."""
    draw, design = np.random.default_rng(seeds), Design("factors", seeds)
    error = math.sqrt(0.5 / seeds)
    for sizes in ((0,) * 7, (3, 0, 0, 0, 0, 0, 0), (9, 0, 0, 0, 0, 0, 0), (9, 9, 0, 0, 0, 0, 0), (9,) * 7):
        truth = error * np.array(sizes)
        missed = design.largest(draw.normal(size=(1200, seeds, 8)) + truth @ SIGNS / 2, truth)[-1]
        assert 0.015 <= missed <= 0.075, sizes
    effect = 1 + draw.normal(size=(1200, seeds, 1))
    missed = design.largest(draw.normal(size=(1200, seeds, 8)) + effect * SIGNS[0] / 2, np.array([1.0, *[0.0] * 6]))[-1]
    assert 0.025 <= missed <= 0.08
