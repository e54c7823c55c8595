"""Hydra's complaints in one line each; imports nothing that a wrong word need not wait for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hydra
from hydra import initialize_config_module
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from operators.errors import InputError, nearest
from tasks.config import mixers
from tasks.config.overrides import PDE_MIXER, normalise, parse

REFUSALS = (HydraException, OmegaConfBaseException, YAMLError, ValueError, OSError, RecursionError)
"""What Hydra raises for input that it cannot compose, and says so."""

_COMPOSERS = ("hydra", "omegaconf", "antlr4", "yaml")
_UNKNOWN = "Could not override '"


def refuses(error: Exception) -> bool:
    """Whether `error`, raised while Hydra composed, is about its input: of `REFUSALS`, or raised in its own code."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = "" if frame is None else str(frame.tb_frame.f_globals.get("__name__"))
    return isinstance(error, REFUSALS) or where.split(".")[0] in _COMPOSERS


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


def hydra_config(overrides: Sequence[str]) -> DictConfig:
    """What Hydra composes of these overrides; raises what it raises."""
    mixers.offer(overrides)
    with initialize_config_module("conf", version_base="1.3", job_name="run"):
        return hydra.compose("config", list(overrides))


def _unknown(key: str, overrides: Sequence[str]) -> str:
    """Why `key` is not there: what is, where it stops, and what is nearest."""
    if key.split(".")[0] == "hydra":
        return f"{key} does not exist: see --hydra-help"
    node: Any = _without(key, overrides)
    parts = key.split(".")
    if parts[0] == "pde" and "pde" not in node:
        return no_pde(key)
    if parts[0] == "sample" and "sample" not in node:
        return f"{key} does not exist here: sample.* exists only with task=generation"
    if parts[0] == "probe" and "probe" not in node:
        return f"{key} does not exist here: probe and probe.* exist only with task=probe"
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
            return hydra_config(kept)
        except ConfigCompositionException as error:
            if not str(error).startswith(_UNKNOWN) or len(kept) == before:
                raise
            key = str(error)[len(_UNKNOWN) :].split("'")[0]


def _names(override: Override) -> tuple[str, str]:
    """What Hydra may call it: without and with its package."""
    return override.key_or_group, f"{override.key_or_group}@{override.package}"


def no_pde(key: str) -> str:
    """Why `key`, inside `pde`, does not exist."""
    return f"{key} does not exist here: pde.* exists only with mixer={PDE_MIXER} or a hybrid that contains it"
