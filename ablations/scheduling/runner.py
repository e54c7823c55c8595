"""Carrying out a study: workers, progress, and the report at the end."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ablations import plan as plans
from ablations.plan import Plan
from ablations.scheduling import engines, files, storage
from ablations.scheduling.engines import Engine
from ablations.scheduling.engines.process import Instructions
from ablations.scheduling.engines.settings import EngineSettings
from ablations.scheduling.forecast import time_left
from ablations.scheduling.ledger import StudyLedger, TrialEntry, refuse_other
from ablations.trials import check, expand, sections
from operators.errors import InputError
from tasks.system.atomic_files import asides

OK, FAILED = 0, 1
LOOK = 5.0
"""Seconds between looks at the storage."""


@dataclass(frozen=True)
class Request:
    """A study as the command line asks for it: `node` is its YAML in plain containers, `given` overrides of run.py."""

    node: Mapping[str, Any]
    given: tuple[str, ...]
    directory: Path
    storage: str
    engine: EngineSettings

    @property
    def locks(self) -> Path:
        """Beside an SQLite file, which several directories may share; else in the study's directory."""
        if self.storage.startswith("sqlite:///"):
            file = Path(self.storage.removeprefix("sqlite:///") or "study.db")
            return file.with_name(f"{file.name}.locks")
        return self.directory / "locks"


def run(request: Request, report: Callable[[Path], Path]) -> int:
    """Carry out what is left of a study, and let `report` say where the report of its directory lies.

    Returns:
        exit status: 0 if every trial has a result, 1 if one failed or it was stopped.

    Raises:
        InputError: a plan that cannot be carried out, or a study that is there already with another design.
        StorageError: the storage does not answer.
    """
    console = Console(stderr=True)
    directory, node = request.directory, dict(request.node)
    plan = plans.read(node)
    design = sections(plan, request.given)
    with files.writable(directory):
        recorded = files.recorded_sections(directory)
        if recorded is None:
            check(plan, expand(plan, request.given))
        else:
            refuse_other(str(directory), recorded, design)
    try:
        opened = storage.open_storage(request.storage)
    except storage.StorageError as error:
        raise InputError(str(error)) from error
    try:
        ledger = StudyLedger.join(
            opened, request.storage, plan.name, request.locks, sections=design, objectives=plan.objectives
        )
        with storage.guard(request.storage):
            plan = _agree(ledger, plan)
        files.write_plan(directory, plan, request.given, storage.shown(request.storage), ledger)
        ledger.enroll(expand(plan, request.given))
        troubles = _Crew(request, plan, ledger, console).carry_out()
        entries = ledger.entries()
    finally:
        storage.close(opened)
    files.write_table(directory, entries)
    return conclude(directory, entries, troubles, console, report)


def conclude(
    directory: Path,
    entries: Sequence[TrialEntry],
    troubles: Sequence[str],
    console: Console,
    report: Callable[[Path], Path],
) -> int:
    """Say how it went, and have the report written if all has ended."""
    for trouble in troubles:
        console.print(trouble, soft_wrap=True, highlight=False, markup=False)
    states = Counter(entry.state for entry in entries)
    for entry in entries:
        if entry.state == "failed" and entry.result:
            trial = entry.planned
            line = f"failed: {trial.block}, {trial.arm}, seed {trial.seed}: {entry.result['reason']}"
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    said = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    console.print(f"{len(entries)} trials: {said}", highlight=False)
    if kept := asides(directory):
        line = f"{len(kept)} kept of what could not be continued: {', '.join(map(str, kept))}"
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    ended = not troubles and all(entry.result for entry in entries)
    if ended:
        console.print(f"report: {os.path.relpath(report(directory))}", soft_wrap=True, highlight=False, markup=False)
    else:
        console.print("The same command goes on where it stands.", highlight=False)
    return OK if ended and not states["failed"] else FAILED


def _agree(ledger: StudyLedger, plan: Plan) -> Plan:
    """Whoever asks for the most seeds, or trials, decides for all."""
    size = "trials" if plan.searches else "seeds"
    most = max(int(ledger.study.user_attrs.get(size, 0)), getattr(plan, size))
    ledger.study.set_user_attr(size, most)
    return replace(plan, **{size: most})


class _Crew:
    """The workers that this call has, and what is seen of them."""

    def __init__(self, request: Request, plan: Plan, ledger: StudyLedger, console: Console) -> None:
        self._request, self._ledger, self._console = request, ledger, console
        self._name = plan.name
        task = {
            "directory": str(request.directory),
            "storage": request.storage,
            "locks": str(request.locks),
            "name": plan.name,
            "plan": request.node,
        }
        self._instructions = Instructions(task, uuid4().hex, request.directory / "logs")

    def carry_out(self) -> list[str]:
        """Run workers until all trials have ended; what stood in the way, a line each."""
        entries = self._ledger.entries()
        files.write_table(self._request.directory, entries)
        if all(entry.result for entry in entries):
            return []
        engine = engines.create(self._request.engine, self._instructions)
        with _stoppable():
            try:
                engine.start(range(self._request.engine.workers))
                troubles = self._watch(engine, entries)
            except KeyboardInterrupt:
                troubles = ["stopped"]
            finally:
                engine.stop()
        return troubles

    def _watch(self, engine: Engine, entries: list[TrialEntry]) -> list[str]:
        known = [entry.state for entry in entries]
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TextColumn("{task.fields[left]}"), console=self._console) as progress:
            bar = progress.add_task(self._name, total=len(entries), completed=_ended(entries), left=time_left(entries))
            looked = time.monotonic()
            while True:
                busy, troubles = self._tend(engine)
                if time.monotonic() - looked < LOOK and busy and not troubles:
                    time.sleep(0.2)
                    continue
                looked = time.monotonic()
                try:
                    entries = self._ledger.entries()
                except storage.StorageError:
                    if not busy:
                        raise
                    continue  # the workers are patient too, and the first that gives up says why
                done, left = _ended(entries), time_left(entries)
                progress.update(bar, completed=done, total=len(entries), left=left)
                states = [entry.state for entry in entries]
                if states != known:
                    known = states
                    files.write_table(self._request.directory, entries)
                    if not self._console.is_terminal:
                        line = f"{self._name}: {done} of {len(entries)} trials  {left}"
                        self._console.print(line, highlight=False, markup=False)
                if done == len(entries) or troubles or not busy:
                    return troubles

    def _tend(self, engine: Engine) -> tuple[bool, list[str]]:
        """Replace workers that died; whether any is at work, and why others gave up."""
        endings = {place: engine.ending(place) for place in range(self._request.engine.workers)}
        died = [place for place, ending in endings.items() if ending and ending.status < 0]
        if died:
            engine.start(died)
        busy = bool(died) or None in endings.values()
        return busy, [ending.words for ending in endings.values() if ending and ending.status > 0]


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM stops as Ctrl-C does."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _ended(entries: Sequence[TrialEntry]) -> int:
    return sum(entry.result is not None for entry in entries)
