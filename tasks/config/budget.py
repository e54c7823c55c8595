"""What `model.match` means for a run: the configuration carries what meets the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from models import targets
from models.spec import MixerSpec, StageMixers, like, listed
from operators.errors import InputError
from tasks.config.layers import mixer_specs
from tasks.config.overrides import PDE_MIXER, parse
from tasks.config.schema import RunConfig

if TYPE_CHECKING:
    from tasks.config.images import Images


def in_numbers(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with its `model.match`, if it has one, in plain numbers.

    Raises:
        InputError: `model.hidden` is given beside a budget that decides it, or the budget is none.
    """
    node = config["model"]
    if not isinstance(node, Mapping) or node.get("match") is None:
        return dict(config)
    wanted = targets.parse(node["match"])
    if node.get("hidden") is not None and targets.STATE not in wanted and targets.MEASURED not in wanted:
        raise InputError(f"model.hidden={node['hidden']} and model.match exclude each other: the budget decides it")
    return {**config, "model": {**node, "match": wanted}}


def settle(run: RunConfig, overrides: Sequence[str] = ()) -> RunConfig:
    """`run` with what its budget, if it has one, means: `model.hidden`, or the parameters that scale mixers' states.

    A budget of time is met where the run begins, by measuring: see `tasks.costs.match`.

    Args:
        run: as composed.
        overrides: that it was composed of.

    Raises:
        InputError: as `in_numbers`, an override of what the budget decides, nothing meets the budget, or no such model
            can be.
    """
    if run.model.get("match") is None:
        return run
    import tasks.data

    run = run.changed("model", in_numbers(run.plain)["model"])
    budget, _ = targets.asked(run.model["match"])
    if budget == targets.TIME:
        return run
    images = run.images(tasks.data.describe(**run.data))
    if budget == targets.STATE:
        return _with_state(run, images, overrides)
    return run.changed("model", {**run.model, "hidden": run.build(images, device="meta").spec.hidden})


def _with_state(run: RunConfig, images: Images, overrides: Sequence[str]) -> RunConfig:
    from models import match

    given = listed(run.mixers)
    scaled = {spec.name: match.scales_state(spec) for spec in given}
    free = [
        replace(spec, params={key: value for key, value in spec.params.items() if key != scaled[spec.name]})
        for spec in given
    ]
    unmatched = run.changed("model", {**run.model, "match": None})
    solved = match.solve_state(
        run.model["match"],
        free,
        lambda specs: replace(unmatched, mixers=like(run.mixers, specs)).build(images, device="meta"),
    )
    plain = deepcopy(dict(run.plain))
    if isinstance(run.mixers, StageMixers):
        _write_stages(plain, solved, scaled)
        solved = [spec for spec in solved if spec.name == PDE_MIXER]
    for spec in solved:
        key = scaled[spec.name]
        if key is not None and key in spec.params:
            _write(plain, spec.name, key, spec.params[key], overrides)
    mixers = mixer_specs(plain["mixer"], plain["shell"], plain.get("pde"))
    return replace(run, mixers=mixers, plain=plain)


def _write_stages(plain: dict[str, Any], solved: Sequence[MixerSpec], scaled: Mapping[str, str | None]) -> None:
    """Put the parameters of the mixers of stages, but those of the PDE layers, where the configuration has them."""
    specs, stages = iter(solved), []
    for stage in plain["mixer"]["stages"]:
        entries = []
        for entry in stage if isinstance(stage, list | tuple) else [stage]:
            spec = next(specs)
            own, key = dict(entry) if isinstance(entry, Mapping) else {"name": entry}, scaled[spec.name]
            if spec.name != PDE_MIXER and key is not None and key in spec.params:
                own[key] = spec.params[key]
            entries.append(own)
        stages.append(entries)
    plain["mixer"]["stages"] = stages


def _write(plain: dict[str, Any], mixer: str, key: str, value: int, overrides: Sequence[str]) -> None:
    """Put the parameter of a mixer where the configuration has it."""
    node, name = plain["mixer"], "mixer"
    if mixer == PDE_MIXER and "pde" in plain:
        node, name = plain["pde"], "pde"
    elif "pattern" in node:
        node, name = plain["mixer"].setdefault("params", {}).setdefault(mixer, {}), f"mixer.params.{mixer}"
    for override in parse(overrides):
        if override.key_or_group == f"{name}.{key}":
            raise InputError(f"{name}.{key} and model.match.state exclude each other: the budget decides it")
    if key in (node.get("over_depth") or {}):
        raise InputError(f"{name}.over_depth.{key} and model.match.state exclude each other: the budget decides it")
    node[key] = value
