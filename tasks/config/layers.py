"""Which mixer each layer has: from the nodes `mixer`, `shell` and `pde` of a configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import cycle
from typing import Any

from models.spec import Mixers, MixerSpec, StageMixers
from operators import registry
from operators.errors import InputError, check_names
from tasks.config.overrides import PDE_MIXER


def mixer_specs(mixer: Mapping[str, Any], shell: Mapping[str, Any], pde: Mapping[str, Any] | None) -> Mixers:
    """The mixer of every layer, the pattern of them that is repeated over depth, or a pattern for each stage.

    There is a pattern in a hybrid (`mixer.pattern`), and where a parameter changes over depth (`over_depth`).

    Args:
        mixer: `{"name", "backend" (optional), "over_depth": {KEY: values} (optional), …parameters}`,
            `{"name", "backend" (optional), "pattern", "params": {NAME: parameters}}`, or
            `{"name", "backend" (optional), "stages"}`, see `conf/mixer/stages.yaml`.
        shell: preset's `name` and switches; serves every layer.
        pde: parameters of the PDE layers, which exists if and only if there are any.

    Raises:
        InputError: a pattern or a schedule that is none, or parameters for a mixer that is not in it.
    """
    params = dict(mixer)
    name = params.pop("name")
    if "stages" in params:
        return _stages(params, shell, pde)
    if "pattern" not in params:
        scheduled = _scheduled("mixer", name, params, shell, pde)
        return scheduled[0] if len(scheduled) == 1 else scheduled
    check_names("mixer", params, ["backend", "pattern", "params"])
    pattern, each = params["pattern"], params.get("params") or {}
    if not isinstance(pattern, (list, tuple)) or not pattern or not all(isinstance(entry, str) for entry in pattern):
        raise InputError(f"mixer.pattern={pattern!r} must be a list of mixers, such as [{PDE_MIXER},attention]")
    if not isinstance(each, Mapping):
        raise InputError(f"mixer.params={each!r} must hold the parameters of each mixer: mixer.params.NAME.KEY=VALUE")
    check_names("mixer.params", each, pattern)
    for entry, values in each.items():
        if not isinstance(values, Mapping):
            raise InputError(f"mixer.params.{entry}={values!r} must be a mapping: mixer.params.{entry}.KEY=VALUE")
    if pde is not None and PDE_MIXER not in pattern:
        raise InputError(f"pde exists only with mixer={PDE_MIXER} or a hybrid that contains it")
    common = {"backend": params.get("backend", "auto")}
    schedules = {
        entry: _scheduled(f"mixer.params.{entry}", entry, {**common, **each.get(entry, {})}, shell, pde)
        for entry in dict.fromkeys(pattern)
    }
    turns = {entry: cycle(scheduled) for entry, scheduled in schedules.items()}
    rounds = math.lcm(*map(len, schedules.values()))
    return _shortest_period([next(turns[entry]) for entry in [*pattern] * rounds])


def _scheduled(
    where: str, name: str, params: dict[str, Any], shell: Mapping[str, Any], pde: Mapping[str, Any] | None
) -> list[MixerSpec]:
    """The mixers of successive layers of `name` until they repeat; `where` is the node of the parameters."""
    schedule = params.pop("over_depth", None) or {}
    if not isinstance(schedule, Mapping):
        raise InputError(f"{where}.over_depth={schedule!r} must be a mapping: {where}.over_depth.KEY=[VALUE,VALUE]")
    schedule = dict(schedule)
    if isinstance(params.get("order"), list | tuple):
        if "order" in schedule:
            raise InputError(f"{where}.order and {where}.over_depth.order exclude each other")
        schedule["order"] = params.pop("order")
    if not schedule:
        return [_spec(name, params, shell, pde)]
    check_names(f"{where}.over_depth", schedule, registry.defaults(name))
    for key, values in schedule.items():
        if not isinstance(values, list | tuple) or not values:
            raise InputError(f"{where}.over_depth.{key}={values!r} must be a list: a value for each layer in turn")
    layers = [
        {key: values[layer % len(values)] for key, values in schedule.items()}
        for layer in range(math.lcm(*map(len, schedule.values())))
    ]
    spec = _spec(name, params, shell, pde)
    return _shortest_period([replace(spec, params={**spec.params, **layer}) for layer in layers])


def _shortest_period(specs: list[MixerSpec]) -> list[MixerSpec]:
    """The first of `specs`, as many as have to be repeated to give all of them."""
    whole = len(specs)
    return next(specs[:length] for length in range(1, whole + 1) if specs[:length] * (whole // length) == specs)


def _stages(params: Mapping[str, Any], shell: Mapping[str, Any], pde: Mapping[str, Any] | None) -> StageMixers:
    check_names("mixer", params, ["backend", "stages"])
    stages = params["stages"]
    if not isinstance(stages, list | tuple) or not stages:
        raise InputError(f"mixer.stages={stages!r} must be a list with a mixer, or a list of them, for each stage")
    common = params.get("backend", "auto")
    built = []
    for number, stage in enumerate(stages):
        entries = stage if isinstance(stage, list | tuple) else [stage]
        if not entries:
            raise InputError(f"mixer.stages[{number}] is empty: give a mixer or a list of them")
        built.append(tuple(_entry(f"mixer.stages[{number}]", entry, shell, pde, common) for entry in entries))
    if pde is not None and PDE_MIXER not in {spec.name for stage in built for spec in stage}:
        raise InputError(f"pde exists only with mixer={PDE_MIXER}, or where it is among others")
    return StageMixers(tuple(built))


def _entry(where: str, entry: Any, shell: Mapping[str, Any], pde: Mapping[str, Any] | None, backend: str) -> MixerSpec:
    """One mixer of a stage: a name, or a mapping of its `name`, its parameters and perhaps its `shell`."""
    params = dict(entry) if isinstance(entry, Mapping) else {"name": entry}
    name, own = params.pop("name", None), params.pop("shell", shell)
    if not isinstance(name, str):
        raise InputError(f"{where}: {entry!r} must be a mixer's name, or {{name: NAME, …}} with its parameters")
    if isinstance(own, str):
        own = {"name": own}
    if not isinstance(own, Mapping):
        raise InputError(f"{where}: shell={own!r} must be a preset's name, or {{name: NAME, …}} with switches")
    return _spec(name, {"backend": backend, **params}, own, pde)


def _spec(name: str, params: dict[str, Any], shell: Mapping[str, Any], pde: Mapping[str, Any] | None) -> MixerSpec:
    backend = params.pop("backend", "auto")
    if name == PDE_MIXER and pde is not None:
        for key in params:
            if key in pde:
                raise InputError(f"{key} of {PDE_MIXER} is set by pde.{key}")
        params |= pde
    return MixerSpec(name=name, params=params, shell=dict(shell), backend=backend)
