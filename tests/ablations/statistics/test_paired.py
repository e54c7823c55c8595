"""Paired differences, Holm's adjustment, power and equivalence against published examples and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ablations.statistics import (
    equivalence,
    holm,
    paired_differences,
    paired_power,
    seeds_needed,
    smallest_difference,
    smallest_paired_difference,
    t_interval,
    t_power,
)
from ablations.statistics.paired import hedges_factor
from operators import InputError

SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
"""Student, The probable error of a mean (1908): hours of sleep that drug 2 gave more than drug 1."""


def sleep_error() -> float:
    return float(np.std(SLEEP, ddof=1)) / math.sqrt(10)


def test_students_sleep_data() -> None:
    """R's `t.test(extra ~ group, paired = TRUE)`: t = 4.0621, df = 9, p = 0.002833, 0.7001142 to 2.4598858."""
    (found,) = paired_differences({"one": dict.fromkeys(range(10), 0.0), "two": dict(enumerate(SLEEP))}, "one")
    assert found.interval == found.simultaneous == t_interval(SLEEP)
    assert found.interval.mean == pytest.approx(1.58)
    assert (found.interval.low, found.interval.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-7)
    assert (found.p, found.p_holm) == pytest.approx((0.002833, 0.002833), abs=1e-6)
    assert found.d_z == pytest.approx(4.0621 / math.sqrt(10), abs=1e-4)
    assert found.g_z == pytest.approx(found.d_z * (1 - 3 / (4 * 9 - 1)), rel=1e-3)
    assert (found.seeds, found.unmatched, found.note) == (tuple(range(10)), (), "")


def test_unmatched_seeds_are_left_out_and_named() -> None:
    scores = {"a": {0: 1.0, 1: 2.0, 2: math.nan, 4: 2.5}, "b": {0: 1.5, 1: 2.0, 2: 3.0, 3: 1.0, 4: 3.5}, "c": {7: 1.0}}
    b, c = paired_differences(scores, "a")
    assert (b.seeds, b.unmatched, b.interval.mean) == ((0, 1, 4), (2, 3), pytest.approx(0.5))
    assert b.note == "b and a share 3 seeds; without a partner, left out: 2, 3"
    assert (c.seeds, c.interval.n, c.p, c.interval.half) == ((), 0, 1.0, math.inf)
    assert math.isnan(c.interval.mean)
    expected = stats.ttest_rel([1.5, 2.0, 3.5], [1.0, 2.0, 2.5])
    assert (b.p, b.p_holm) == pytest.approx((expected.pvalue, min(2 * expected.pvalue, 1)))
    half = stats.t.ppf(1 - 0.05 / 4, 2) * np.std([0.5, 0, 1], ddof=1) / math.sqrt(3)
    assert b.simultaneous.half == pytest.approx(half)


def test_one_seed_has_no_interval_and_no_effect_size() -> None:
    (found,) = paired_differences({"a": {0: 1.0}, "b": {0: 3.0}}, "a")
    assert (found.interval.mean, found.interval.half, found.p) == (2.0, math.inf, 1.0)
    assert math.isnan(found.d_z)
    assert math.isnan(found.g_z)


def test_differences_that_never_vary() -> None:
    same, shifted = paired_differences({"r": {0: 1.0, 1: 2.0}, "s": {0: 1.0, 1: 2.0}, "t": {0: 2.0, 1: 3.0}}, "r")
    assert (same.interval.half, same.p, shifted.interval.half, shifted.p) == (0, 1, 0, 0)
    assert math.isnan(shifted.d_z)


