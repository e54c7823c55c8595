"""The planned trials of a study as Optuna's trials tell of them: what was tried, and what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from ablations.layout import FAILED, RESULTS
from ablations.trials import Trial

LOST, RELEASED, DUPLICATE = "lost", "released", "duplicate"
"""How attempts end that leave the trial without a result."""
PLANNED, RESULT = "planned", "result"
"""Attributes of an attempt."""


@dataclass(frozen=True)
class TrialEntry:
    """A planned trial and its attempts, in order of their creation."""

    planned: Trial
    attempts: tuple[FrozenTrial, ...]

    @property
    def running(self) -> list[FrozenTrial]:
        return [attempt for attempt in self.attempts if attempt.state is TrialState.RUNNING]

    @property
    def waiting(self) -> list[FrozenTrial]:
        return [attempt for attempt in self.attempts if attempt.state is TrialState.WAITING]

    @property
    def result(self) -> Mapping[str, Any] | None:
        """What came out: `state`, `metrics`, `seconds`, `reason` and more; None as long as nothing has."""
        results = [result_of(attempt) for attempt in self.attempts]
        good = [result for result in results if result.get("state") in RESULTS]
        if good:
            return good[0]
        failed = [result for result in results if result.get("state") == FAILED]
        return failed[-1] if failed and not self.running and not self.waiting else None

    @property
    def state(self) -> str:
        """`complete`, `diverged`, `pruned`, `skipped`, `failed`, `running` or `waiting`."""
        result = self.result
        return str(result["state"]) if result else "running" if self.running else "waiting"

    @property
    def started(self) -> int:
        """How often it was begun."""
        begun = [attempt for attempt in self.attempts if attempt.state is not TrialState.WAITING]
        return sum(result_of(attempt).get("state") != DUPLICATE for attempt in begun)

    def deaths(self, attempt: FrozenTrial) -> int:
        """How many attempts in a row were lost, if the running `attempt` is."""
        count = 1
        for earlier in reversed([other for other in self.attempts if other.number < attempt.number]):
            if result_of(earlier).get("state") != LOST:
                break
            count += 1
        return count


def read(attempts: Sequence[FrozenTrial]) -> list[TrialEntry]:
    """The planned trials of a study whose Optuna trials are `attempts`, in their order."""
    by_number: dict[int, list[FrozenTrial]] = {}
    for attempt in sorted(attempts, key=lambda attempt: attempt.number):
        if PLANNED in attempt.user_attrs:
            by_number.setdefault(attempt.user_attrs[PLANNED]["number"], []).append(attempt)
    return [TrialEntry(_planned(by_number[number][0]), tuple(by_number[number])) for number in sorted(by_number)]


def attributes(planned: Trial) -> dict[str, Any]:
    """Those of an Optuna trial that is an attempt at `planned`."""
    return {PLANNED: asdict(planned)}


def result_of(attempt: FrozenTrial) -> Mapping[str, Any]:
    """What came out of an attempt; empty as long as it has not ended."""
    return attempt.user_attrs.get(RESULT, {}) if attempt.state.is_finished() else {}


def _planned(attempt: FrozenTrial) -> Trial:
    recorded = dict(attempt.user_attrs[PLANNED])
    return Trial(**{**recorded, "overrides": tuple(recorded["overrides"])})
