from __future__ import annotations

from dataclasses import replace

import pytest
from optuna.trial import TrialState, create_trial

from ablations.scheduling.entries import TrialEntry
from ablations.scheduling.forecast import Forecast, time_left
from ablations.trials import MAIN, SEARCH, TUNING, Trial


def entry(
    stage: str, arm: str, seconds: float | None = None, *, state: str = "complete", running: bool = False
) -> TrialEntry:
    """A trial that has ended after `seconds`, or runs, or waits."""
    block = "tuning of b" if stage == TUNING else "b"
    planned = Trial(0, stage, block, arm, 0)
    if state == "lost for good":  # buried by another worker, which does not know how long it took
        result: dict[str, object] = {"state": "failed", "reason": "its process died 3 times"}
        return TrialEntry(planned, (create_trial(state=TrialState.FAIL, user_attrs={"result": result}),))
    if seconds is None:
        return TrialEntry(planned, (create_trial(state=TrialState.RUNNING if running else TrialState.WAITING),))
    result = {"state": state, "seconds": seconds}
    ended = TrialState.FAIL if state == "failed" else TrialState.COMPLETE
    value = None if state == "failed" else 0.0
    return TrialEntry(planned, (create_trial(state=ended, value=value, user_attrs={"result": result}),))


def test_nothing_known_nothing_said() -> None:
    waiting = [entry(MAIN, "a"), entry(MAIN, "a", running=True)]
    assert time_left(waiting) == ""
    assert time_left([*waiting, entry(MAIN, "a", 0.5, state="failed"), entry(MAIN, "a", state="lost for good")]) == ""
    assert time_left([entry(MAIN, "a", 5.0)]) == ""


def test_each_arm_takes_its_own_time() -> None:
    done = [entry(MAIN, "fast", 10.0), entry(MAIN, "fast", 14.0), entry(MAIN, "slow", 100.0)]
    assert time_left([*done, entry(MAIN, "fast"), entry(MAIN, "slow")]) == "0:01:52 left"
    assert time_left([*done, *[entry(MAIN, "slow")] * 40]) == "1:06:40 left"
    # An arm that is not known takes as long as the others: (10 + 14 + 100) / 3.
    assert time_left([*done, entry(MAIN, "new")]) == "0:00:41 left"


def test_workers_share_what_is_left() -> None:
    done = [entry(SEARCH, "a", 60.0)]
    left = [entry(SEARCH, "a", running=True), entry(SEARCH, "a", running=True), entry(SEARCH, "a")]
    assert time_left([*done, *left]) == "0:01:00 left"  # (30 + 30 + 60) / 2


def test_what_may_turn_out_to_be_needless_is_not_counted() -> None:
    done = [entry(TUNING, "a", 10.0), entry(TUNING, "a", 0.0, state="skipped")]
    beyond = TrialEntry(replace(done[0].planned, beyond=0.1), entry(TUNING, "a").attempts)
    assert time_left([*done, entry(TUNING, "a"), beyond]) == "0:00:10 left"


def test_main_trials_are_told_by_the_tuning_of_their_arm() -> None:
    tuning = [entry(TUNING, "fast", 10.0), entry(TUNING, "fast", 10.0), entry(TUNING, "slow", 40.0)]
    mains = [entry(MAIN, "fast"), entry(MAIN, "slow")]
    assert time_left([*tuning, entry(TUNING, "slow"), *mains]) == "0:00:40 left of tuning"
    ended = [*tuning, entry(MAIN, "fast", 80.0)]
    assert Forecast([*ended, *mains]).seconds(mains[1].planned) == pytest.approx(320.0)
    assert time_left([*ended, *mains]) == "0:06:40 left"
