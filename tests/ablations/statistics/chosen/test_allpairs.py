from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

from ablations.statistics import (
    Observation,
    best_arm,
    compare_with,
    fit_factorial,
    loudest,
    moderate,
    paired_differences,
)
from ablations.statistics.chosen.allpairs import flattered
from operators import InputError

# Montgomery, Design and Analysis of Experiments, example 4.1: yield of vascular grafts at four extrusion pressures, in
# six batches of resin. Mean square of the error 7.33 with 15 degrees of freedom.
GRAFTS = {
    "8500": [90.3, 89.2, 98.2, 93.9, 87.4, 97.9],
    "8700": [92.5, 89.5, 90.6, 94.7, 87.0, 95.8],
    "8900": [85.5, 90.8, 89.6, 86.2, 88.0, 93.4],
    "9100": [82.5, 89.5, 85.6, 87.4, 78.9, 90.7],
}


def by_seed(table: dict[str, list[float]]) -> dict[str, dict[int, float]]:
    return {arm: dict(enumerate(values)) for arm, values in table.items()}


def test_published_example() -> None:
    found = {one.arm: one for one in compare_with(by_seed(GRAFTS), "8500")}
    assert list(found) == ["8700", "8900", "9100"]
    for arm, difference in (("8700", -1.13), ("8900", -3.90), ("9100", -7.05)):
        assert found[arm].interval.mean == pytest.approx(difference, abs=0.006)
    assert found["9100"].p < 0.05 < found["8900"].p < found["8700"].p


def test_without_own_errors_all_pairs_are_tukey_s_method() -> None:
    """The tables' upper 5 % point of the studentized range of 4 means with 15 degrees of freedom is 4.08."""
    observations = [Observation({"arm": arm}, seed, v) for arm, row in GRAFTS.items() for seed, v in enumerate(row)]
    fit = fit_factorial(observations, {"arm": list(GRAFTS)})
    pairs = [fit.difference("arm", *pair) for pair in combinations(GRAFTS, 2)]
    for one in moderate(fit, pairs, prior=math.inf):
        assert one.error == pytest.approx(math.sqrt(7.33 / 3), abs=0.001)
        assert one.df == 15
        assert one.together.half == pytest.approx(4.08 * math.sqrt(7.33 / 6), rel=0.02)
        exact = stats.studentized_range.sf(math.sqrt(2) * abs(one.together.mean) / one.error, 4, 15)
        assert one.p_together == pytest.approx(exact, abs=0.015)


def test_two_arms_are_a_paired_t_test() -> None:
    two = by_seed({arm: GRAFTS[arm] for arm in ("8500", "9100")})
    (one,), (other,) = compare_with(two, "8500", 0.9), paired_differences(two, "8500", 0.9)
    assert one.p == pytest.approx(other.p, rel=1e-6)
    assert (one.interval.low, one.interval.high) == pytest.approx((other.interval.low, other.interval.high), rel=1e-6)


def test_a_pair_is_told_apart_where_its_interval_leaves_out_zero() -> None:
    for arm in GRAFTS:
        for one in compare_with(by_seed(GRAFTS), arm):
            assert (one.p < 0.05) == (not one.interval.low <= 0 <= one.interval.high)


def test_runs_that_diverged_are_left_out() -> None:
    scores = by_seed(GRAFTS) | {"gone": dict.fromkeys(range(6), math.nan)}
    scores["8900"][2] = math.nan
    found = {one.arm: one for one in compare_with(scores, "8500")}
    assert list(found) == ["8700", "8900", "9100"]
    without = {one.arm: one for one in compare_with(by_seed(GRAFTS), "8500")}
    assert found["8900"].interval.n == 5
    assert found["9100"].interval.half > without["9100"].interval.half


