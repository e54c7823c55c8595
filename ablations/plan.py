"""A study as its YAML says it: what is varied, what is fixed, what is measured; validated, in dataclasses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import operators
from ablations import designs, nodes
from ablations.designs import Design
from ablations.factors import ROLES, Factor
from ablations.layout import SHARES
from ablations.tuning import Dimension, Tuning
from ablations.until import Until
from operators.errors import InputError, check_choice, check_names, check_number

DIRECTIONS = ("maximize", "minimize")
KINDS = ("factorial", "tune", "pareto")
DESIGNS = ("full", "fraction", "one_at_a_time")
SAMPLERS = ("tpe", "nsga2", "random")
PRUNERS = ("median", "none")
MOST_TRIALS = 100_000


@dataclass(frozen=True)
class Objective:
    """A key of `metrics.json`, and which way is better."""

    metric: str
    direction: str = "maximize"

    def __post_init__(self) -> None:
        check_choice("direction", self.direction, DIRECTIONS)

    @property
    def sign(self) -> int:
        """+1 if more is better, else -1."""
        return 1 if self.direction == "maximize" else -1


@dataclass(frozen=True)
class Extra:
    """An arm outside the factorial."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class FactorialBlock:
    """A factorial of its own.

    Attributes:
        overrides: of run.py, for all of its arms.
        design: `full`; `fraction`: full, or the largest fraction of resolution IV or more within `budget` trials;
            `one_at_a_time`: the reference, and each other level of each factor by itself.
        negative_controls: factors declared in advance to have no effect.
        reference: label of every factor of the arm that others are compared with.
        also: arms outside the factorial.
        margin: smallest effect that matters, in units of the objective; negative controls are tested against it.
        asks: the terms, such as `a` or `a:b`, that the question is about; the answer tells them first, as a family of
            their own.
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
    asks: tuple[str, ...] = ()

    @classmethod
    def read(cls, node: Any) -> FactorialBlock:
        """From an entry of the study's `blocks`."""
        names = [field.name for field in fields(cls)]
        given = nodes.mapping("a block", node, names, ("name", "factors"))
        name = nodes.check_name("block", given["name"])
        what = f"factors of block {name}"
        factors = tuple(Factor.read(str(name), of) for name, of in nodes.mapping(what, given["factors"]).items())
        by_name = {factor.name: factor for factor in factors}
        if not factors:
            raise InputError(f"block {name} has no factors")
        design = check_choice(f"design of block {name}", given.get("design", "full"), DESIGNS)
        for role in ROLES:
            having = [factor.name for factor in factors if factor.role == role]
            if len(having) > 1 or (having and (design != "full" or len(factors) == 1)):
                raise InputError(
                    f"block {name}: role {role} of factor {', '.join(having)} needs design: full, another factor "
                    "beside it, and no second one of its role"
                )
        controls = nodes.strings(f"negative_controls of block {name}", given.get("negative_controls"))
        check_names(f"block {name}", controls, by_name)
        asked = nodes.mapping(f"reference of block {name}", given.get("reference") or {}, by_name)
        reference = {
            factor.name: factor.label(asked[factor.name]) if factor.name in asked else factor.labels[0]
            for factor in factors
        }
        also = [
            nodes.mapping(f"also of block {name}", extra, ("name", "overrides"), ("name", "overrides"))
            for extra in nodes.items("also", given.get("also"))
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
            overrides=nodes.strings(f"overrides of block {name}", given.get("overrides")),
            design=design,
            budget=budget,
            negative_controls=controls,
            reference=reference,
            also=tuple(
                Extra(nodes.check_name("arm", extra["name"]), nodes.strings("also", extra["overrides"]))
                for extra in also
            ),
            margin=margin,
            asks=nodes.terms(f"asks of block {name}", given.get("asks"), by_name),
        )

    @property
    def written(self) -> dict[str, Any]:
        """The block as a node that `read` takes back."""
        factors = {factor.name: factor.written for factor in self.factors}
        also = [{"name": arm.name, "overrides": list(arm.overrides)} for arm in self.also]
        return {
            "name": self.name,
            "overrides": list(self.overrides),
            "factors": factors,
            "design": self.design,
            "budget": self.budget,
            "negative_controls": list(self.negative_controls),
            "margin": self.margin,
            "asks": list(self.asks),
            "reference": dict(self.reference),
            "also": also,
        }

    def with_role(self, role: str) -> Factor | None:
        """The factor that has this role, if one does."""
        return next((factor for factor in self.factors if factor.role == role), None)

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
                varied = [{**self.reference, name: label} for name, labels in grid.items() for label in labels]
                others = [cell for cell in varied if cell != self.reference]
                return Design(grid, (dict(self.reference), *others), {}, ())
            return designs.choose(grid, self.budget if self.design == "fraction" else None, seeds)
        except InputError as error:
            raise InputError(f"block {self.name}: {error}") from error


