"""A study as its YAML says it: what is varied, what is fixed, what is measured; validated, in dataclasses."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import conf
import operators
from ablations import designs, studyfile
from ablations.designs import Design
from operators.errors import InputError, check_choice, check_names, check_number

KINDS = ("factorial", "tune", "pareto")
DESIGNS = ("full", "fraction", "one_at_a_time")
SAMPLERS = ("tpe", "nsga2", "random")
PRUNERS = ("median", "none")
REGISTRY = "registry"
"""`levels: registry` are all registered mixers, `levels: registry/PRESET` those that have that shell preset."""

MOST_TRIALS, MOST_LEVELS, MOST_EXTENSIONS = 100_000, 1000, 20
"""Of a study, of a factor (or choices, or levels that are tuned), and of `extend`."""
LONGEST_NAME = 100
"""Characters of a name, and of a study's bytes: it is also that of a folder."""
_PLAIN = re.compile(r"(?!\.+$)[\w .,=+/^-]+")
# What systems keep for themselves, with any ending.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)

T = TypeVar("T")


@dataclass(frozen=True)
class Metric:
    """A key of `metrics.json`, and which way is better."""

    metric: str
    direction: str = "maximize"

    def __post_init__(self) -> None:
        check_choice("direction", self.direction, ("maximize", "minimize"))


@dataclass(frozen=True)
class Factor:
    """What `key` (a key or group of run.py) is set to; `labels` name the levels.

    Factors that share a key have lists, which are joined, or mappings, which are merged.
    """

    name: str
    key: str
    levels: tuple[Any, ...]
    labels: tuple[str, ...]

    @classmethod
    def read(cls, name: str, node: Any) -> Factor:
        """From the block's `factors.NAME`."""
        given = _mapping(f"factor {name}", node, ("key", "levels", "labels"), ("key", "levels"))
        levels = given["levels"]
        if isinstance(levels, str) and levels.split("/")[0] == REGISTRY:
            preset = levels.partition("/")[2]
            levels = [one for one in operators.names() if not preset or preset in operators.describe(one).shells]
        if not isinstance(levels, Sequence) or isinstance(levels, str) or len(levels) < 2:
            raise InputError(f"factor {name} has levels {levels!r}: it needs a list of two or more")
        named = given.get("labels")
        labels = [label(one) for one in levels] if named is None else [_switch(one) for one in _list(name, named)]
        if len(levels) > MOST_LEVELS:
            raise InputError(f"factor {name} has {len(levels):,} levels: at most {MOST_LEVELS:,} are allowed")
        if len(labels) != len(levels) or len(set(labels)) != len(labels):
            raise InputError(
                f"factor {name} has labels {labels}: one for each of its {len(levels)} levels, no two alike"
            )
        for one in labels:
            if not one.isprintable() or not 0 < len(one.strip()) <= 2 * LONGEST_NAME:
                raise InputError(f"factor {name} has the label {one!r}: give labels of 1 to {2 * LONGEST_NAME} letters")
        return cls(check_name("factor", name), _key(given["key"]), tuple(levels), tuple(labels))

    def label(self, value: Any) -> str:
        """The level that a label, or a level's value, means."""
        for level, name in zip(self.levels, self.labels, strict=True):
            if value == level and type(value) is type(level):
                return name
        return check_choice(f"level of factor {self.name}", _switch(value), self.labels)


