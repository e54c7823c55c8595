"""Which trials are looked at before a study begins."""

from __future__ import annotations

from typing import Any

import pytest

from ablations import plan as plans
from ablations import trials
from ablations.trials import Trial, check, expand
from operators import InputError


def test_of_trials_that_differ_in_the_learning_rate_alone_one_is_looked_at(
    node: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Trial] = []
    monkeypatch.setattr(trials, "_check_trial", lambda plan, trial: looks.append(trial))
    plan = plans.read({**node, "tuning": {"key": "optimizer.lr", "levels": [1e-3, 2e-3, 4e-3]}})
    check(plan, expand(plan, []))
    arms = [trial.arm for trial in looks if trial.tunes == 1e-3]
    assert len(arms) == len(set(arms)) == 5
    assert [(trial.arm, trial.tunes) for trial in looks if trial.tunes not in (1e-3, None)] == [
        (arms[0], 2e-3),
        (arms[0], 4e-3),
    ]
    assert sorted(trial.arm for trial in looks if trial.tunes is None) == sorted(arms)


def test_a_learning_rate_that_cannot_be_is_refused(node: dict[str, Any]) -> None:
    plan = plans.read({**node, "tuning": {"key": "optimizer.lr", "levels": [1e-3, -1.0]}})
    with pytest.raises(InputError, match=r"optimizer\.lr"):
        check(plan, expand(plan, []))
