"""Budget matching: what gives a model a wanted size, or a mixer a wanted state.

For `params` and `macs` it is the width of the feed-forward networks (of the first stage of a pyramid; those of the
others are in proportion): `dim`, `depth` and everything else stay, so that
arms with different mixers keep the shape and, initialisation being keyed by (seed, name), the very bits of all that is
neither mixer nor feed-forward network. Both are affine in the width, which two models without storage determine and a
third verifies.

For `state`, the numbers that the mixer of one layer holds for an image of the nominal size, it is the parameter that
the mixer's card names (`state_param`), in which its state is affine. Nothing outside the mixer changes it. Where a
mixer stands in several stages of a pyramid, it is the state in the first of them.

For `time` it is the width again, found by measuring training steps: see `tasks.costs.match`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch

import operators
from models.spec import MixerSpec, ModelCost
from models.targets import MEASURED, STATE, TIME, asked, parse, unmeasured
from models.trunk import Trunk
from operators.errors import InputError

TOLERANCE = 0.02
"""Largest relative distance from the target."""
STATE_TOLERANCE = 0.05
"""The same for a state, which comes in whole steps of a mixer's parameter."""
ALIGNED, ALIGNMENT = 0.005, 8
"""A multiple of 8, which matrix units like, is taken where it costs no more than this: two arms are then within 1 %."""
WIDEST = 64
"""Largest width considered, in multiples of `dim`; the usual one is 4."""
_SIZES = {"params": "parameters", "macs": "macs"}


@dataclass(frozen=True)
class Match:
    """How a budget is met.

    Attributes:
        budget: `params` or `macs` (of one image at the nominal size), `state` (of one layer) or `time` (of a step).
        target: what was asked for.
        hidden: width of the feed-forward networks.
        value: what the model has; where layers differ in their state, that of the one furthest from the target.
        more: further facts: which parameter meets a `state`; spread, repeats and device of a `time`.
    """

    budget: str
    target: float
    hidden: int
    value: float
    more: Mapping[str, Any]

    @property
    def residual(self) -> float:
        """Relative distance from the target; positive: more than asked for."""
        return self.value / self.target - 1

    def record(self) -> dict[str, Any]:
        """For `metrics.json`: flat, every key begins with `match/`."""
        facts = {**vars(self), "residual": self.residual}
        more = facts.pop("more")
        return {f"match/{name}": value for name, value in (facts | more).items()}


def solve(match: Any, build: Callable[[int], Trunk]) -> int:
    """The width of the feed-forward networks that meets a budget of `params` or `macs`.

    Args:
        match: see `parse`.
        build: the model with that width of its feed-forward networks; called where tensors have no storage.

    Raises:
        InputError: no width comes within `TOLERANCE`; names the nearest budgets that one can meet.
    """
    budget, target = asked(parse(match))

    def model(hidden: int) -> Trunk:
        with torch.device("meta"):
            return build(hidden)

    first = model(1)
    most, step = WIDEST * first.spec.dims[0], first.spec.hidden_step
    base = _size((first if step == 1 else model(step)).cost(), budget)
    slope = Fraction(_size(model(2 * step).cost(), budget) - base, step)

    def size(hidden: int) -> int:
        return round(base + (hidden - step) * slope)

    least = size(1)
    exact = 1 + (target - least) / slope
    low = min(max(math.floor(exact), 1), most)
    around = (low, min(low + 1, most))
    hidden = min(around, key=lambda width: abs(size(width) - target))
    aligned = ALIGNMENT * round(exact / ALIGNMENT)
    if ALIGNMENT <= aligned <= most and abs(size(aligned) / target - 1) <= ALIGNED:
        hidden = aligned
    if abs(size(hidden) / target - 1) > TOLERANCE:
        near = _nearest(target, {f"model.hidden={width}": size(width) for width in around})
        raise InputError(
            f"model.match.{budget}={target:,} cannot be met within {TOLERANCE:.0%} by the width alone: nearest {near}"
        )
    return hidden