@dataclass(frozen=True)
class Plan:
    """A study.

    Attributes:
        overrides: of run.py, for all trials.
        objectives: what it is about, best first; more than one for `pareto`.
        select: what tuning and pruning go by, on the validation split.
        seeds: of every arm of a factorial: 0, …, seeds - 1; those of the first look, if there is an `until`.
        space, mixer_space, trials, sampler, pruner: of a search; `mixer_space.NAME` is added for mixer NAME.
    """

    name: str
    question: str
    kind: str
    overrides: tuple[str, ...]
    objectives: tuple[Objective, ...]
    select: Objective
    seeds: int = 1
    blocks: tuple[FactorialBlock, ...] = ()
    tuning: Tuning | None = None
    until: Until | None = None
    space: Mapping[str, Dimension] = field(default_factory=dict)
    mixer_space: Mapping[str, Mapping[str, Dimension]] = field(default_factory=dict)
    trials: int = 0
    sampler: str = "tpe"
    pruner: str = "none"

    @property
    def most_seeds(self) -> int:
        """How many seeds every arm has at most."""
        return self.seeds if self.until is None else self.until.most

    @property
    def size(self) -> int:
        """How many trials there are at most, without laying them out."""
        tuned = 0 if self.tuning is None else self.tuning.size * (1 if self.tuning.once else self.most_seeds)
        return self.trials or sum(block.size for block in self.blocks) * (self.most_seeds + tuned)

    @property
    def searches(self) -> bool:
        """Whether a sampler proposes the trials."""
        return self.kind != "factorial"


