"""What is said while a study runs, and when it has ended."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ablations.scheduling.entries import TrialEntry
from ablations.scheduling.forecast import time_left
from tasks.system.atomic_files import asides

OK, FAILED = 0, 1


class ProgressBar:
    """How many trials have ended, and how long the others may take: a bar, or lines where there is no terminal."""

    def __init__(self, name: str, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, TextColumn("{task.fields[left]}"), console=console)
        self._name, self._bar = name, self._progress.add_task(name, total=None, left="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, entries: Sequence[TrialEntry], *, changed: bool) -> None:
        """Say where the study stands; in lines, only where something has `changed`."""
        done, left = sum(entry.result is not None for entry in entries), time_left(entries)
        self._progress.update(self._bar, completed=done, total=len(entries), left=left)
        if changed and not self._progress.console.is_terminal:
            line = f"{self._name}: {done} of {len(entries)} trials  {left}"
            self._progress.console.print(line, highlight=False, markup=False)


def conclude(
    directory: Path,
    entries: Sequence[TrialEntry],
    troubles: Sequence[str],
    console: Console,
    report: Callable[[Path], Path],
) -> int:
    """Say how it went, and have the report written if all has ended."""

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, highlight=False, markup=False)

    for trouble in troubles:
        say(trouble)
    states = Counter(entry.state for entry in entries)
    for entry in entries:
        if entry.state == "failed" and entry.result:
            trial = entry.planned
            say(f"failed: {trial.block}, {trial.arm}, seed {trial.seed}: {entry.result['reason']}")
    say(f"{len(entries)} trials: {', '.join(f'{count} {state}' for state, count in sorted(states.items()))}")
    if kept := asides(directory):
        say(f"{len(kept)} kept of what could not be continued: {', '.join(map(str, kept))}")
    ended = not troubles and all(entry.result for entry in entries)
    say(f"report: {os.path.relpath(report(directory))}" if ended else "The same command goes on where it stands.")
    return OK if ended and not states["failed"] else FAILED
