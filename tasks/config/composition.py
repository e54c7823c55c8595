"""From overrides to one plain, resolved configuration; and Hydra's complaints in one line each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import hydra
from hydra import initialize_config_module
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from operators.errors import InputError, nearest
from tasks.config import bounds, budget, mixers, schema
from tasks.config.overrides import PDE_MIXER, normalise, parse, run_directory
from tasks.config.schema import RunConfig
from tasks.system.atomic_files import PREVIOUS

REFUSALS = (HydraException, OmegaConfBaseException, YAMLError, ValueError, OSError, RecursionError)
"""What Hydra raises for input that it cannot compose, and says so."""

_COMPOSERS = ("hydra", "omegaconf", "antlr4", "yaml")
_UNKNOWN = "Could not override '"


def compose(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The configuration of the run that `python run.py OVERRIDES` would do, in plain containers; raises as `read`."""
    return dict(read(overrides).plain)


def read(overrides: Sequence[str] = ()) -> RunConfig:
    """The run that `python run.py OVERRIDES` would do.

    Raises:
        InputError: overrides that do not fit together, with the nearest valid name.
    """
    try:
        return settle(_compose(normalise(overrides)), overrides)
    except InputError:
        raise
    except Exception as error:
        if not refuses(error):
            raise
        raise translate(error, overrides) from error


def refuses(error: Exception) -> bool:
    """Whether `error`, raised while Hydra composed, is about its input: of `REFUSALS`, or raised in its own code."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = "" if frame is None else str(frame.tb_frame.f_globals.get("__name__"))
    return isinstance(error, REFUSALS) or where.split(".")[0] in _COMPOSERS


def settle(config: DictConfig, overrides: Sequence[str]) -> RunConfig:
    """The run that the composed `config` asks for, after what Hydra's composition cannot express.

    A hybrid without a PDE layer has no node `pde`; the node `plan` goes with mode=plan; `model.match` decides
    `model.hidden`; with `ckpt=PATH` the checkpoint's configuration takes over.

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
    pattern = plain["mixer"].get("pattern") if isinstance(plain["mixer"], dict) else None
    if isinstance(pattern, list) and PDE_MIXER not in pattern and "pde" in plain:
        del plain["pde"]
        for override in parse(overrides):
            if override.key_or_group.split(".")[0] == "pde" and not override.is_delete():
                raise InputError(_no_pde(override.key_or_group))
    if plain["mode"] != "plan":
        del plain["plan"]
        for override in parse(overrides):
            if override.key_or_group.split(".")[0] == "plan":
                raise InputError(f"{override.key_or_group} goes with mode=plan, not with mode={plain['mode']}")
    if plain["ckpt"] is None or plain["mode"] == "plan":  # which takes none, and says so
        run = schema.parse(plain)
        schema.check(run)
        return budget.settle(run, overrides)
    bounds.check_path("ckpt", plain["ckpt"])
    _check_checkpoint(plain["ckpt"])
    from tasks.system import checkpoint  # imports torch

    return schema.parse(checkpoint.adopt(budget.in_numbers(plain), overrides))


def _check_checkpoint(path: str) -> None:
    """Refuse a file that is not there, unless `tasks.system.checkpoint.load` has more to say about it."""
    file = Path(path)
    known = (file, file.with_name(PREVIOUS), run_directory(file) / "config.yaml")
    if not any(each.exists() for each in known):
        raise InputError(f"ckpt={path} does not exist")


def translate(error: Exception, overrides: Sequence[str]) -> InputError:
    """Hydra's `error` about the `overrides`, in one line that names the nearest valid key or option."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        listed = ", ".join(sorted(error.options))
        return InputError(f"{group}={option!r} is not known: allowed are {listed}{nearest(option, error.options)}")
    if isinstance(error, ConfigCompositionException) and text.startswith(_UNKNOWN):
        return InputError(_unknown(text[len(_UNKNOWN) :].split("'")[0], overrides))
    if isinstance(error, InputError):
        return error
    if isinstance(error, RecursionError):
        return InputError("an override or a configuration file has too many levels, or one that holds itself")
    if isinstance(error, OSError) and error.strerror:
        return InputError(f"{error.filename}: {error.strerror}; hydra.run.dir=DIR must be a folder that can be made")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if text.startswith("Ambiguous value"):
        return InputError(f"{lines[0]}: quote a list as [a,b], or add --multirun to run each")
    if isinstance(error, OverrideParseException):
        return InputError(f"override {error.override!r} cannot be read: {lines[-2] if len(lines) > 1 else lines[0]}")
    if isinstance(error.__cause__, OmegaConfBaseException):
        lines += str(error.__cause__).splitlines()[:1]
    if not isinstance(error, REFUSALS):
        own = [text for text in overrides if text.lstrip("+~").startswith("hydra")]
        lines = [f"Hydra cannot use {', '.join(own) or 'these overrides'}: {type(error).__name__}", *lines]
    return InputError("; ".join(line for line in lines if not line.startswith("object_type")) or repr(error))


def _compose(overrides: Sequence[str]) -> DictConfig:
    mixers.offer()
    with initialize_config_module("conf", version_base="1.3", job_name="run"):
        return hydra.compose("config", list(overrides))


def _unknown(key: str, overrides: Sequence[str]) -> str:
    """Why `key` is not there: what is, where it stops, and what is nearest."""
    if key.split(".")[0] == "hydra":
        return f"{key} does not exist: see --hydra-help"
    node: Any = _without(key, overrides)
    parts = key.split(".")
    if parts[0] == "pde" and "pde" not in node:
        return _no_pde(key)
    if parts[0] == "sample" and "sample" not in node:
        return f"{key} does not exist here: sample.* exists only with task=generation"
    for depth, part in enumerate(parts):
        if not isinstance(node, DictConfig) or part not in node:
            place = ".".join(parts[:depth]) or "the configuration"
            names = sorted(map(str, node)) if isinstance(node, DictConfig) else []
            if depth == 0:
                names = sorted({*names, "experiment"})
            return f"{key} does not exist: {place} has {', '.join(names) or 'nothing inside'}{nearest(part, names)}"
        node = node[part]
    return f"{key} cannot be overridden like that: choose an option of a group as GROUP=OPTION, a value as KEY=VALUE"


def _without(key: str, overrides: Sequence[str]) -> DictConfig:
    """What composes once every override that names something unknown, `key` first, is left out."""
    changed = normalise(overrides)
    kept = [text for text, override in zip(changed, parse(changed), strict=True) if not override.is_sweep_override()]
    while True:
        before = len(kept)
        kept = [text for text, override in zip(kept, parse(kept), strict=True) if key not in _names(override)]
        try:
            return _compose(kept)
        except ConfigCompositionException as error:
            if not str(error).startswith(_UNKNOWN) or len(kept) == before:
                raise
            key = str(error)[len(_UNKNOWN) :].split("'")[0]


def _names(override: Override) -> tuple[str, str]:
    """What Hydra may call it: without and with its package."""
    return override.key_or_group, f"{override.key_or_group}@{override.package}"


def _no_pde(key: str) -> str:
    return f"{key} does not exist here: pde.* exists only with mixer={PDE_MIXER} or a hybrid that contains it"
