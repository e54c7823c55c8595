"""From overrides to one plain, resolved configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from operators.errors import InputError
from tasks.config import bounds, budget, mixers, schema
from tasks.config.hydra_errors import hydra_config, no_pde, refuses, translate
from tasks.config.overrides import PDE_MIXER, normalise, parse, run_directory
from tasks.config.schema import RunConfig
from tasks.system.atomic_files import PREVIOUS


def compose(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The configuration of the run that `python run.py OVERRIDES` would do, in plain containers; raises as `read`."""
    return dict(read(overrides).plain)


def read(overrides: Sequence[str] = ()) -> RunConfig:
    """The run that `python run.py OVERRIDES` would do.

    Raises:
        InputError: overrides that do not fit together, with the nearest valid name.
    """
    try:
        return settle(hydra_config(normalise(overrides)), overrides)
    except InputError:
        raise
    except Exception as error:
        if not refuses(error):
            raise
        raise translate(error, overrides) from error


def settle(config: DictConfig, overrides: Sequence[str]) -> RunConfig:
    """The run that the composed `config` asks for, after what Hydra's composition cannot express.

    A hybrid without a PDE layer has no node `pde`; `plan` goes with mode=plan, `transfer` with mode=test; `model.match`
    decides `model.hidden`; with `ckpt=PATH` the checkpoint's configuration takes over.

    Args:
        config: as Hydra has composed it.
        overrides: that it was composed of.

    Raises:
        InputError: an override that contradicts either; and, unless a checkpoint decides, whatever can be refused
            before torch is imported, or by the budget.
    """
    try:
        plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    except OmegaConfBaseException as error:
        raise translate(error, overrides) from error
    missing = [key for key in ("mixer", "model", "mode", "plan", "ckpt", "init", "seed") if key not in plain]
    if missing:
        raise InputError(f"~{missing[0]} takes out what every run needs: leave it out")
    bounds.check_values(plain)
    if isinstance(plain["mixer"], dict) and plain["mixer"].get("name") == mixers.PUBLISHED:
        plain = mixers.expanded(plain)
        for override in parse(overrides):
            if override.key_or_group.split(".")[0] == "shell":
                raise InputError(
                    f"{override.key_or_group} does not go with mixer={mixers.PUBLISHED}, which has its own shells: "
                    "give a mixer, too"
                )
    pattern = _pattern(plain["mixer"])
    if pattern is not None and PDE_MIXER not in pattern and "pde" in plain:
        del plain["pde"]
        for override in parse(overrides):
            if override.key_or_group.split(".")[0] == "pde" and not override.is_delete():
                raise InputError(no_pde(override.key_or_group))
    for node, mode in (("plan", "plan"), ("transfer", "test")):
        if plain["mode"] == mode:
            continue
        plain.pop(node, None)
        for override in parse(overrides):
            if override.key_or_group.split(".")[0] == node:
                raise InputError(f"{override.key_or_group} goes with mode={mode}, not with mode={plain['mode']}")
    if plain["ckpt"] is None or plain["mode"] == "plan":  # which takes none, and says so
        run = schema.parse(plain)
        schema.check(run)
        return budget.settle(run, overrides)
    bounds.check_path("ckpt", plain["ckpt"])
    _check_checkpoint(plain["ckpt"])
    from tasks.system import checkpoint  # imports torch

    return schema.parse(checkpoint.adopt(budget.in_numbers(plain), overrides))


def _pattern(node: Any) -> list[Any] | None:
    """The names of the mixers of a hybrid or of stages, as far as they can be read; None where there is one mixer."""
    if not isinstance(node, dict):
        return None
    pattern = node.get("pattern")
    if isinstance(pattern, list):
        return pattern
    if not isinstance(node.get("stages"), list):
        return None
    entries = [entry for stage in node["stages"] for entry in (stage if isinstance(stage, list) else [stage])]
    return [entry.get("name") if isinstance(entry, dict) else entry for entry in entries]


def _check_checkpoint(path: str) -> None:
    """Refuse a file that is not there, unless `tasks.system.checkpoint.load` has more to say about it."""
    file = Path(path)
    known = (file, file.with_name(PREVIOUS), run_directory(file) / "config.yaml")
    if not any(each.exists() for each in known):
        raise InputError(f"ckpt={path} does not exist")
