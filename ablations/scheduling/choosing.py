"""The level that tuning chooses for an arm, from the trials that have ended."""

from __future__ import annotations

from collections.abc import Sequence

from ablations.plan import Plan
from ablations.scheduling.ledger import TrialEntry
from ablations.trials import TUNING, Trial


def best_level(plan: Plan, trial: Trial, entries: Sequence[TrialEntry]) -> float | None:
    """The level with the best score on validation for the trial's arm and seed; None as long as a score is missing.

    With `once` of the plan's tuning, the same for all seeds. For a trial that tunes, of the levels before it. Between
    equals, and where no level ended well, the lowest.
    """
    assert plan.tuning is not None
    tuning = [entry for entry in entries if entry.planned.stage == TUNING and entry.planned.group == trial.group]
    if not plan.tuning.once:
        tuning = [entry for entry in tuning if entry.planned.seed == trial.seed]
    if trial.stage == TUNING:
        tuning = [entry for entry in tuning if entry.planned.number < trial.number]
    if any(entry.result is None for entry in tuning):
        return None
    sign = plan.select.sign

    def rank(entry: TrialEntry) -> tuple[float, float]:
        assert entry.result is not None
        assert entry.planned.tunes is not None
        score: float | None = (entry.result.get("metrics") or {}).get(plan.select.metric)
        if entry.result["state"] != "complete" or score is None:
            return -float("inf"), -entry.planned.tunes
        return sign * score, -entry.planned.tunes

    return max(tuning, key=rank).planned.tunes
