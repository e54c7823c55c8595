"""From a plan to its trials, in the order in which they run, and to the configuration of each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override, Quote, QuotedString

import tasks.data
from ablations.designs import Design
from ablations.layout import tuned_block, tuning_block
from ablations.plan import Extra, FactorialBlock, Plan
from ablations.tuning import Tuning
from operators.errors import InputError
from tasks.config.composition import compose, read
from tasks.config.hydra_errors import REFUSALS, translate
from tasks.config.overrides import parse

if TYPE_CHECKING:
    from tasks.data import KeyedData

TUNING, MAIN, SEARCH = "tuning", "main", "search"
RESERVED = ("seed", "mode", "ckpt", "init", "trainer.devices", "trainer.num_nodes", "trainer.strategy")
COSTS = "trainer.costs=true"
"""What a study asks of trials that do more than tune, unless it, or its owner, says otherwise."""
RATE = "optimizer.lr="
SELECTING = "trainer.test=false"
"""Trials that only select do not read the test split."""


@dataclass(frozen=True)
class Trial:
    """A planned trial: `overrides` of run.py, but for the seed and what is known only when it starts.

    `stage` is `tuning` (its scores choose what `main` trials of the same arm run with), `main` or `search`. A tuning
    trial sets the tuned key to `tunes`; one with `beyond` is only run if that level turns out to be the best so far.
    """

    number: int
    stage: str
    block: str
    arm: str
    seed: int
    factors: Mapping[str, str] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    tunes: float | None = None
    beyond: float | None = None

    @property
    def group(self) -> tuple[str, str]:
        """Block and arm, the same for tuning and main trials."""
        return tuned_block(self.block), self.arm


def lay_out(plan: Plan) -> dict[str, Design]:
    """The design of each block."""
    return {block.name: block.lay_out(plan.most_seeds) for block in plan.blocks}


def expand(plan: Plan, given: Sequence[str], seeds: int | None = None) -> list[Trial]:
    """All trials of the plan with the overrides `given` by the user on top of the study's own.

    Seed by seed, those that tune before those that are tuned, so that what is done so far is complete blocks, and more
    seeds are only added at the end. There are as many `seeds` as the plan has, or as it has come to after its looks.

    Raises:
        InputError: an override that is the study's to set.
    """
    _check_own(plan)
    _check_given(plan, given)
    if plan.searches:
        overrides = merge(plan.overrides, given, [SELECTING])
        return [Trial(n, SEARCH, plan.kind, f"trial {n}", 0, {}, overrides) for n in range(plan.trials)]
    arms = [arm for block in plan.blocks for arm in _arms(plan, block, given)]
    tuning = _tuning(plan.tuning, arms) if plan.tuning else []
    numbers = range(plan.seeds if seeds is None else seeds)
    if plan.tuning and plan.tuning.once:
        trials = [replace(trial, seed=plan.tuning.seed) for trial in tuning]
        trials += [replace(arm, seed=seed) for seed in numbers for arm in arms]
    else:
        trials = [replace(trial, seed=seed) for seed in numbers for trial in (*tuning, *arms)]
    return [replace(trial, number=number) for number, trial in enumerate(trials)]


def _tuning(tuning: Tuning, arms: Sequence[Trial]) -> list[Trial]:
    """The trials that choose a level for each of the arms."""
    trials = []
    for arm in arms:
        for level, beyond in (*((level, None) for level in tuning.levels), *tuning.beyond):
            overrides = merge(arm.overrides, tuning.overrides, [f"{tuning.key}={literal(level)}", SELECTING])
            block = tuning_block(arm.block)
            trials.append(replace(arm, stage=TUNING, block=block, overrides=overrides, tunes=level, beyond=beyond))
    return trials


def sections(plan: Plan, given: Sequence[str]) -> dict[str, str]:
    """Digest of each part of the design. What may change later is not in it: the seeds, the words, the name, what is
    asked.

    A role that no factor has is not in it either, nor an `until` that the study does not have: studies begun before
    there were these continue. With `until`, the seeds of its first look are part of the rule.
    """
    parts = asdict(plan)
    for free in ("name", "question", "seeds", "trials"):
        del parts[free]
    if plan.until is None:
        del parts["until"]
    for factor in (factor for block in parts["blocks"] for factor in block["factors"]):
        if factor["role"] is None:
            del factor["role"]
    for block in parts["blocks"]:
        del block["asks"]
    parts["overrides"] = sorted(merge(plan.overrides, given))
    parts["design"] = {name: design.cells for name, design in lay_out(plan).items()}
    return {name: sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:16] for name, part in parts.items()}


def refuse_other(what: str, recorded: Mapping[str, str], sections: Mapping[str, str]) -> None:
    """Raise `InputError` unless the recorded design is the one of `sections`."""
    differing = sorted(name for name in {*recorded, *sections} if recorded.get(name) != sections.get(name))
    if differing:
        raise InputError(
            f"{what} exists with another design (other {', '.join(differing)}) and is left as it is: "
            "choose another study.dir=DIR and study.name=NAME, or repeat its command"
        )


def check(plan: Plan, trials: Iterable[Trial]) -> None:
    """Find out whether the run of any arm would be refused, without weights and without training.

    A learning rate that one arm may have, all may have: of the trials that differ in nothing else, one is looked at.

    Raises:
        InputError: the first that would be, in the words of the run, and which arm it is.
    """
    seen: set[tuple[str, ...]] = set()
    try:
        for trial in trials:
            rate = tuple(text for text in trial.overrides if text.startswith(RATE))
            parts = {rate, tuple(text for text in trial.overrides if text not in rate)}
            if not parts <= seen:
                seen |= parts
                _check_trial(plan, trial)
    finally:
        _data.cache_clear()


def _check_trial(plan: Plan, trial: Trial) -> None:
    try:
        _check_run(_proposed(plan, trial))
    except InputError as error:
        where = "" if plan.searches else f"block {trial.block}, arm {trial.arm}: "
        raise InputError(f"{where}{error}") from error


def _proposed(plan: Plan, trial: Trial) -> tuple[str, ...]:
    """The overrides of the trial, with values for what is only known when it starts."""
    own = [*trial.overrides, f"seed={trial.seed}"]
    if plan.searches:
        space = search_space(plan, compose(own))
        return merge(own, [f"{key}={literal(dimension.first)}" for key, dimension in space.items()])
    if plan.tuning and trial.stage == MAIN:
        return merge(own, [f"{plan.tuning.key}={literal(plan.tuning.levels[0])}"])
    return tuple(own)


def _check_run(overrides: Sequence[str]) -> None:
    """Refuse what run.py would refuse."""
    run = read(overrides)
    from tasks.run import preparing  # takes seconds, for which wrong overrides need not wait

    preparing.check(run, _data(json.dumps({"seed": run.seed, **run.data}, sort_keys=True)))


@lru_cache(maxsize=1)
def _data(settings: str) -> KeyedData:
    """The data of these settings, which most arms share with the arm before."""
    return tasks.data.create(**json.loads(settings))


def carried_out(trial: Trial) -> tuple[str, ...]:
    """The overrides of a trial's run, but for its seed and what is known only when it starts."""
    return trial.overrides if trial.stage == TUNING else merge([COSTS], trial.overrides)


