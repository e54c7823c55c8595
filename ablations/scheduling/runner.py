"""Carrying out a study: its plan, what its storage knows, its workers, and the report at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ablations import plan as plans
from ablations.plan import Plan
from ablations.scheduling import files, storage
from ablations.scheduling.crew import Looking, carry_out
from ablations.scheduling.ledger import StudyLedger
from ablations.scheduling.progress import conclude
from ablations.scheduling.request import Request
from ablations.scheduling.urls import shown
from ablations.trials import check, expand, refuse_other, sections
from operators.errors import InputError


def run(request: Request, report: Callable[[Path], Path], look: Looking) -> int:
    """Carry out what is left of a study, and let `report` say where the report of its directory lies.

    `look` judges the first seeds of a study that adds seeds `until` they are enough.

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
        troubles = carry_out(request, plan, ledger, console, look)
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
