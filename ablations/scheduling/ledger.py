"""The book of a study's trials in an Optuna storage, which any number of processes and machines keep together.

Each planned trial is an Optuna trial that waits until one worker takes it. A worker that has taken it holds a lock on a
file, which its machine lets go of when the process dies, and counts up a beat in the storage, for other machines. An
attempt whose lock is free, or whose beat stands still, is closed and the trial waits again.

Optuna's own heartbeats are not used: journals have none, and they compare the clocks of machines.
"""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from ablations.layout import FAILED, RESULTS
from ablations.plan import Objective
from ablations.scheduling.lock import try_lock
from ablations.scheduling.optuna_private import storage_id
from ablations.scheduling.storage import guard
from ablations.trials import SEARCH, Trial
from operators.errors import InputError

LOST, RELEASED, DUPLICATE = "lost", "released", "duplicate"
"""How attempts end that leave the trial without a result."""
BEAT = 15.0
"""Seconds between beats."""
GRACE = 120.0
"""Seconds without a beat after which another machine's attempt counts as dead."""
LIMIT = 3
"""Attempts in a row that may die before the trial counts as failed."""

_PLANNED, _RESULT, _BEAT, _HOST, _WORKER, _SECTIONS = "planned", "result", "beat", "host", "worker", "sections"


@dataclass(frozen=True)
class TrialEntry:
    """A planned trial and its attempts, in order of their creation."""

    planned: Trial
    attempts: tuple[FrozenTrial, ...]

    @property
    def running(self) -> list[FrozenTrial]:
        return [one for one in self.attempts if one.state is TrialState.RUNNING]

    @property
    def waiting(self) -> list[FrozenTrial]:
        return [one for one in self.attempts if one.state is TrialState.WAITING]

    @property
    def result(self) -> Mapping[str, Any] | None:
        """What came out: `state`, `metrics`, `seconds`, `reason` and more; None as long as nothing has."""
        results = [_result(one) for one in self.attempts]
        good = [one for one in results if one.get("state") in RESULTS]
        if good:
            return good[0]
        failed = [one for one in results if one.get("state") == FAILED]
        return failed[-1] if failed and not self.running and not self.waiting else None

    @property
    def state(self) -> str:
        """`complete`, `diverged`, `pruned`, `skipped`, `failed`, `running` or `waiting`."""
        result = self.result
        return str(result["state"]) if result else "running" if self.running else "waiting"

    @property
    def started(self) -> int:
        """How often it was begun."""
        begun = [one for one in self.attempts if one.state is not TrialState.WAITING]
        return sum(_result(one).get("state") != DUPLICATE for one in begun)


@dataclass
class Claim:
    """An attempt that this process carries out; `lock` is held until it is given back."""

    planned: Trial
    attempt: FrozenTrial
    lock: FileLock


