"""Carrying out a study: the plan and the storage agree, an engine has workers, and the table says how far they are."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.console import Console

from ablations import plan as plans
from ablations.plan import Plan
from ablations.scheduling import engines, files, storage
from ablations.scheduling.engines import Engine
from ablations.scheduling.engines.process import Instructions
from ablations.scheduling.ledger import StudyLedger
from ablations.scheduling.progress import ProgressBar, conclude
from ablations.scheduling.request import Request
from ablations.scheduling.urls import shown
from ablations.trials import check, expand, refuse_other, sections
from operators.errors import InputError

LOOK = 5.0
"""Seconds between looks at the storage."""


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
        files.write_plan(directory, plan, request.given, shown(request.storage), ledger)
        ledger.enroll(expand(plan, request.given))
        troubles = _Crew(request, plan, ledger, console).carry_out()
        entries = ledger.entries()
    finally:
        storage.close(opened)
    files.write_table(directory, entries)
    return conclude(directory, entries, troubles, console, report)


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
                return self._watch(engine)
            except KeyboardInterrupt:
                return ["stopped"]
            finally:
                engine.stop()

    def _watch(self, engine: Engine) -> list[str]:
        known, looked = None, 0.0
        with ProgressBar(self._name, self._console) as progress:
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
                states = [entry.state for entry in entries]
                progress.show(entries, changed=states != known)
                if states != known:
                    known = states
                    files.write_table(self._request.directory, entries)
                if all(entry.result for entry in entries) or troubles or not busy:
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