@pytest.mark.parametrize(
    ("scores", "reference", "level", "message"),
    [
        ({"attention": {0: 1.0}, "pom": {0: 1.0}}, "atention", 0.95, "did you mean 'attention'"),
        ({"a": {0: 1.0}}, "a", 0.95, "only arm"),
        ({"a": {0: 1.0, 1: 2.0}, "b": {0: 1.0, 1: 2.0}}, "a", 1.0, "level=1.0"),
    ],
)
def test_refusals(scores: dict[str, dict[int, float]], reference: str, level: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        paired_differences(scores, reference, level)


def test_no_values_have_no_interval() -> None:
    with pytest.raises(InputError, match="at least one"):
        t_interval([])


def test_holm_example() -> None:
    """Four hypotheses at 0.01, 0.04, 0.03, 0.005: the second and third keep the larger of their steps, 2 x 0.03."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5, 0.02]) == pytest.approx([1.0, 1.0, 0.06])
    assert holm([]) == []


def test_hedges_factor() -> None:
    """J(2) = Γ(1)/Γ(1/2) = 1/√π, J(4) = Γ(2)/(√2 Γ(3/2)) = √(2/π); Hedges (1981): nearly 1 - 3/(4 df - 1)."""
    assert hedges_factor(2) == pytest.approx(1 / math.sqrt(math.pi))
    assert hedges_factor(4) == pytest.approx(math.sqrt(2 / math.pi))
    assert hedges_factor(10) == pytest.approx(1 - 3 / 39, abs=1e-3)
    assert math.isnan(hedges_factor(1))


def test_power_of_a_textbook_paired_test() -> None:
    """G*Power's matched pairs at d_z = 0.5, two-sided 5 %, 80 %: 34 pairs, actual power 0.8077775."""
    assert seeds_needed(0.5, 1.0) == 34
    assert paired_power(0.5, 1.0, 34) == pytest.approx(0.8077775, abs=1e-7)
    assert paired_power(0.5, 1.0, 33) < 0.8


def test_power_as_statsmodels_has_it() -> None:
    """Numbers of statsmodels 0.15: `TTestPower().power(2, 3, 0.05)`, `.solve_power(nobs=5, power=0.9, alpha=0.05)`."""
    assert paired_power(2.0, 1.0, 3) == pytest.approx(0.4707494312784346)
    assert smallest_paired_difference(5, 1.0, power=0.9) == pytest.approx(1.9658888509731074)
    assert smallest_paired_difference(5, 0.4, power=0.9) == pytest.approx(0.4 * 1.9658888509731074)


def test_power_is_the_size_of_the_test_without_a_difference() -> None:
    assert t_power(0.0, 1.0, 14) == pytest.approx(0.05)
    assert t_power(-1.7, 0.6, 14) == t_power(1.7, 0.6, 14)


def test_smallest_difference_is_found_with_the_power_asked_for() -> None:
    found = smallest_difference(0.3, 14, power=0.8)
    assert t_power(found, 0.3, 14) == pytest.approx(0.8)
    assert seeds_needed(smallest_paired_difference(7, 2.0) * 1.0001, 2.0) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"difference": 0.0, "sd": 1.0}, "difference=0"),
        ({"difference": 1.0, "sd": 0.0}, "above 0"),
        ({"difference": 1e-6, "sd": 1.0}, "more than 100,000 seeds"),
        ({"difference": 1.0, "sd": 1.0, "power": 0.01}, "above the test's size"),
        ({"difference": 1.0, "sd": 1.0, "level": 0}, "level=0"),
    ],
)
def test_power_refusals(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        seeds_needed(**arguments)


def test_equivalence_as_statsmodels_has_it() -> None:
    """Number of statsmodels 0.15: `ttost_paired(sleep, 0, -2.5, 2.5)` has p = 0.0211168602465007."""
    found = equivalence(float(np.mean(SLEEP)), sleep_error(), 9, margin=2.5)
    assert found.p == pytest.approx(0.0211168602465007)
    assert found.equivalent
    assert not found.zero_inside
    # The margin at which p is just 5 % is the far end of the 90 % interval.
    edge = t_interval(SLEEP, 0.90).high
    assert found.smallest_margin == pytest.approx(edge)
    assert equivalence(float(np.mean(SLEEP)), sleep_error(), 9, margin=edge).p == pytest.approx(0.05)


def test_equivalence_says_both_statements() -> None:
    nothing = equivalence(0.001, 0.002, 14, margin=0.01)
    assert nothing.zero_inside
    assert nothing.equivalent
    assert nothing.statement.startswith("zero is within the 95 % interval [-0.00329, 0.00529]; the effect is shown to")
    unclear = equivalence(0.001, 0.02, 14, margin=0.01)
    assert unclear.zero_inside
    assert not unclear.equivalent
    assert "is not shown to be smaller than 0.01" in unclear.statement
    assert "zero is outside" in equivalence(1.0, 0.1, 14, margin=0.01).statement


def test_equivalence_without_freedom_or_spread() -> None:
    assert (equivalence(0.0, math.nan, 0, margin=1.0).p, equivalence(0.0, math.nan, 0, margin=1.0).zero_inside) == (
        1,
        True,
    )
    assert (equivalence(0.5, 0.0, 4, margin=1.0).p, equivalence(1.5, 0.0, 4, margin=1.0).p) == (0, 1)
    with pytest.raises(InputError, match="margin=0"):
        equivalence(0.0, 1.0, 4, margin=0)