@dataclass(frozen=True)
class Extra:
    """An arm outside the factorial."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """A factorial of its own.

    Attributes:
        overrides: of run.py, for all of its arms.
        design: `full`; `fraction`: full, or the largest fraction of resolution IV or more within `budget` trials;
            `one_at_a_time`: the reference, and each other level of each factor by itself.
        negative_controls: factors declared in advance to have no effect.
        reference: label of every factor of the arm that others are compared with.
        also: arms outside the factorial.
        margin: smallest effect that matters, in units of the objective; negative controls are tested against it.
    """

    name: str
    factors: tuple[Factor, ...]
    overrides: tuple[str, ...]
    design: str
    budget: int | None
    negative_controls: tuple[str, ...]
    reference: Mapping[str, str]
    also: tuple[Extra, ...]
    margin: float | None = None

    @classmethod
    def read(cls, node: Any) -> Block:
        """From an entry of the study's `blocks`."""
        names = [one.name for one in fields(cls)]
        given = _mapping("a block", node, names, ("name", "factors"))
        name = check_name("block", given["name"])
        what = f"factors of block {name}"
        factors = tuple(Factor.read(str(one), of) for one, of in _mapping(what, given["factors"]).items())
        by_name = {factor.name: factor for factor in factors}
        if not factors:
            raise InputError(f"block {name} has no factors")
        controls = _strings(f"negative_controls of block {name}", given.get("negative_controls"))
        check_names(f"block {name}", controls, by_name)
        asked = _mapping(f"reference of block {name}", given.get("reference") or {}, by_name)
        reference = {one.name: one.label(asked[one.name]) if one.name in asked else one.labels[0] for one in factors}
        also = [
            _mapping(f"also of block {name}", one, ("name", "overrides"), ("name", "overrides"))
            for one in _list("also", given.get("also"))
        ]
        budget = given.get("budget")
        if budget is not None:
            check_number(f"budget of block {name}", budget, least=1, integer=True)
        margin = given.get("margin")
        if margin is not None:
            check_number(f"margin of block {name}", margin, least=1e-12)
        return cls(
            name=name,
            factors=factors,
            overrides=_strings(f"overrides of block {name}", given.get("overrides")),
            design=check_choice(f"design of block {name}", given.get("design", "full"), DESIGNS),
            budget=budget,
            negative_controls=controls,
            reference=reference,
            also=tuple(Extra(check_name("arm", one["name"]), _strings("also", one["overrides"])) for one in also),
            margin=margin,
        )

    @property
    def size(self) -> int:
        """How many arms there are at most, without laying them out."""
        levels = [len(factor.levels) for factor in self.factors]
        cells = 1 + sum(levels) - len(levels) if self.design == "one_at_a_time" else math.prod(levels)
        if self.design == "fraction" and self.budget is not None:
            cells = min(cells, self.budget)
        return cells + len(self.also)

    def lay_out(self, seeds: int) -> Design:
        """The cells to run, as labels of every factor."""
        grid = {factor.name: factor.labels for factor in self.factors}
        try:
            if self.design == "one_at_a_time":
                varied = [{**self.reference, name: one} for name, labels in grid.items() for one in labels]
                others = [cell for cell in varied if cell != self.reference]
                return Design(grid, (dict(self.reference), *others), {}, ())
            return designs.choose(grid, self.budget if self.design == "fraction" else None, seeds)
        except InputError as error:
            raise InputError(f"block {self.name}: {error}") from error


@dataclass(frozen=True)
class Tuning:
    """`key` of every arm is first set to the best of `levels` on validation, at one seed, with `overrides`.

    Where the first or the last level is the best, a better one may lie beyond: then up to `extend` further levels are
    tried there, each as far again as the last two are apart (as a ratio), for as long as they get better.
    """

    key: str
    levels: tuple[float, ...]
    overrides: tuple[str, ...] = ()
    seed: int = 0
    extend: int = 0

    @classmethod
    def read(cls, node: Any) -> Tuning:
        """From the study's `tuning`."""
        given = _mapping("tuning", node, [one.name for one in fields(cls)], ("key", "levels"))
        levels = _list("levels of tuning", given["levels"])
        if len(levels) > MOST_LEVELS:
            raise InputError(f"tuning has {len(levels):,} levels: at most {MOST_LEVELS:,} are allowed")
        for level in levels:
            check_number("level of tuning", level)
        if not levels:
            raise InputError("tuning has no levels")
        for name, most in (("seed", 2**32 - 1), ("extend", MOST_EXTENSIONS)):
            check_number(f"{name} of tuning", given.get(name, 0), least=0, most=most, integer=True)
        if given.get("extend") and (len(set(levels)) < 2 or min(levels) <= 0):
            raise InputError(f"extend of tuning needs two or more levels above 0, not {levels}")
        overrides = _strings("overrides of tuning", given.get("overrides"))
        return cls(_key(given["key"]), tuple(levels), overrides, given.get("seed", 0), given.get("extend", 0))

    @property
    def beyond(self) -> tuple[tuple[float, float], ...]:
        """(level, the one that it goes beyond) of all that `extend` allows for."""
        if not self.extend:
            return ()
        ordered = sorted(set(self.levels))
        found = []
        for end, inner in ((ordered[0], ordered[1]), (ordered[-1], ordered[-2])):
            steps = [float(f"{end * (end / inner) ** count:.12g}") for count in range(self.extend + 1)]
            found += list(zip(steps[1:], steps[:-1], strict=True))
        return tuple(found)


