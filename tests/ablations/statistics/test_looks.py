"""What holds at all looks, against simulated studies that may stop at each of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ablations.statistics.looks import level_at, p_at_all
from operators.errors import InputError
from tests.ablations.statistics import simulate_looks

LOOKS = (3, 6, 9, 12)


def test_one_look_has_nothing_to_allow_for() -> None:
    assert level_at((), 3) == level_at((5,), 5) == 0.95
    assert p_at_all((), 3, 0.04) == p_at_all((5,), 5, 0.04) == 0.04
    with pytest.raises(InputError, match="level=1"):
        level_at(LOOKS, 3, 1.0)


def test_levels_fall_with_the_cube_of_seeds_and_cost_the_last_look_least() -> None:
    errors = [1 - level_at(LOOKS, seeds) for seeds in LOOKS]
    assert errors == pytest.approx([errors[-1] * (seeds / 12) ** 3 for seeds in LOOKS])
    assert 0.025 < errors[-1] < 0.05 < sum(errors) < 0.1  # more than is shared out, since looks hang together
    assert 1 - level_at((*LOOKS, 15), 15) < errors[-1] * 1.05
    assert 1 - level_at(LOOKS, 12, 0.99) < errors[-1] / 3


def test_p_of_a_look_meets_the_promise_where_its_level_does() -> None:
    for seeds in LOOKS:
        error = 1 - level_at(LOOKS, seeds)
        assert p_at_all(LOOKS, seeds, error) == pytest.approx(0.05, abs=1e-3)
        ordered = [p_at_all(LOOKS, seeds, error * factor) for factor in (0.1, 0.5, 1, 2, 10, 1e9)]
        assert ordered == sorted(ordered)
        assert all(p >= error * factor for p, factor in zip(ordered, (0.1, 0.5, 1, 2), strict=False))
        assert ordered[-1] == 1


def test_paired_intervals_hold_at_all_looks_together() -> None:
    differences = np.random.default_rng(1).normal(size=(20_000, LOOKS[-1]))
    missed = np.zeros(len(differences), dtype=bool)
    peeking = missed.copy()
    for n in LOOKS:
        p = stats.ttest_1samp(differences[:, :n], 0, axis=1).pvalue
        missed |= p < 1 - level_at(LOOKS, n)
        peeking |= p < 0.05
    assert 0.04 <= missed.mean() <= 0.055
    assert peeking.mean() > 0.12


@pytest.mark.slow
@pytest.mark.parametrize("until", simulate_looks.PLANS, ids=str)
def test_what_is_said_at_any_look_is_wrong_as_often_as_promised(until: simulate_looks.Until) -> None:
    """2,000 studies of equal arms that look until something shows, and whose differences get narrow."""
    alarms = [
        share
        for count in (simulate_looks.some_pair(2), simulate_looks.some_pair(9), simulate_looks.some_effect)
        for share in count(np.random.default_rng(3), 2000, until)
    ]
    for before, now in alarms:
        assert 0.035 <= now <= 0.065 < before
    *missed, _ = simulate_looks.stopped(3.0, narrow=False)(np.random.default_rng(4), 2000, until)
    assert all(now <= 0.06 for _, now in missed)
