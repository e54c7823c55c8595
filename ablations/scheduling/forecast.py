"""How long the rest of a study will take, from the trials that have ended."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from ablations.scheduling.entries import TrialEntry
from ablations.trials import MAIN, TUNING, Trial

RAN = ("complete", "diverged", "pruned")
"""States of trials whose time says something about others."""


class Forecast:
    """Expected seconds of trials, from those of `entries` that have ended with a result.

    A trial takes as long as those of the same arm and stage. Where there are none yet, a main trial takes as many times
    its arm's tuning as others do (arms differ by more than stages do), and else the mean of its stage.
    """

    def __init__(self, entries: Sequence[TrialEntry]) -> None:
        spent: dict[tuple[str, tuple[str, str]], list[float]] = {}
        for entry in entries:
            if entry.result and entry.result["state"] in RAN:
                key = entry.planned.stage, entry.planned.group
                spent.setdefault(key, []).append(float(entry.result["seconds"]))
        self._arms = {key: fmean(seconds) for key, seconds in spent.items()}
        stages = {stage for stage, _ in spent}
        self._stages = {
            stage: fmean(duration for (of, _), seconds in spent.items() if of == stage for duration in seconds)
            for stage in stages
        }
        both = [group for stage, group in spent if stage == MAIN and (TUNING, group) in spent]
        tuning = sum(self._arms[TUNING, group] for group in both)
        self._longer = sum(self._arms[MAIN, group] for group in both) / tuning if tuning else None

    def seconds(self, trial: Trial) -> float | None:
        """None as long as no trial of its stage has ended."""
        of_arm = self._arms.get((trial.stage, trial.group))
        if of_arm is None and trial.stage == MAIN and self._longer and (TUNING, trial.group) in self._arms:
            of_arm = self._longer * self._arms[TUNING, trial.group]
        return self._stages.get(trial.stage) if of_arm is None else of_arm


def time_left(entries: Sequence[TrialEntry]) -> str:
    """`0:05:00 left`, with as many workers as carry out a trial now; of tuning alone, where nothing else is known yet.

    What runs now counts half, and what may turn out to be needless not at all. Empty where nothing has ended yet, or
    all has.
    """
    forecast = Forecast(entries)
    pending = [e for e in entries if e.result is None and (e.running or e.planned.beyond is None)]
    expected = [(entry, forecast.seconds(entry.planned)) for entry in pending]
    known = [(entry, seconds) for entry, seconds in expected if seconds is not None]
    if not known:
        return ""
    workers = sum(bool(entry.running) for entry in pending) or 1
    total = sum(seconds / 2 if entry.running else seconds for entry, seconds in known) / workers
    minutes, rest = divmod(round(total), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} left{' of tuning' if len(known) < len(pending) else ''}"