@dataclass(frozen=True)
class Dimension:
    """A direction of the search: a range, or choices."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    int: bool = False
    choices: tuple[Any, ...] = ()

    @classmethod
    def read(cls, key: str, node: Any) -> Dimension:
        """From the study's `space.KEY`."""
        given = _mapping(f"space of {key}", node, [one.name for one in fields(cls)])
        if ("choices" in given) == ("low" in given or "high" in given):
            raise InputError(f"space of {key} needs either low and high, or choices")
        if "choices" in given:
            choices = _list(f"choices of {key}", given["choices"])
            if not 1 <= len(choices) <= MOST_LEVELS:
                raise InputError(f"space of {key} has {len(choices):,} choices: 1 to {MOST_LEVELS:,} are allowed")
            for choice in choices:
                if not isinstance(choice, None | bool | int | float | str):
                    raise InputError(f"space of {key} has the choice {choice!r}: it must be a text, a number or null")
            return cls(choices=tuple(choices))
        for name in ("log", "int"):
            if not isinstance(given.get(name, False), bool):
                raise InputError(f"{name} of {key}={given[name]!r} must be true or false")
        for end in ("low", "high"):
            check_number(f"{end} of {key}", given.get(end), integer=bool(given.get("int")))
        if not given["low"] < given["high"] or (given.get("log") and given["low"] <= 0):
            raise InputError(f"space of {key} needs low < high, and low > 0 for log")
        return cls(**given)

    @property
    def first(self) -> Any:
        """One of its values."""
        return self.choices[0] if self.choices else self.low


@dataclass(frozen=True)
class Plan:
    """A study.

    Attributes:
        overrides: of run.py, for all trials.
        objectives: what it is about, best first; more than one for `pareto`.
        select: what tuning and pruning go by, on the validation split.
        seeds: of every arm of a factorial: 0, …, seeds - 1.
        space, mixer_space, trials, sampler, pruner: of a search; `mixer_space.NAME` is added for mixer NAME.
    """

    name: str
    question: str
    kind: str
    overrides: tuple[str, ...]
    objectives: tuple[Metric, ...]
    select: Metric
    seeds: int = 1
    blocks: tuple[Block, ...] = ()
    tuning: Tuning | None = None
    space: Mapping[str, Dimension] = field(default_factory=dict)
    mixer_space: Mapping[str, Mapping[str, Dimension]] = field(default_factory=dict)
    trials: int = 0
    sampler: str = "tpe"
    pruner: str = "none"

    @property
    def size(self) -> int:
        """How many trials there are at most, without laying them out."""
        tuned = 0 if self.tuning is None else len(self.tuning.levels) + 2 * self.tuning.extend
        return self.trials or sum(block.size for block in self.blocks) * (self.seeds + tuned)

    @property
    def searches(self) -> bool:
        """Whether a sampler proposes the trials."""
        return self.kind != "factorial"


def read(node: Any) -> Plan:
    """The plan of a study's YAML, as plain containers.

    Raises:
        InputError: what is missing, unknown or impossible.
    """
    given = _mapping("study", node, [one.name for one in fields(Plan)], ("name", "question", "objectives"))
    kind = check_choice("kind", given.get("kind", "factorial"), KINDS)
    other = (
        ("blocks", "tuning", "seeds")
        if kind != "factorial"
        else ("space", "mixer_space", "trials", "sampler", "pruner")
    )
    for key in other:
        if key in given:
            raise InputError(f"a study of kind {kind} has no {key!r}")
    objectives = tuple(_metric("objectives", one) for one in _list("objectives", given["objectives"]))
    if not objectives or (len(objectives) > 1) != (kind == "pareto"):
        raise InputError(
            f"a study of kind {kind} needs {'two or more objectives' if kind == 'pareto' else 'one objective'}"
        )
    select = _metric("select", given.get("select", {"metric": "val/accuracy"}))
    if not select.metric.startswith("val/"):
        raise InputError(f"select={select.metric!r} must be a score on validation, val/…: the test split is read once")
    common: dict[str, Any] = {
        "name": check_study_name(given["name"]),
        "question": _text("question", given["question"]),
        "kind": kind,
        "overrides": _strings("overrides", given.get("overrides")),
        "objectives": objectives,
        "select": select,
    }
    if kind == "factorial":
        check_number("seeds", given.get("seeds", 1), least=1, most=MOST_TRIALS, integer=True)
        blocks = tuple(Block.read(one) for one in _list("blocks", given.get("blocks")))
        if not blocks or len({block.name for block in blocks}) != len(blocks):
            raise InputError("a factorial study needs blocks, no two of one name")
        tuning = None if given.get("tuning") is None else Tuning.read(given["tuning"])
        plan = Plan(**common, seeds=given.get("seeds", 1), blocks=blocks, tuning=tuning)
        if plan.size > MOST_TRIALS:
            arms = sum(block.size for block in blocks)
            raise InputError(
                f"the study has {plan.size:,} trials ({arms:,} arms, seeds={plan.seeds:,}): at most {MOST_TRIALS:,} "
                "are allowed; take fewer seeds or levels, or design: fraction or one_at_a_time"
            )
        return plan
    check_number("trials", given.get("trials"), least=1, most=MOST_TRIALS, integer=True)
    if kind == "pareto" and given.get("pruner", "none") != "none":
        raise InputError("pruner must be none with several objectives: no one of them says when to stop")
    return Plan(
        **common,
        space=_space("space", given.get("space")),
        mixer_space={
            name: _space(f"mixer_space.{name}", one)
            for name, one in _mapping("mixer_space", given.get("mixer_space") or {}, operators.names()).items()
        },
        trials=given["trials"],
        sampler=check_choice("sampler", given.get("sampler", "nsga2" if kind == "pareto" else "tpe"), SAMPLERS),
        pruner=check_choice("pruner", given.get("pruner", "none"), PRUNERS),
    )


