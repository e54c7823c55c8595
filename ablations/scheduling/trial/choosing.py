"""What is known of a trial only when it starts: the level that tuning has chosen, or what a sampler proposes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ablations.plan import Plan
from ablations.scheduling.entries import TrialEntry
from ablations.scheduling.ledger import Claim, StudyLedger
from ablations.scheduling.storage import guard
from ablations.scheduling.trial import samplers
from ablations.trials import MAIN, TUNING, Trial, carried_out, literal, merge, search_space
from tasks.config.composition import compose


@dataclass
class Choice:
    """Overrides of run.py for the trial, what the table says of them, and what may end its run early."""

    overrides: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    pruning: samplers.Pruning | None = None


def ready(plan: Plan, trial: Trial, entries: Sequence[TrialEntry]) -> bool:
    """Whether the trials that decide over this one have ended."""
    first = plan.tuning is None or (trial.stage == TUNING and trial.beyond is None)
    return first or best_level(plan, trial, entries) is not None


def choose(plan: Plan, ledger: StudyLedger, claim: Claim) -> Choice | None:
    """What the claimed trial runs with; None if the results of others have made it needless.

    Raises:
        StorageError: the storage has failed.
    """
    trial = claim.planned
    facts = {"tuned": trial.stage == MAIN and plan.tuning is not None}
    choice = Choice(merge(carried_out(trial), [f"seed={trial.seed}"]), facts)
    if trial.beyond is not None and best_level(plan, trial, ledger.entries()) != trial.beyond:
        return None
    if plan.searches:
        proposed = ledger.trial(claim, samplers.sampler(plan, trial), samplers.pruner(plan))
        with guard(ledger.url):
            params = samplers.suggest(proposed, search_space(plan, compose(choice.overrides)))
        choice.overrides = merge(choice.overrides, [f"{key}={literal(value)}" for key, value in params.items()])
        choice.facts["params"] = params
        choice.pruning = None if plan.pruner == "none" else samplers.Pruning(proposed, plan.select)
    elif choice.facts["tuned"]:
        assert plan.tuning is not None
        best = best_level(plan, trial, ledger.entries())
        choice.overrides = merge(choice.overrides, [f"{plan.tuning.key}={literal(best)}"])
    return choice


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