class StudyLedger:
    """See the module.

    Args:
        storage: as `ablations.scheduling.storage.open_storage` gives it.
        url: for messages.
        name: of the study in the storage.
        locks: folder of the lock files.
        worker: who takes trials; whoever has the same name later knows that this one is dead.
    """

    def __init__(self, storage: BaseStorage, url: str, name: str, locks: Path, worker: str = "") -> None:
        self.url, self.name, self._storage, self._worker = url, name, storage, worker
        self._locks = Path(os.path.realpath(locks))
        self._host = f"{socket.gethostname()} {_boot()} {self._locks}"
        self._seen: dict[int, tuple[int, float]] = {}
        with guard(url):
            self.study = optuna.load_study(study_name=name, storage=storage)

    @classmethod
    def join(
        cls,
        storage: BaseStorage,
        url: str,
        name: str,
        locks: Path,
        *,
        sections: Mapping[str, str],
        objectives: Sequence[Objective],
    ) -> StudyLedger:
        """Open the study, or create it.

        Raises:
            InputError: it is there, with another design.
        """
        with guard(url):
            try:
                directions = [StudyDirection[one.direction.upper()] for one in objectives]
                study = optuna.create_study(study_name=name, storage=storage, directions=directions)
                study.set_user_attr(_SECTIONS, dict(sections))
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ExperimentalWarning)
                    study.set_metric_names([one.metric for one in objectives])  # for optuna-dashboard
            except DuplicatedStudyError:
                study = optuna.load_study(study_name=name, storage=storage)
            recorded = study.user_attrs.get(_SECTIONS)
            for _ in range(20):  # its creator may be about to say what it is
                if recorded is not None:
                    break
                time.sleep(0.25)
                recorded = study.user_attrs.get(_SECTIONS)
        refuse_other(f"study {name!r}", recorded or {}, sections)
        return cls(storage, url, name, locks)

    def enroll(self, trials: Sequence[Trial]) -> None:
        """Add those of the planned `trials` that are not in the book, and let those that failed wait again."""
        known = {entry.planned.number: entry for entry in self.entries()}
        labels: dict[str, list[str]] = {}
        for trial in trials:
            for name, level in _params(trial).items():
                if level not in labels.setdefault(name, []):
                    labels[name].append(level)
        spaces: dict[str, BaseDistribution] = {name: CategoricalDistribution(of) for name, of in labels.items()}
        for trial in trials:
            entry = known.get(trial.number)
            if entry is None:
                self._add(trial, {name: spaces[name] for name in _params(trial)})
            elif entry.state == FAILED:
                self._again(entry)

    def entries(self) -> list[TrialEntry]:
        """All planned trials, in their order."""
        found: dict[int, list[FrozenTrial]] = {}
        with guard(self.url):
            trials = self.study.get_trials(deepcopy=False)
        for one in sorted(trials, key=lambda trial: trial.number):
            if _PLANNED in one.user_attrs:
                found.setdefault(one.user_attrs[_PLANNED]["number"], []).append(one)
        return [TrialEntry(_planned(found[number][0]), tuple(found[number])) for number in sorted(found)]

    def mend(self) -> None:
        """Close attempts whose process is dead, and let their trials wait again."""
        entries = self.entries()
        for entry in entries:
            for attempt in entry.running:
                if self._dead(entry.planned, attempt):
                    self._bury(entry, attempt)
        if any(entry.running or not entry.waiting for entry in entries if entry.result is None):
            for entry in self.entries():
                if entry.result is None and not entry.running and not entry.waiting:
                    self._again(entry)

    def claim(self, ready: Callable[[Trial, Sequence[TrialEntry]], bool]) -> Claim | None:
        """Take the first trial that waits and is `ready`; None if there is none."""
        entries = self.entries()
        for entry in entries:
            if entry.result is not None or entry.running:
                for spare in entry.waiting:  # two machines let the trial wait again at the same moment
                    if self._take(spare):
                        self._close(spare, TrialState.FAIL, {"state": DUPLICATE})
                continue
            if not entry.waiting or not ready(entry.planned, entries):
                continue
            lock = try_lock(self._lock_file(entry.planned))
            if lock is None:
                continue
            attempt = entry.waiting[0]
            if self._take(attempt):
                with guard(self.url):
                    self._storage.set_trial_user_attr(storage_id(attempt), _HOST, self._host)
                    self._storage.set_trial_user_attr(storage_id(attempt), _WORKER, self._worker)
                return Claim(entry.planned, attempt, lock)
            lock.release()
        return None

    def trial(self, claim: Claim, sampler: optuna.samplers.BaseSampler, pruner: optuna.pruners.BasePruner) -> Any:
        """The Optuna trial of a search, to be asked for parameters."""
        with guard(self.url):
            study = optuna.load_study(study_name=self.name, storage=self._storage, sampler=sampler, pruner=pruner)
            return optuna.trial.Trial(study, storage_id(claim.attempt))

    def beat(self, claim: Claim, count: int) -> bool:
        """Say that the attempt is alive; False if it has been taken away meanwhile."""
        try:
            with guard(self.url):
                self._storage.set_trial_user_attr(storage_id(claim.attempt), _BEAT, count)
        except UpdateFinishedTrialError:
            return False
        return True

    def finish(self, claim: Claim, result: Mapping[str, Any], values: Sequence[float] | None = None) -> None:
        """Enter what came out. `values` are those of the objectives, for a complete trial."""
        single = len(self.study.directions) == 1
        state = TrialState.FAIL
        if values is not None:
            state = TrialState.COMPLETE
        elif single and result["state"] in RESULTS:
            state = TrialState.PRUNED  # Optuna's word for what has ended well and has no value of the objective
        self._close(claim.attempt, state, result, values)
        claim.lock.release()

    def release(self, claim: Claim) -> None:
        """Give the trial back, to be continued later."""
        self._close(claim.attempt, TrialState.FAIL, {"state": RELEASED})
        self._again(TrialEntry(claim.planned, (claim.attempt,)))
        claim.lock.release()

    def _take(self, attempt: FrozenTrial) -> bool:
        try:
            with guard(self.url):
                return self._storage.set_trial_state_values(storage_id(attempt), TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False

    def _close(
        self,
        attempt: FrozenTrial,
        state: TrialState,
        result: Mapping[str, Any],
        values: Sequence[float] | None = None,
    ) -> None:
        try:
            with guard(self.url):
                self._storage.set_trial_user_attr(storage_id(attempt), _RESULT, dict(result))
                self._storage.set_trial_state_values(storage_id(attempt), state, values)
        except UpdateFinishedTrialError:
            return  # another process thought this one dead, and its attempt is the one that counts

    def _add(self, planned: Trial, spaces: Mapping[str, BaseDistribution]) -> None:
        attrs = {_PLANNED: asdict(planned)}
        with guard(self.url):
            if planned.stage == SEARCH:
                self.study.enqueue_trial({}, user_attrs=attrs)
                return
            self.study.add_trial(
                create_trial(
                    state=TrialState.WAITING, params=_params(planned), distributions=dict(spaces), user_attrs=attrs
                )
            )

    def _again(self, entry: TrialEntry) -> None:
        """Let a trial wait once more, a search's with the parameters that were proposed."""
        planned = entry.planned
        with guard(self.url):
            trials = {one.number: one for one in self.study.get_trials(deepcopy=False)}
        latest = trials[entry.attempts[-1].number]
        if planned.stage == SEARCH:
            fixed = latest.params or latest.system_attrs.get("fixed_params", {})
            with guard(self.url):
                self.study.enqueue_trial(fixed, user_attrs={_PLANNED: asdict(planned)})
        else:
            self._add(planned, latest.distributions)

    def _bury(self, entry: TrialEntry, attempt: FrozenTrial) -> None:
        in_a_row = 1
        for one in reversed([one for one in entry.attempts if one.number < attempt.number]):
            if _result(one).get("state") != LOST:
                break
            in_a_row += 1
        result: dict[str, Any] = {"state": LOST}
        if in_a_row >= LIMIT:
            result = {"state": FAILED, "reason": f"its process died {in_a_row} times, perhaps for lack of memory"}
        self._close(attempt, TrialState.FAIL, result)

    def _dead(self, planned: Trial, attempt: FrozenTrial) -> bool:
        if attempt.user_attrs.get(_HOST) == self._host:
            lock = try_lock(self._lock_file(planned))
            if lock is not None:
                lock.release()
            return lock is not None
        if self._worker and attempt.user_attrs.get(_WORKER) == self._worker:
            return True
        beat, now = attempt.user_attrs.get(_BEAT, 0), time.monotonic()
        last, since = self._seen.setdefault(attempt.number, (beat, now))
        if last != beat:
            self._seen[attempt.number] = (beat, now)
            return False
        return now - since > GRACE

    def _lock_file(self, planned: Trial) -> Path:
        return self._locks / f"{planned.number:05d}.lock"


def refuse_other(what: str, recorded: Mapping[str, str], sections: Mapping[str, str]) -> None:
    """Raise `InputError` unless the recorded design is the one of `sections`."""
    differing = sorted(name for name in {*recorded, *sections} if recorded.get(name) != sections.get(name))
    if differing:
        raise InputError(
            f"{what} exists with another design (other {', '.join(differing)}) and is left as it is: "
            "choose another study.dir=DIR and study.name=NAME, or repeat its command"
        )


def _planned(trial: FrozenTrial) -> Trial:
    recorded = dict(trial.user_attrs[_PLANNED])
    return Trial(**{**recorded, "overrides": tuple(recorded["overrides"])})


def _params(planned: Trial) -> dict[str, str]:
    """As Optuna shows them; with the block in its name, a factor may have other levels in another block."""
    return {f"{planned.block}/{name}": level for name, level in planned.factors.items()}


def _result(trial: FrozenTrial) -> Mapping[str, Any]:
    return trial.user_attrs.get(_RESULT, {}) if trial.state.is_finished() else {}


def _boot() -> str:
    """What tells this start of this machine from others, where the system says."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
