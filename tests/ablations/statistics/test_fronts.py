"""Pareto fronts from scores that are noise in part."""

from __future__ import annotations

import numpy as np
import pytest

from ablations.statistics.chosen.allpairs import Scores
from ablations.statistics.fronts import Member, pareto_front

Table = dict[str, dict[int, float]]


def drawn(arms: dict[str, tuple[float, float]], noise: float, seeds: int = 3, seed: int = 0) -> tuple[Table, Table]:
    """Scores and costs about the true ones; seeds move all arms alike, too."""
    draw = np.random.default_rng(seed)
    blocks = draw.normal(0, 1, seeds)
    scores = {
        arm: {number: float(quality + blocks[number] + noise * draw.normal()) for number in range(seeds)}
        for arm, (quality, _) in arms.items()
    }
    costs = {
        arm: {number: float(cost * np.exp(noise * draw.normal())) for number in range(seeds)}
        for arm, (_, cost) in arms.items()
    }
    return scores, costs


def by_name(members: list[Member]) -> dict[str, Member]:
    return {one.arm: one for one in members}


def test_what_is_plain_is_said() -> None:
    arms = {"good": (10.0, 5.0), "cheap": (1.0, 1.0), "between": (6.0, 2.0), "wasteful": (5.0, 9.0)}
    found = by_name(pareto_front(*drawn(arms, 0.01), sign=1))
    assert {name for name, one in found.items() if one.measured} == {"good", "cheap", "between"}
    assert found["wasteful"].beaten_by == "good"
    assert not any(found[name].beaten_by for name in ("good", "cheap", "between"))
    assert found["cheap"].cost == pytest.approx(1, rel=0.05)


def test_less_may_be_better() -> None:
    arms = {"good": (-10.0, 5.0), "cheap": (-1.0, 1.0), "wasteful": (-5.0, 9.0)}
    found = by_name(pareto_front(*drawn(arms, 0.01), sign=-1))
    assert {name for name, one in found.items() if one.measured} == {"good", "cheap"}
    assert found["wasteful"].beaten_by == "good"


def test_what_noise_alone_says_is_not_shown() -> None:
    arms = {"a": (10.0, 5.0), "b": (9.5, 5.5), "c": (2.0, 1.0)}
    found = by_name(pareto_front(*drawn(arms, 2.0, seed=3), sign=1))
    assert not all(one.measured for one in found.values())
    assert not any(one.beaten_by for one in found.values())


def test_better_alone_or_cheaper_alone_is_not_enough() -> None:
    """Costs that are counted, and so alike in every digit, and qualities that are alike."""
    scores, _ = drawn({"a": (10.0, 1.0), "b": (1.0, 1.0)}, 0.01)
    alike: Scores = {arm: dict.fromkeys(range(3), 7e6 / 3) for arm in scores}
    found = by_name(pareto_front(scores, alike, sign=1))
    assert (found["a"].measured, found["b"].measured, found["b"].beaten_by) == (True, False, None)
    _, costs = drawn({"a": (0.0, 10.0), "b": (0.0, 1.0)}, 0.01)
    found = by_name(pareto_front(alike, costs, sign=1))
    assert (found["a"].measured, found["b"].measured, found["a"].beaten_by) == (False, True, None)


def test_one_run_each_shows_nothing_and_arms_without_a_value_are_left_out() -> None:
    scores = {"a": {0: 2.0}, "b": {0: 1.0}, "diverged": {0: float("nan")}, "uncosted": {0: 3.0}}
    costs = {"a": {0: 1.0}, "b": {0: 2.0}, "diverged": {0: 1.0}}
    found = pareto_front(scores, costs, sign=1)
    assert [(one.arm, one.measured, one.beaten_by) for one in found] == [("a", True, None), ("b", False, None)]
    assert pareto_front({}, {}, sign=1) == []


@pytest.mark.slow
@pytest.mark.parametrize("equal", ["quality", "cost", "both"])
def test_true_front_is_hardly_ever_called_beaten(equal: str) -> None:
    """Six arms that are alike in one of the two, so that all are on the front, three seeds each: at most 5 %."""
    studies = 400
    false = 0
    for study in range(studies):
        arms = {
            f"arm {n}": (1.0 if equal != "cost" else 10.0 * n, 1.0 if equal != "quality" else 10.0**n) for n in range(6)
        }
        scores, costs = drawn(arms, 0.2, seed=study)
        false += any(one.beaten_by for one in pareto_front(scores, costs, sign=1))
    assert false / studies <= 0.05 + 2 * (0.05 * 0.95 / studies) ** 0.5