def test_without_degrees_of_freedom_nothing_is_said() -> None:
    (one,) = compare_with({"a": {0: 0.5}, "b": {0: 0.9}}, "a")
    assert (one.interval.mean, one.interval.half, one.p) == (pytest.approx(0.4), math.inf, 1.0)
    unconnected = {"a": {0: 0.5, 1: 0.6}, "b": {2: 0.9, 3: 0.8}}
    (one,) = compare_with(unconnected, "a")
    assert (one.interval.half, one.p) == (math.inf, 1.0)
    (one,) = compare_with({"a": {0: 0.5, 1: 0.6}, "b": {0: 0.5, 1: 0.6}}, "a")
    assert one.p == 1.0


def test_refusals() -> None:
    with pytest.raises(InputError, match="did you mean '8500'"):
        compare_with(by_seed(GRAFTS), "850")
    with pytest.raises(InputError, match="only arm with a score"):
        compare_with({"a": {0: 0.5}, "b": {0: math.nan}}, "a")
    with pytest.raises(InputError, match="level"):
        compare_with(by_seed(GRAFTS), "8500", 1.0)


def few_and_many(few: int, many: int) -> pytest.MarkDecorator:
    """So many simulated studies, and in the slow suite so many that 5 % is told from 6 %."""
    return pytest.mark.parametrize("studies", [few, pytest.param(many, marks=pytest.mark.slow)])


def assert_share(share: Any, expected: float, studies: int) -> None:
    """Within 0.01 of what is expected, and three standard errors of the simulation above 2,000 studies' own."""
    error = 3 * math.sqrt(expected * (1 - expected)) * (studies**-0.5 - 2000**-0.5)
    assert abs(share - expected) <= 0.01 + error, f"{share:.4f} of {studies}"


@few_and_many(60, 2000)
def test_false_alarms_about_whichever_arm_is_best(studies: int) -> None:
    """Of nine arms that are all alike some arm is told apart from the best in 5 % of the studies."""
    rng = np.random.default_rng(9)
    alarms = []
    for table in rng.normal(size=(studies, 9, 3)) + rng.normal(scale=2.0, size=(studies, 1, 3)):
        scores = by_seed({str(arm): row.tolist() for arm, row in enumerate(table)})
        found = compare_with(scores, str(int(table.mean(axis=1).argmax())))
        alarms.append(any(one.interval.high < 0 for one in found))
    assert_share(np.mean(alarms), 0.05, studies)


@few_and_many(100, 500)
def test_coverage_of_all_pairs_together(studies: int) -> None:
    rng = np.random.default_rng(5)
    truth = np.arange(4.0)
    inside = []
    for table in truth[:, None] + rng.normal(size=(studies, 4, 5)) + rng.normal(scale=2.0, size=(studies, 1, 5)):
        scores = by_seed({str(arm): row.tolist() for arm, row in enumerate(table)})
        pairs = [(one, arm) for arm in range(3) for one in compare_with(scores, str(arm))]
        inside.append(all(one.interval.low <= int(one.arm) - arm <= one.interval.high for one, arm in pairs))
    assert_share(np.mean(inside), 0.95, studies)


def test_loudest_arm() -> None:
    rng = np.random.default_rng(2)
    table = rng.normal(size=(9, 5)) + rng.normal(scale=2.0, size=5)
    quiet = loudest(by_seed({str(arm): row.tolist() for arm, row in enumerate(table)}))
    assert quiet is not None
    assert quiet.p > 0.05
    table[4] = 10 * rng.normal(size=5)
    found = loudest(by_seed({str(arm): row.tolist() for arm, row in enumerate(table)}))
    assert found is not None
    assert found.arm == "4"
    assert found.p < 0.01
    assert found.ratio > 3
    assert loudest({"a": {0: 1.0, 1: 2.0}, "b": {0: 1.0, 1: 2.5}}) is None
    assert loudest({arm: {0: 1.0, 1: 2.0} for arm in "abc"}) is None
    assert loudest({"a": {0: 1.0, 1: 2.0}, "b": {0: 1.0, 1: 2.5}, "c": {0: 1.0}}) is None


