"""A study's directory, read: the plan, and one record per planned trial."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from operators.errors import InputError, check_choice, check_names
from tasks.config import userfiles
from tasks.system import results

STATES = ("complete", "diverged", "failed", "pruned", "skipped", "running", "waiting")
ENDED = ("complete", "diverged", "failed", "pruned", "skipped")
KINDS = ("factorial", "tune", "pareto")
DIRECTIONS = ("maximize", "minimize")
PLANNED = ("number", "block", "arm", "seed", "state", "run_dir", "attempts", "seconds")
"""Columns of trials.csv that say what a trial is; those after them are levels and the keys of its metrics.json."""

REQUIRED = ("number", "block", "arm", "seed", "state")
LEVEL_COLUMNS = ("factor/", "param/")


@dataclass(frozen=True)
class Objective:
    """A key of metrics.json and which way is better."""

    metric: str
    direction: str = "maximize"

    def __post_init__(self) -> None:
        check_choice("direction", self.direction, DIRECTIONS)

    @property
    def sign(self) -> int:
        """+1 if more is better, else -1."""
        return 1 if self.direction == "maximize" else -1


@dataclass(frozen=True)
class Trial:
    """A row of trials.csv. `run_dir` is None until the trial has one; `levels` are texts, as the table has them."""

    number: int
    block: str
    arm: str
    seed: int
    state: str
    run_dir: Path | None
    seconds: float | None
    levels: Mapping[str, str]
    metrics: Mapping[str, float | str]

    def score(self, metric: str) -> float:
        """The metric of a trial that ended well; nan of any other, and where there is no such number."""
        value = self.metrics.get(metric, math.nan) if self.state == "complete" else math.nan
        return value if isinstance(value, float) else math.nan

    @cached_property
    def provenance(self) -> Mapping[str, Any] | None:
        """provenance.json of the run; None where there is none to be read."""
        if self.run_dir is None:
            return None
        try:
            found = json.loads(results.read(self.run_dir / "provenance.json") or "null")
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None


@dataclass(frozen=True)
class Factor:
    """A factor and its levels, in order, as the report names them."""

    name: str
    levels: tuple[str, ...]
    spellings: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, name: str, plan: Mapping[str, Any]) -> Factor:
        """From the plan's node of the factor: labels name the levels where they are given."""
        values = list(plan["levels"])
        named = plan.get("labels")
        if isinstance(named, Mapping):
            by_text = {str(value): label for value, label in named.items()}
            named = [by_text.get(str(value)) for value in values]
        labels = [spell(value) if label is None else _label(label) for value, label in _paired(values, named)]
        spellings = {label: label for label in labels}
        for value, label in zip(values, labels, strict=True):
            for spelling in (str(value), spell(value), json.dumps(value), json.dumps(value, separators=(",", ":"))):
                spellings.setdefault(spelling, label)
        return cls(name, tuple(labels), spellings)

    def level(self, text: Any) -> str:
        """The level that a cell of trials.csv, or a value of the plan, means."""
        return self.spellings[check_choice(f"factor {self.name}", spell(text), self.spellings)]


@dataclass(frozen=True)
class Block:
    """A block of the plan with its trials. `reference` is the arm that others are compared with."""

    name: str
    plan: Mapping[str, Any]
    factors: tuple[Factor, ...]
    trials: tuple[Trial, ...]

    @property
    def arms(self) -> dict[str, list[Trial]]:
        """Trials of each arm, arms in the order of the plan."""
        found: dict[str, list[Trial]] = {}
        for trial in self.trials:
            found.setdefault(trial.arm, []).append(trial)
        return found

    def cell(self, trial: Trial) -> dict[str, str] | None:
        """Levels of all factors; None for an arm that stands outside the factorial."""
        texts = {factor.name: trial.levels.get(factor.name, "") for factor in self.factors}
        if not texts or not all(texts.values()):
            return None
        return {factor.name: factor.level(texts[factor.name]) for factor in self.factors}

    @property
    def controls(self) -> list[str]:
        """Factors that were declared to have no effect, before any data."""
        return [str(name) for name in self.plan.get("negative_controls") or []]

    @property
    def reference(self) -> str | None:
        """The arm named by the plan, else the one with the first level of every factor, else None."""
        asked = self.plan.get("reference")
        if isinstance(asked, str):
            return check_choice("reference", asked, self.arms)
        factors = {factor.name: factor for factor in self.factors}
        wanted = {name: factor.levels[0] for name, factor in factors.items()}
        for name, level in (asked or {}).items():
            check_names("reference", [str(name)], factors)
            wanted[str(name)] = factors[str(name)].level(level)
        return next((trial.arm for trial in self.trials if wanted and self.cell(trial) == wanted), None)


@dataclass(frozen=True)
class Study:
    """A study's directory."""

    path: Path
    plan: Mapping[str, Any]
    trials: tuple[Trial, ...]

    @property
    def kind(self) -> str:
        return check_choice("kind", str(self.plan.get("kind") or "factorial"), KINDS)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        found = [Objective(str(one["metric"]), str(one.get("direction") or "maximize")) for one in self._objectives]
        if not found:
            raise InputError(f"{self.path / 'study.yaml'} has no objectives: one metric at least is needed")
        return tuple(found)

    @property
    def _objectives(self) -> Sequence[Mapping[str, Any]]:
        return self.plan.get("objectives") or []

    @property
    def blocks(self) -> list[Block]:
        """The blocks of the plan; of a study without, one that holds every trial."""
        planned = self.plan.get("blocks") or [{"name": name} for name in dict.fromkeys(t.block for t in self.trials)]
        blocks = []
        for plan in planned:
            factors = tuple(Factor.of(name, node) for name, node in (plan.get("factors") or {}).items())
            name = str(plan["name"])
            blocks.append(Block(name, plan, factors, tuple(trial for trial in self.trials if trial.block == name)))
        return blocks


