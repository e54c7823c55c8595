from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats

from ablations.statistics.budgets import PowerLaw, fit_power_law
from operators.errors import InputError
from tests.ablations.statistics.budgets import planted

BUDGETS = planted.budgets(5)


def arm(exponent: float = 0.5, seeds: int = 5, sd: float = 0.002, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return planted.law(BUDGETS, exponent) + planted.noise(draw, seeds, 5, "shared", sd)


def fitted(table: np.ndarray, at: np.ndarray = BUDGETS) -> PowerLaw:
    return fit_power_law(planted.scores(table, at))


def test_estimates_are_those_of_least_squares() -> None:
    table = arm()
    law = fitted(table)
    mean = table.mean(axis=0)
    found, _ = optimize.curve_fit(lambda n, c, a, b: c + a * (n / 100) ** -b, BUDGETS, mean, p0=(0.9, -0.15, 0.5))
    assert law.limit.estimate == pytest.approx(found[0], abs=2e-4)
    assert law.exponent.estimate == pytest.approx(found[2], rel=2e-3)
    for budget in (100.0, 700.0, 1600.0, 5000.0):
        expected = found[0] + found[1] * (budget / 100) ** -found[2]
        assert law.value(budget) == pytest.approx(expected, abs=1e-4)


def test_the_ends_of_the_exponents_interval_are_where_the_t_test_over_seeds_just_rejects() -> None:
    table = arm()
    law = fitted(table)
    for exponent in (law.exponent.low, law.exponent.high):
        assert exponent is not None
        curve = BUDGETS**-exponent
        known = np.stack([np.ones(5), curve], axis=1)
        change = -np.log(BUDGETS) * curve
        direction = change - known @ np.linalg.lstsq(known, change, rcond=None)[0]
        assert stats.ttest_1samp(table @ direction, 0.0).pvalue == pytest.approx(0.05, abs=0.002)


def test_units_of_budgets_and_scores_do_not_matter() -> None:
    table = arm()
    plain, other = fitted(table), fitted(2.0 - 3.0 * table, 1e6 * BUDGETS)
    for end in ("estimate", "low", "high"):
        assert getattr(other.exponent, end) == pytest.approx(getattr(plain.exponent, end))
    assert other.limit.estimate == pytest.approx(2.0 - 3.0 * plain.limit.estimate)
    assert other.limit.low == pytest.approx(2.0 - 3.0 * plain.limit.high)
    assert other.limit.high == pytest.approx(2.0 - 3.0 * plain.limit.low)
    assert other.half(1e9) == pytest.approx(3.0 * plain.half(1e3))


def test_without_levelling_off_there_is_no_limit() -> None:
    draw = np.random.default_rng(0)
    law = fitted(0.5 + 0.05 * np.log2(BUDGETS / 100) + 0.005 * draw.normal(size=(5, 5)))
    assert law.exponent.low is None
    assert law.limit.low is not None
    assert law.limit.high is None


def test_a_bend_that_no_law_has_is_noticed() -> None:
    bent = np.array([0.5, 0.5, 0.5, 0.7, 0.9])
    draw = np.random.default_rng(0)
    assert fitted(bent + 0.01 * draw.normal(size=(10, 5))).misfit < 0.001
    assert fitted(arm(seeds=10)).misfit > 0.05


@pytest.mark.parametrize(
    ("table", "at", "message"),
    [
        (arm()[:, :3], BUDGETS[:3], "3 budgets.*needs 4"),
        (arm()[:1], BUDGETS, "1 seed.*needs 2"),
        (np.tile(arm()[:1], (3, 1)), BUDGETS, "same at every seed"),
        (0.5 + 0.1 * np.random.default_rng(1).normal(size=(3, 5)), BUDGETS, "not shown to change"),
        (arm(), BUDGETS - 100, "must be above 0"),
    ],
)
def test_refuses_what_has_no_law(table: np.ndarray, at: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fitted(table, at)


def test_a_seed_that_lacks_a_score_is_left_out() -> None:
    table = arm(seeds=6)
    holes = planted.scores(table, BUDGETS)
    holes[400.0][2] = math.nan
    law = fit_power_law(holes)
    assert law.table.left_out == (2,)
    assert law.exponent == fitted(np.delete(table, 2, axis=0)).exponent


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("kind", planted.NOISES)
def test_coverage(seeds: int, kind: str) -> None:
    """Nominal 95 %, over 4, 5 and 6 budgets, several exponents, clear and faint curves: 750 studies."""
    draw = np.random.default_rng(seeds)
    kept: dict[str, list[bool]] = {name: [] for name in ("exponent", "limit", "middle", "top", "doubled")}
    for count in (4, 5, 6):
        at = planted.budgets(count)
        for _ in range(250):
            exponent, sd = draw.choice([0.3, 0.5, 0.8, 1.2]), draw.choice([0.004, 0.01])
            try:
                law = fitted(planted.law(at, exponent) + planted.noise(draw, seeds, count, kind, sd), at)
            except InputError:
                continue
            kept["exponent"].append(planted.inside(exponent, law.exponent.low, law.exponent.high))
            kept["limit"].append(planted.inside(planted.LIMIT, law.limit.low, law.limit.high))
            for name, budget in (("middle", 300.0), ("top", at[-1]), ("doubled", 2 * at[-1])):
                kept[name].append(abs(law.value(budget) - planted.law(budget, exponent)) <= law.half(budget))
    for name, values in kept.items():
        assert len(values) > 700
        assert 0.93 <= np.mean(values) <= 0.97, f"{name}: {np.mean(values):.4f}"
