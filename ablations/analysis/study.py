"""A study's directory, read: the plan, and a record of each planned trial."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from ablations import plan as plans
from ablations.layout import COMPLETE, FACTOR, PARAMETER, PLAN, PLANNED, REQUIRED, STATES, TABLE, run_directory
from ablations.plan import FactorialBlock, Objective, Plan
from ablations.registration import document
from ablations.registration.document import Amendment, Document
from ablations.until import Look, read_looks
from operators.errors import InputError, check_choice
from tasks.config import userfiles
from tasks.system import results


@dataclass(frozen=True)
class Record:
    """A row of trials.csv. `run_dir` is None until the trial has one; `levels` are texts, as the table has them.

    `begun` is the time of its first attempt, in UTC.
    """

    number: int
    block: str
    arm: str
    seed: int
    state: str
    run_dir: Path | None
    seconds: float | None
    levels: Mapping[str, str]
    metrics: Mapping[str, float | str]
    begun: str | None = None

    def score(self, metric: str) -> float:
        """The metric of a trial that ended well; nan of any other, and where there is no such number."""
        value = self.metrics.get(metric, math.nan) if self.state == COMPLETE else math.nan
        return value if isinstance(value, float) else math.nan

    @cached_property
    def provenance(self) -> Mapping[str, Any] | None:
        """provenance.json of the run; None where there is none to be read."""
        if self.run_dir is None:
            return None
        try:
            content = json.loads(results.read(self.run_dir / "provenance.json") or "null")
        except (ValueError, RecursionError):
            return None
        return content if isinstance(content, dict) else None


@dataclass(frozen=True)
class BlockRecords:
    """A block of the plan with the records of its trials."""

    plan: FactorialBlock
    records: tuple[Record, ...]

    @property
    def arms(self) -> dict[str, list[Record]]:
        """Records of each arm, arms in the order of the plan."""
        arms: dict[str, list[Record]] = {}
        for record in self.records:
            arms.setdefault(record.arm, []).append(record)
        return arms

    def cell(self, record: Record) -> dict[str, str] | None:
        """Levels of all factors; None for an arm that stands outside the factorial."""
        levels = {factor.name: record.levels.get(factor.name, "") for factor in self.plan.factors}
        if not levels or not all(levels.values()):
            return None
        for factor in self.plan.factors:
            check_choice(f"factor {factor.name}", levels[factor.name], factor.labels)
        return levels

    @property
    def reference(self) -> str | None:
        """The arm that others are compared with; None where none of its trials is planned yet."""
        return next((record.arm for record in self.records if self.cell(record) == self.plan.reference), None)


@dataclass(frozen=True)
class Study:
    """A study's directory. `content` is the plan as its file has it, with what was noted beside it."""

    path: Path
    plan: Plan
    content: Mapping[str, Any]
    records: tuple[Record, ...]

    @property
    def objectives(self) -> tuple[Objective, ...]:
        return self.plan.objectives

    @cached_property
    def document(self) -> Document:
        """The plan's registration, and what was amended since.

        Raises:
            InputError: what `study.yaml` holds of both is damaged.
        """
        return document.read(self.content)

    @property
    def amendments(self) -> tuple[Amendment, ...]:
        """What was changed in the plan after its registration, in order of time; `Amendment.seeds` for looks again."""
        return self.document.amendments

    @cached_property
    def looks(self) -> tuple[Look, ...]:
        """What the study decided at each look, where its plan adds seeds `until` they are enough.

        Raises:
            InputError: the file that holds it is damaged.
        """
        return () if self.plan.until is None else read_looks(self.path)

    @property
    def looked(self) -> int:
        """The seeds of the last look; before the first one, those of the first."""
        return self.looks[-1].seeds if self.looks else self.plan.seeds

    @property
    def blocks(self) -> list[BlockRecords]:
        """The blocks of the plan; none of a search."""
        return [
            BlockRecords(block, tuple(record for record in self.records if record.block == block.name))
            for block in self.plan.blocks
        ]


def read(path: Path) -> Study:
    """Read `study.yaml` and `trials.csv`, complete or not.

    Raises:
        InputError: `path` is not the directory of a study, or one of both cannot be read.
    """
    texts = {name: results.read(path / name) for name in (PLAN, TABLE)}
    for name, text in texts.items():
        if text is None:
            raise InputError(f"{path} is not the directory of a study: it has no {name}")
    content = _content(path / PLAN, texts[PLAN] or "")
    try:
        plan = plans.read(_node(content))
    except InputError as error:
        raise InputError(f"{path / PLAN} is damaged, or no plan of a study: {error}") from error
    return Study(path, plan, content, records(path, texts[TABLE] or ""))


def _content(path: Path, text: str) -> Mapping[str, Any]:
    userfiles.check_text(str(path), text)
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path} is damaged, or no plan of a study: it must hold a mapping")
    return content


def _node(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the file holds of the plan itself.

    What searches vary of single mixers is left out: the report needs none of it, and a mixer may be gone since.
    """
    return {name: value for name, value in document.plan_node(content).items() if name != "mixer_space"}


def records(path: Path, text: str) -> tuple[Record, ...]:
    """The rows of the table `text`, of the study in the directory `path`.

    Raises:
        InputError: the text is no such table.
    """
    try:
        table = csv.DictReader(io.StringIO(text, newline=""))
        rows = list(table)
    except csv.Error as error:
        raise InputError(f"{path / TABLE} cannot be read: {error}") from error
    absent = [name for name in REQUIRED if name not in (table.fieldnames or ())]
    if absent:
        raise InputError(f"{path / TABLE} lacks the columns {', '.join(absent)}")
    trials = []
    for row in rows:
        try:
            if None in row or None in row.values():
                raise ValueError("the row has more or fewer entries than there are columns")
            trials.append(_record(path, row))
        except ValueError as error:
            raise InputError(f"{path / TABLE}, trial {row['number']}: {error}") from error
    return tuple(trials)


def _record(path: Path, row: Mapping[str, str]) -> Record:
    number = int(row["number"])
    rest = {key: text for key, text in row.items() if key not in PLANNED and text}
    levels = {key.partition("/")[2]: text for key, text in rest.items() if key.startswith((FACTOR, PARAMETER))}
    return Record(
        number=number,
        block=row["block"],
        arm=row["arm"],
        seed=int(row["seed"]),
        state=check_choice("state", row["state"], STATES),
        run_dir=_run_directory(path, number, row.get("run_dir") or ""),
        seconds=float(row["seconds"]) if row.get("seconds") else None,
        levels=levels,
        metrics={key: _value(text) for key, text in rest.items() if not key.startswith((FACTOR, PARAMETER))},
        begun=_time(row.get("begun") or ""),
    )


def _run_directory(path: Path, number: int, recorded: str) -> Path | None:
    """Where the run lies, also after the study's directory has been moved."""
    known = [path / recorded, Path(recorded)] if recorded else []
    return next((candidate for candidate in (*known, path / run_directory(number)) if candidate.is_dir()), None)


def _time(text: str) -> str | None:
    """A time as ISO 8601 has it; raises `ValueError` where it is none."""
    return datetime.fromisoformat(text).isoformat(timespec="milliseconds") if text else None


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
