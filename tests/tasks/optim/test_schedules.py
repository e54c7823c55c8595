from __future__ import annotations

import itertools

import pytest

from tasks import optim
from tasks.config.training import OptimizerConfig


def test_cosine_warms_up_and_falls_to_the_floor() -> None:
    config = OptimizerConfig(lr=1e-2, min_lr=1e-4)
    rates = [optim.rate(step, 100, 10, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1)
    assert rates[10] == pytest.approx(1)
    assert rates[55] == pytest.approx(0.5 * (1 + 0.01))
    assert rates[100] == pytest.approx(0.01)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_constant_stays() -> None:
    config = OptimizerConfig(schedule="constant")
    assert [optim.rate(step, 100, 4, config, decay=20) for step in (0, 3, 4, 99)] == [0.25, 1, 1, 1]


def test_wsd_is_flat_between_a_rise_and_a_linear_decay() -> None:
    config = OptimizerConfig(schedule="wsd", lr=1e-2, min_lr=1e-3)
    rates = [optim.rate(step, 100, 10, config, decay=20) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10:81] == [1.0] * 71
    assert rates[80:] == pytest.approx([1 - 0.9 * number / 20 for number in range(21)])


def test_wsd_decay_begins_after_the_warm_up_at_the_earliest() -> None:
    config = OptimizerConfig(schedule="wsd", lr=1.0, min_lr=0.0)
    rates = [optim.rate(step, 10, 4, config, decay=50) for step in range(11)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0])


@pytest.mark.parametrize(("amount", "expected"), [(0, 0), (0.05, 10), (1, 20), (2.5, 50)])
def test_span_is_a_share_or_epochs(amount: float, expected: int) -> None:
    assert optim.span(amount, total=200, epochs=10) == expected