def test_loudest_by_the_published_table() -> None:
    """Cochran's upper 5 % point of the largest of nine variances with two degrees of freedom each is 0.478."""
    table = np.random.default_rng(1).normal(size=(9, 3))

    def p(factor: float) -> float:
        louder = table * np.where(np.arange(9) == 0, factor, 1.0)[:, None]
        found = loudest(by_seed({str(arm): row.tolist() for arm, row in enumerate(louder)}))
        assert found is not None
        return found.p

    factor = optimize.brentq(lambda factor: p(factor) - 0.05, 2.0, 50.0)
    louder = table * np.where(np.arange(9) == 0, factor, 1.0)[:, None]
    rest = louder - louder.mean(axis=1, keepdims=True) - louder.mean(axis=0) + louder.mean()
    squares = np.square(rest).sum(axis=1)
    assert squares[0] / squares.sum() == pytest.approx(0.478, abs=0.001)


def test_false_alarms_about_the_loudest_arm() -> None:
    rng = np.random.default_rng(4)
    alarms = [
        loudest(by_seed({str(arm): row.tolist() for arm, row in enumerate(table)})).p < 0.05  # type: ignore[union-attr]
        for table in rng.normal(size=(2000, 18, 3))
    ]
    assert 0.03 <= np.mean(alarms) <= 0.06, f"{np.mean(alarms):.4f}"


@few_and_many(200, 1000)
@pytest.mark.parametrize(("arms", "seeds"), [(2, 3), (9, 3), (9, 10)])
def test_the_interval_of_the_best_of_equal_arms_covers_it(arms: int, seeds: int, studies: int) -> None:
    rng = np.random.default_rng(arms + seeds)
    covered, flattered, shrunken = [], [], []
    for table in rng.normal(size=(studies, arms, seeds)):
        best = best_arm(by_seed({str(arm): row.tolist() for arm, row in enumerate(table)}), sign=1)
        covered.append(best.low <= 0 <= best.high)
        flattered.append(best.mean)
        shrunken.append(best.shrunken)
    assert_share(np.mean(covered), 0.95, studies)
    assert np.mean(flattered) > 0.15
    assert np.mean(shrunken) < 0.5 * np.mean(flattered) or arms < 4


def test_what_seeds_give_to_all_arms_alike_is_not_flattered_by_the_choice() -> None:
    """Seeds move nine arms by twice a run's noise: the interval of the worst case is too wide, and would hold 97 %."""
    rng = np.random.default_rng(3)
    lengths, inside = [], []
    for table in rng.normal(size=(150, 9, 5)) + 2 * rng.normal(size=(150, 1, 5)):
        best = best_arm(by_seed({str(arm): row.tolist() for arm, row in enumerate(table)}), sign=1)
        error = table.std(axis=1, ddof=1)[int(best.arm)] / math.sqrt(5)
        lengths.append((best.mean - best.low) / error)
        inside.append(best.low <= 0 <= best.high)
    alone, worst = flattered(1, 5, 0.95), flattered(9, 5, 0.95)
    assert alone < np.mean(lengths) < alone + 0.6 * (worst - alone)
    assert np.mean(inside) > 0.9


def test_the_best_of_losses_is_the_mirror_of_the_best_of_scores() -> None:
    scores = by_seed(GRAFTS)
    losses = {arm: {seed: -value for seed, value in of_arm.items()} for arm, of_arm in scores.items()}
    best, least = best_arm(scores, sign=1), best_arm(losses, sign=-1)
    assert (least.arm, least.arms) == (best.arm, best.arms) == ("8500", 4)
    assert (least.mean, least.low, least.high, least.shrunken) == pytest.approx(
        (-best.mean, -best.high, -best.low, -best.shrunken)
    )
    assert best.mean - best.low > best.high - best.mean
    assert np.mean([np.mean(row) for row in GRAFTS.values()]) < best.shrunken < best.mean
    assert best_arm({"a": {0: 1.0}, "b": {0: 2.0}}, sign=1).low == -math.inf
    with pytest.raises(InputError, match="no score"):
        best_arm({"a": {0: math.nan}}, sign=1)