def solve_state(match: Any, pattern: Sequence[MixerSpec], build: Callable[[list[MixerSpec]], Trunk]) -> list[MixerSpec]:
    """The mixers, with a state that meets the budget. A parameter that a spec gives is left as it is.

    Args:
        match: see `parse`.
        pattern: the mixers that there are, in the order of `models.spec.listed`.
        build: the model with these mixers; called where tensors have no storage.

    Raises:
        InputError: a mixer whose state no parameter scales, or in too large steps; names what can be met.
    """
    _, target = asked(parse(match))

    def at(size: int) -> list[int]:
        with torch.device("meta"):
            return _states(build([_scaled(spec, size) for spec in pattern]))

    first, second = at(1), at(2)
    solved = []
    for place, spec in enumerate(pattern):
        least, slope = first[place], second[place] - first[place]
        if slope <= 0:
            if abs(least / target - 1) > STATE_TOLERANCE:
                raise InputError(_fixed(spec, target, least))
            solved.append(spec)
            continue
        low = max(1, math.floor(1 + (target - least) / slope))
        sizes = {size: least + (size - 1) * slope for size in (low, low + 1)}
        size = min(sizes, key=lambda each: abs(sizes[each] - target))
        if abs(sizes[size] / target - 1) > STATE_TOLERANCE:
            key = f"mixer.{scales_state(spec)}"
            near = _nearest(target, {f"{key}={each}": state for each, state in sizes.items()})
            raise InputError(
                f"model.match.state={target:,} cannot be met within {STATE_TOLERANCE:.0%} by mixer {spec.name}, whose "
                f"state has steps of {slope:,} a layer here: nearest {near}"
            )
        solved.append(_scaled(spec, size))
    try:
        with torch.device("meta"):
            build(solved)
    except InputError as error:
        raise InputError(f"model.match.state={target:,} cannot be met: {error}") from error
    return solved


def scales_state(spec: MixerSpec) -> str | None:
    """The parameter in which the state of the mixer is affine, if there is one."""
    return operators.describe(spec.name).state_param


def verify(match: Any, model: Trunk) -> Match:
    """How `model` meets the budget for which it was solved earlier.

    Raises:
        InputError: it does not, or the budget is a time for which nobody has measured yet.
    """
    given = parse(match)
    budget, target = asked(given)
    hidden = model.spec.ffn_width
    if budget == TIME:
        if unmeasured(given):
            raise InputError(
                f"model.match.time={target:g} is met by measuring, which a run does: give model.hidden here"
            )
        measured = dict(given[MEASURED])
        if measured.pop("hidden") != hidden:
            raise InputError(
                f"model.hidden={hidden} is not the width that was measured for model.match.time={target:g}: leave "
                "model.hidden out, and it is measured"
            )
        return Match(budget, target, hidden, measured.pop("seconds"), measured)
    if budget == STATE:
        states = _states(model)
        value = max(states, key=lambda state: abs(state - target))
        if abs(value / target - 1) > STATE_TOLERANCE:
            raise InputError(
                f"model.match.state={target:,} is not met: a layer has a state of {value:,}; leave out the mixer's "
                "parameter that scales it, and it is solved"
            )
        return Match(budget, target, hidden, value, {"states": "+".join(dict.fromkeys(map(str, states)))})
    found_size = _size(model.cost(), budget)
    if abs(found_size / target - 1) > TOLERANCE:
        raise InputError(
            f"model.hidden={hidden} does not meet model.match.{budget}={target:,}: the model has "
            f"{found_size:,}; leave model.hidden out, and it is solved"
        )
    return Match(budget, target, hidden, found_size, {})


def _size(cost: ModelCost, budget: str) -> int:
    return int(getattr(cost, _SIZES[budget]))


def _states(model: Trunk) -> list[int]:
    """State elements of a layer of each spec, the first in which it stands, for an image of the nominal size."""
    grids = model.mixed_grids(*model.image_size)
    first = {number: index for index, number in reversed(list(enumerate(model.assigned)))}
    return [model.mixers[first[number]].cost(*grids[first[number]]).state_elements for number in sorted(first)]


def _scaled(spec: MixerSpec, size: int) -> MixerSpec:
    """The mixer with a state of that size, unless its parameter is given."""
    parameter = scales_state(spec)
    if parameter is None or spec.params.get(parameter) is not None:
        return spec
    return replace(spec, params={**spec.params, parameter: size})


def _fixed(spec: MixerSpec, target: int, state: int) -> str:
    """Why no parameter brings the state of the mixer to the target."""
    parameter = scales_state(spec)
    given = None if parameter is None else spec.params.get(parameter)
    reason = f"mixer.{parameter}={given} is given" if given is not None else "no parameter of its own changes it"
    scaled = [f"{name} ({by})" for name in operators.names() if (by := operators.describe(name).state_param)]
    other = f"take {{state: {state}}} for all arms, or one of" if state else "take one of"
    return (
        f"model.match.state={target:,} cannot be met by mixer {spec.name}: its state is {state:,} a layer on this grid "
        f"and {reason}; {other} {', '.join(scaled)}"
    )


def _nearest(target: int, near: Mapping[str, int]) -> str:
    below = max(((size, setting) for setting, size in near.items() if size <= target), default=None)
    above = min(((size, setting) for setting, size in near.items() if size > target), default=None)
    return " and ".join(
        f"{side} {width[0]:,} ({width[1]})" if width else f"none {side}"
        for side, width in (("below", below), ("above", above))
    )