def search_space(plan: Plan, config: Mapping[str, Any]) -> dict[str, Any]:
    """What is searched for the mixer of `config`."""
    return {**plan.space, **plan.mixer_space.get(config["mixer"]["name"], {})}


def merge(*layers: Iterable[str]) -> tuple[str, ...]:
    """Overrides of several layers: of those with the same key the last counts."""
    values: dict[str, str] = {}
    for text in (text for layer in layers for text in layer):
        key = _parse(text).key_or_group
        values.pop(key, None)
        values[key] = text
    return tuple(values.values())


def literal(value: Any) -> str:
    """`value` as Hydra's grammar writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(literal, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}: {literal(item)}' for key, item in value.items())}}}"
    if isinstance(value, str):
        plain = (
            value.replace("_", "").isalnum() and not value[0].isdigit() and parse([f"x={value}"])[0].value() == value
        )
        return value if plain else QuotedString(value, Quote.single).with_quotes()
    return repr(value)


def _arms(plan: Plan, block: FactorialBlock, given: Sequence[str]) -> list[Trial]:
    arms = []
    for cell in block.lay_out(plan.most_seeds).cells:
        name = " ".join(f"{factor}={level}" for factor, level in cell.items())
        overrides = merge(plan.overrides, given, block.overrides, _settings(block, cell))
        arms.append(Trial(0, MAIN, block.name, name, 0, dict(cell), overrides))
    arms += [Trial(0, MAIN, block.name, extra.name, 0, {}, _outside(plan, block, given, extra)) for extra in block.also]
    for name, count in Counter(arm.arm for arm in arms).items():
        if count > 1:
            raise InputError(f"block {block.name} has two arms {name!r}")
    return arms


def _outside(plan: Plan, block: FactorialBlock, given: Sequence[str], extra: Extra) -> tuple[str, ...]:
    """An arm with another mixer has no use for the settings of the mixer that it replaces."""
    keys = {_parse(text).key_or_group for text in extra.overrides}
    own = [text for text in (*plan.overrides, *given, *block.overrides) if not ("mixer" in keys and _of_mixer(text))]
    return merge(own, extra.overrides)


def _of_mixer(text: str) -> bool:
    return _parse(text).key_or_group.split(".")[0] in ("mixer", "pde")


def _settings(block: FactorialBlock, cell: Mapping[str, str]) -> list[str]:
    """The overrides of a cell; levels of factors that share a key are put together."""
    values: dict[str, Any] = {}
    for factor in block.factors:
        level = factor.levels[factor.labels.index(cell[factor.name])]
        earlier = values.get(factor.key)
        if factor.key not in values:
            values[factor.key] = level
        elif isinstance(earlier, list) and isinstance(level, list):
            values[factor.key] = [*earlier, *level]
        elif isinstance(earlier, Mapping) and isinstance(level, Mapping):
            values[factor.key] = {**earlier, **level}
        else:
            raise InputError(
                f"factors of block {block.name} share {factor.key}: their levels must all be lists, or mappings"
            )
    return [f"{key}={literal(value)}" for key, value in values.items()]


def _check_own(plan: Plan) -> None:
    """Refuse what would be set by the plan, and again for each trial."""
    layers = [plan.overrides, () if plan.tuning is None else plan.tuning.overrides]
    layers += [block.overrides for block in plan.blocks]
    layers += [extra.overrides for block in plan.blocks for extra in block.also]
    keys = [_parse(text).key_or_group for layer in layers for text in layer]
    keys += [factor.key for block in plan.blocks for factor in block.factors]
    keys += [*plan.space, *(key for space in plan.mixer_space.values() for key in space)]
    keys += [] if plan.tuning is None else [plan.tuning.key]
    for key in keys:
        if key.lstrip("+") in RESERVED or key.split(".")[0] == "hydra":
            raise InputError(f"{key} cannot be part of a study: it sets that itself for each trial")


def _check_given(plan: Plan, given: Sequence[str]) -> None:
    owners = dict.fromkeys(RESERVED, "a study sets it itself")
    owners |= {key.lstrip("+"): "the study searches it" for key in plan.space}
    for block in plan.blocks:
        owners |= {_parse(text).key_or_group: f"block {block.name} sets it" for text in block.overrides}
        owners |= {
            factor.key.lstrip("+"): f"it is factor {factor.name} of block {block.name}" for factor in block.factors
        }
    if plan.tuning:
        owners[plan.tuning.key] = "the study tunes it for each arm (study.tuning=false: it does not)"
    for text in given:
        override = _parse(text)
        key = override.key_or_group
        if override.is_sweep_override():
            raise InputError(f"{text} has several values: make it a factor of a study of your own")
        if key.split(".")[0] == "hydra":
            raise InputError(f"{text} cannot be set here: trials lie in the study's directory (study.dir=DIR)")
        for owner, reason in owners.items():
            if key == owner or key.startswith(f"{owner}."):
                raise InputError(f"{text} cannot be set here: {reason}")


@lru_cache(maxsize=4096)
def _parse(text: str) -> Override:
    """The override, which is not to be changed: the arms of a study repeat few texts thousands of times."""
    try:
        return parse([text])[0]
    except REFUSALS as error:
        raise translate(error, [text]) from error