def load(study: str) -> dict[str, Any]:
    """The content of a study's YAML: `conf/study/NAME.yaml`, or the file at a path.

    Raises:
        InputError: no such study, or a file that is none.
    """
    path = Path(study)
    if path.suffix not in (".yaml", ".yml"):
        known = {file.stem: file for file in (Path(conf.__file__).parent / "study").glob("*.yaml")}
        path = known[check_choice("study", study, sorted(known))]
    return {"name": path.stem, **studyfile.read(path)}


def label(value: Any) -> str:
    """A level in words: `none`, `true`, `0.5`, `convection, diffusion`."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(label, value)) or "[]"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {label(one)}" for key, one in value.items()) or "{}"
    return str(value)


def check_name(what: str, name: Any) -> str:
    """`name`, if it can name a thing of a study, in a table and on disk."""
    if not isinstance(name, str) or not _PLAIN.fullmatch(name) or len(name) > LONGEST_NAME:
        signs = "letters, digits, spaces, and . , = + - / ^ _, but not of dots alone"
        raise InputError(f"{what} name={_short(name)} must be a text of at most {LONGEST_NAME} {signs}")
    return name


def check_study_name(name: Any) -> str:
    """`name`, if it can name a study, and the folder that the study goes to unless it is told another."""
    check_name("study", name)
    assert isinstance(name, str)
    taken = name.strip(" .") != name or name.startswith("-") or _DEVICES.fullmatch(name)
    if taken or "/" in name or len(name.encode()) > LONGEST_NAME:
        raise InputError(
            f"study name={name!r} must be the name of a folder: at most {LONGEST_NAME} bytes, without /, no . or space "
            "at either end, no - at the beginning, and no device such as nul"
        )
    return name


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…"


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(f"{what}={_short(value)} must be a text")
    return value


def _switch(value: Any) -> str:
    """YAML reads `off` and `on` as booleans; as labels they are words."""
    return ("on" if value else "off") if isinstance(value, bool) else label(value)


def _metric(what: str, node: Any) -> Metric:
    given = _mapping(what, node, ("metric", "direction"), ("metric",))
    return Metric(_text("metric", given["metric"]), given.get("direction", "maximize"))


def _space(what: str, node: Any) -> dict[str, Dimension]:
    found = {_key(key): Dimension.read(key, one) for key, one in _mapping(what, node).items()}
    if not found:
        raise InputError(f"{what} is empty")
    return found


def _key(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"\+{0,2}\w+([./]\w+)*", value):
        raise InputError(f"key={_short(value)} must be a key or a group of run.py, such as optimizer.lr or mixer")
    return value


def _mapping(
    what: str, node: Any, allowed: Sequence[str] | Mapping[str, Any] | None = None, needed: Sequence[str] = ()
) -> dict[str, Any]:
    if not isinstance(node, Mapping):
        raise InputError(f"{what} must be a mapping, not {_short(node)}")
    if allowed is not None:
        check_names(what, map(str, node), allowed)
    for name in needed:
        if name not in node:
            raise InputError(f"{what} has no {name!r}")
    return {str(key): value for key, value in node.items()}


def _list(what: str, node: Any) -> list[Any]:
    if node is not None and not isinstance(node, list):
        raise InputError(f"{what} must be a list, not {_short(node)}")
    return list(node or [])


def _strings(what: str, node: Any) -> tuple[str, ...]:
    found = _list(what, node)
    if not all(isinstance(one, str) for one in found):
        raise InputError(f"{what} must be a list of texts, such as [model.dim=48], not {_short(found)}")
    return tuple(found)