def read(path: Path) -> Study:
    """Read `study.yaml` and `trials.csv`, complete or not.

    Raises:
        InputError: `path` is not the directory of a study, or one of both cannot be read.
    """
    texts = {name: results.read(path / name) for name in ("study.yaml", "trials.csv")}
    for name, text in texts.items():
        if text is None:
            raise InputError(f"{path} is not the directory of a study: it has no {name}")
    userfiles.check_text(str(path / "study.yaml"), texts["study.yaml"] or "")
    try:
        plan = yaml.safe_load(texts["study.yaml"] or "")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path / 'study.yaml'} cannot be read: {' '.join(str(error).split())}") from error
    _check_plan(path / "study.yaml", plan)
    try:
        table = csv.DictReader(io.StringIO(texts["trials.csv"], newline=""))
        rows = list(table)
    except csv.Error as error:
        raise InputError(f"{path / 'trials.csv'} cannot be read: {error}") from error
    absent = [name for name in REQUIRED if name not in (table.fieldnames or ())]
    if absent:
        raise InputError(f"{path / 'trials.csv'} lacks the columns {', '.join(absent)}")
    trials = []
    for row in rows:
        try:
            if None in row or None in row.values():
                raise ValueError("the row has more or fewer entries than there are columns")
            trials.append(_trial(path, row))
        except ValueError as error:
            raise InputError(f"{path / 'trials.csv'}, trial {row['number']}: {error}") from error
    return Study(path, plan, tuple(trials))


def _check_plan(path: Path, plan: Any) -> None:
    """Raise `InputError` unless everything in the plan that is read has the type that it needs."""
    _expect(path, "the plan", plan, Mapping)
    kinds: dict[str, Any] = {"objectives": list, "blocks": list, "select": Mapping | str, "margin": int | float}
    for name, kind in (kinds | dict.fromkeys(("name", "question", "kind"), str)).items():
        _expect(path, name, plan.get(name), kind | None)
    if isinstance(plan.get("select"), Mapping):
        _expect(path, "metric of select", plan["select"].get("metric"), str)
    for objective in plan.get("objectives") or []:
        _expect(path, "an objective", objective, Mapping)
        _expect(path, "metric", objective.get("metric"), str)
    for block in plan.get("blocks") or []:
        _check_block(path, block)


def _check_block(path: Path, block: Any) -> None:
    _expect(path, "a block", block, Mapping)
    _expect(path, "name of a block", block.get("name"), str)
    kinds: dict[str, Any] = {"factors": Mapping, "negative_controls": list, "reference": Mapping | str}
    for name, kind in (kinds | {"margin": int | float}).items():
        _expect(path, f"{name} of a block", block.get(name), kind | None)
    for name, factor in (block.get("factors") or {}).items():
        _expect(path, "name of a factor", name, str)
        _expect(path, f"factor {name}", factor, Mapping)
        _expect(path, f"levels of {name}", factor.get("levels"), list)
        _expect(path, f"labels of {name}", factor.get("labels"), list | Mapping | None)
        if not factor["levels"]:
            raise InputError(f"{path} is damaged, or no plan of a study: factor {name} has no levels")


def _expect(path: Path, what: str, value: Any, kind: Any) -> None:
    if not isinstance(value, kind):
        raise InputError(f"{path} is damaged, or no plan of a study: {what} cannot be {str(value)[:80]!r}")


def spell(value: Any) -> str:
    """A level as people write it: `true`, `none`, `0.5`, `convection, diffusion`."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(map(spell, value)) or "[]"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {spell(one)}" for key, one in value.items()) or "{}"
    return str(value)


def _label(label: Any) -> str:
    """YAML reads `off` and `on` as booleans; as labels they are words."""
    return ("on" if label else "off") if isinstance(label, bool) else str(label)


def _paired(values: Sequence[Any], labels: Any) -> list[tuple[Any, Any]]:
    if labels is None:
        return [(value, None) for value in values]
    if len(labels) != len(values):
        raise InputError(f"labels {list(labels)} do not name the levels {list(values)}: one for each is needed")
    return list(zip(values, labels, strict=True))


def _trial(path: Path, row: Mapping[str, str]) -> Trial:
    number = int(row["number"])
    rest = {key: text for key, text in row.items() if key not in PLANNED and text}
    levels = {key.partition("/")[2]: text for key, text in rest.items() if key.startswith(LEVEL_COLUMNS)}
    return Trial(
        number=number,
        block=row["block"],
        arm=row["arm"],
        seed=int(row["seed"]),
        state=check_choice("state", row["state"], STATES),
        run_dir=_run_directory(path, number, row.get("run_dir") or ""),
        seconds=float(row["seconds"]) if row.get("seconds") else None,
        levels=levels,
        metrics={key: _value(text) for key, text in rest.items() if not key.startswith(LEVEL_COLUMNS)},
    )


def _run_directory(path: Path, number: int, recorded: str) -> Path | None:
    """Where the run lies, also after the study's directory has been moved."""
    known = [path / recorded, Path(recorded)] if recorded else []
    return next((one for one in (*known, path / "trials" / f"{number:05d}") if one.is_dir()), None)


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