def read(node: Any) -> Plan:
    """The plan of a study's YAML, as plain containers.

    Raises:
        InputError: what is missing, unknown or impossible.
    """
    given = nodes.mapping("study", node, [field.name for field in fields(Plan)], ("name", "question", "objectives"))
    kind = check_choice("kind", given.get("kind", "factorial"), KINDS)
    other = (
        ("blocks", "tuning", "seeds", "until")
        if kind != "factorial"
        else ("space", "mixer_space", "trials", "sampler", "pruner")
    )
    for key in other:
        if key in given:
            raise InputError(f"a study of kind {kind} has no {key!r}")
    objectives = tuple(_objective("objectives", item) for item in nodes.items("objectives", given["objectives"]))
    if not objectives or (len(objectives) > 1) != (kind == "pareto"):
        raise InputError(
            f"a study of kind {kind} needs {'two or more objectives' if kind == 'pareto' else 'one objective'}"
        )
    select = _objective("select", given.get("select", {"metric": "val/accuracy"}))
    if not select.metric.startswith("val/"):
        raise InputError(f"select={select.metric!r} must be a score on validation, val/…: the test split is read once")
    common: dict[str, Any] = {
        "name": nodes.check_study_name(given["name"]),
        "question": nodes.text("question", given["question"]),
        "kind": kind,
        "overrides": nodes.strings("overrides", given.get("overrides")),
        "objectives": objectives,
        "select": select,
    }
    if kind == "factorial":
        check_number("seeds", given.get("seeds", 1), least=1, most=MOST_TRIALS, integer=True)
        blocks = tuple(FactorialBlock.read(block) for block in nodes.items("blocks", given.get("blocks")))
        if not blocks or len({block.name for block in blocks}) != len(blocks):
            raise InputError("a factorial study needs blocks, no two of one name")
        tuning = None if given.get("tuning") is None else Tuning.read(given["tuning"])
        until = _until(given.get("until"), given.get("seeds", 1), blocks, objectives[0])
        plan = Plan(**common, seeds=given.get("seeds", 1), blocks=blocks, tuning=tuning, until=until)
        if plan.size > MOST_TRIALS:
            arms, seeds = sum(block.size for block in blocks), plan.most_seeds
            raise InputError(
                f"the study has {plan.size:,} trials ({arms:,} arms, seeds={seeds:,}): at most {MOST_TRIALS:,} "
                "are allowed; take fewer seeds or levels, or design: fraction or one_at_a_time"
            )
        return plan
    check_number("trials", given.get("trials"), least=1, most=MOST_TRIALS, integer=True)
    if kind == "pareto" and given.get("pruner", "none") != "none":
        raise InputError("pruner must be none with several objectives: no one of them says when to stop")
    return Plan(
        **common,
        space=_space("space", given.get("space")),
        mixer_space=_mixer_space(given.get("mixer_space") or {}),
        trials=given["trials"],
        sampler=check_choice("sampler", given.get("sampler", "nsga2" if kind == "pareto" else "tpe"), SAMPLERS),
        pruner=check_choice("pruner", given.get("pruner", "none"), PRUNERS),
    )


def written(plan: Plan) -> dict[str, Any]:
    """The plan as a node that `read` takes back, in plain containers."""
    content: dict[str, Any] = {
        "name": plan.name,
        "question": plan.question,
        "kind": plan.kind,
        "overrides": list(plan.overrides),
        "objectives": [vars(objective) for objective in plan.objectives],
        "select": vars(plan.select),
    }
    if plan.searches:
        mixer_space = {name: _written_space(space) for name, space in plan.mixer_space.items()}
        content |= {"trials": plan.trials, "space": _written_space(plan.space)}
        content |= {"mixer_space": mixer_space} if mixer_space else {}
        return content | {"sampler": plan.sampler, "pruner": plan.pruner}
    content |= {"seeds": plan.seeds} | ({"until": plan.until.written} if plan.until else {})
    content |= {"tuning": plan.tuning.written} if plan.tuning else {}
    return content | {"blocks": [block.written for block in plan.blocks]}


def _written_space(space: Mapping[str, Dimension]) -> dict[str, Any]:
    return {key: dimension.written for key, dimension in space.items()}


def _objective(what: str, node: Any) -> Objective:
    given = nodes.mapping(what, node, ("metric", "direction"), ("metric",))
    return Objective(nodes.text("metric", given["metric"]), given.get("direction", "maximize"))


def _until(node: Any, seeds: int, blocks: Sequence[FactorialBlock], objective: Objective) -> Until | None:
    if node is None:
        return None
    for block in blocks:
        for factor in block.factors:
            if factor.role is not None:
                raise InputError(
                    f"until is for answers of effects or of arms, and factor {factor.name} of block {block.name} has "
                    f"role: {factor.role}: give seeds alone"
                )
    return Until.read(node, seeds, share=objective.metric.rpartition("/")[2] in SHARES)


def _mixer_space(node: Any) -> dict[str, dict[str, Dimension]]:
    if node == {}:
        return {}
    spaces = nodes.mapping("mixer_space", node, operators.names())
    return {name: _space(f"mixer_space.{name}", space) for name, space in spaces.items()}


def _space(what: str, node: Any) -> dict[str, Dimension]:
    space = {nodes.key(key): Dimension.read(key, dimension) for key, dimension in nodes.mapping(what, node).items()}
    if not space:
        raise InputError(f"{what} is empty")
    return space
