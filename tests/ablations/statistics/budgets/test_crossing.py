from __future__ import annotations

import numpy as np
import pytest

from ablations.statistics import t_interval
from ablations.statistics.budgets import Crossing, crossing, differences
from operators.errors import InputError
from tests.ablations.statistics.budgets import planted

BUDGETS = planted.budgets(5)
EARLY, LATE = planted.law(BUDGETS, 1.0, limit=0.85, factor=-0.05), planted.law(BUDGETS, 0.5, limit=0.92)
"""The first is ahead at small budgets, the second at large ones."""


def found(arm: np.ndarray, reference: np.ndarray, sd: float, seeds: int = 5) -> Crossing:
    draw = np.random.default_rng(0)
    noise = sd * draw.normal(size=(2, seeds, 5))
    return crossing(planted.scores(arm + noise[0], BUDGETS), planted.scores(reference + noise[1], BUDGETS))


def test_the_crossing_lies_in_its_interval() -> None:
    at = np.geomspace(100, 1600, 20_000)
    rest = planted.law(at, 1.0, limit=0.85, factor=-0.05) - planted.law(at, 0.5, limit=0.92)
    truth = float(at[np.flatnonzero(np.diff(np.sign(rest)))[0]])
    result = found(EARLY, LATE, 0.001)
    assert result.kind == "interval"
    ((low, high),) = result.pieces
    assert low is not None
    assert high is not None
    assert low < truth < high
    assert result.estimates == (pytest.approx(truth, rel=0.1),)


def test_arms_far_apart_do_not_cross() -> None:
    result = found(EARLY + 0.5, LATE, 0.002)
    assert (result.kind, result.pieces, result.estimates) == ("none", (), ())


def test_of_equal_arms_nothing_is_known() -> None:
    assert found(LATE, LATE, 0.002).kind == "unknown"
    assert found(LATE, LATE, 0.002).pieces == ((None, None),)


def test_an_end_beyond_the_budgets_is_open() -> None:
    result = found(EARLY + 0.034, LATE, 0.004)
    assert result.kind == "one-sided"
    assert result.pieces[0][1] is None


def test_an_arm_without_a_law_is_refused() -> None:
    with pytest.raises(InputError, match="3 budgets"):
        crossing(planted.scores(np.tile(EARLY[:3], (3, 1)), BUDGETS[:3]), planted.scores(LATE[None], BUDGETS))


def test_differences_at_each_budget_are_paired_and_hold_together() -> None:
    draw = np.random.default_rng(1)
    first, second = EARLY + 0.01 * draw.normal(size=(4, 5)), LATE + 0.01 * draw.normal(size=(4, 5))
    result = differences(planted.scores(first, BUDGETS), planted.scores(second, BUDGETS))
    for place, one in enumerate(result.at):
        rest = (first - second)[:, place]
        assert one.budget == BUDGETS[place]
        assert one.interval == t_interval(rest)
        assert one.simultaneous == t_interval(rest, 0.99)
    assert result.mean == t_interval((first - second).mean(axis=1))
    slopes = [np.polyfit(np.log2(BUDGETS), row, 1)[0] for row in first - second]
    assert result.per_doubling.mean == pytest.approx(np.mean(slopes))
    assert result.per_doubling.half == pytest.approx(t_interval(slopes).half)


def test_who_is_ahead_is_said_where_the_simultaneous_interval_shows_it() -> None:
    draw = np.random.default_rng(1)
    noise = 0.001 * draw.normal(size=(5, 5))
    wide = np.array([0.1, 0.05, 0.0, -0.05, -0.1])
    result = differences(planted.scores(LATE + wide + noise, BUDGETS), planted.scores(np.tile(LATE, (5, 1)), BUDGETS))
    assert result.ahead == (100.0, 200.0)
    assert result.behind == (800.0, 1600.0)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("kind", planted.NOISES)
def test_coverage(seeds: int, kind: str) -> None:
    """Nominal 95 %, over 4, 5 and 6 budgets and crossings at 15 to 85 % of their logarithmic range: 450 studies."""
    draw = np.random.default_rng(seeds)
    holds, together, mean = [], [], []
    for count in (4, 5, 6):
        at = planted.budgets(count)
        for _ in range(150):
            exponent, other, sd = draw.choice([0.5, 0.8]), draw.choice([0.3, 1.2]), draw.choice([0.002, 0.006])
            point = at[0] * (at[-1] / at[0]) ** draw.uniform(0.15, 0.85)
            limit = planted.law(point, exponent) - planted.law(point, other, limit=0.0, factor=-0.12)
            shared = 0.01 * draw.normal(size=(seeds, 1))
            truths = planted.law(at, exponent), planted.law(at, other, limit=float(limit), factor=-0.12)
            first, second = (
                planted.scores(truth + shared + planted.noise(draw, seeds, count, kind, sd), at) for truth in truths
            )
            try:
                result = crossing(first, second)
            except InputError:
                continue
            holds.append(any(planted.inside(point, *piece) for piece in result.pieces))
            plain, rest = differences(first, second), truths[0] - truths[1]
            mean.append(abs(plain.mean.mean - rest.mean()) <= plain.mean.half)
            together.append(
                all(
                    abs(one.simultaneous.mean - truth) <= one.simultaneous.half
                    for one, truth in zip(plain.at, rest, strict=True)
                )
            )
    assert len(holds) > 400
    assert 0.925 <= np.mean(holds) <= 0.98, f"{np.mean(holds):.4f}"
    assert 0.925 <= np.mean(mean) <= 0.98, f"{np.mean(mean):.4f}"
    assert np.mean(together) >= 0.93, f"{np.mean(together):.4f}"
