"""Checkpoints: what a run adds to Lightning's, reading one safely, and a configuration that comes out of one."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from operators.errors import InputError
from tasks.overrides import parse

KEY = "operator_zoo"
"""Where a checkpoint keeps what the run adds: `config`, the resolved configuration; `data`, the data set's
`num_classes`, `channels` and `image_size`; `scores`, the `val/…` of its weights."""

# What may differ from the checkpoint; everything else was decided when the run began.
_FREE = {
    "fit": ("trainer", "logger", "data.root", "data.num_workers"),
    "test": ("trainer", "logger", "data", "optimizer", "seed", "sample", "task.network", "task.weights"),
    "sample": ("trainer", "logger", "optimizer", "seed", "sample"),
}
_CONTROL = ("mode", "ckpt", "init")
_MISSING = object()


def load(path: str | Path, what: str = "ckpt") -> dict[str, Any]:
    """The checkpoint at `path`, on the CPU, with nothing but plain containers and tensors inside.

    Raises:
        InputError: `what=path` is not there, is damaged, or was not written by a run of this program.
    """
    file = Path(path)
    if file.is_dir():
        raise InputError(f"{what}={path} is a directory: give a file, such as {file / 'checkpoints' / 'last.ckpt'}")
    if not file.is_file():
        raise InputError(f"{what}={path} does not exist")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of a kind that is refused
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(f"{what}={path} is not a readable checkpoint: damaged, cut off, or no checkpoint") from error
    if not isinstance(content, dict) or KEY not in content or "state_dict" not in content:
        raise InputError(f"{what}={path} was not written by a run of this program")
    return content


def load_weights(module: nn.Module, state: Mapping[str, Any], where: str) -> None:
    """Fill `module` with the weights `state` of the checkpoint called `where`.

    Raises:
        InputError: they are another model's; names the first parameter that does not fit.
    """
    own = module.state_dict()
    for name in [*own, *state]:
        have, want = (tuple(s[name].shape) if name in s else "nothing" for s in (state, own))
        if have != want:
            raise InputError(f"{where} is of another model: for {name} it has {have}, this model {want}")
    module.load_state_dict(state)


def adopt(composed: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration of the checkpoint `composed["ckpt"]`, with what the `overrides` may change.

    Args:
        composed: the configuration that the overrides make by themselves.
        overrides: those the user gave.

    Raises:
        InputError: no such checkpoint, or an override that contradicts it.
    """
    mode = composed["mode"]
    if mode not in _FREE:
        return dict(composed)
    config: dict[str, Any] = deepcopy(load(composed["ckpt"])[KEY]["config"])
    if mode == "sample" and "sample" not in config:
        task = config["task"]["name"]
        raise InputError(f"mode=sample draws from a generator: ckpt={composed['ckpt']} is of task={task}")
    config.update({key: composed[key] for key in _CONTROL})
    for override in parse(overrides):
        key = override.key_or_group.split("@")[0]
        if override.is_delete() or override.is_hydra_override() or key in _CONTROL:
            continue
        if key == "experiment":
            raise InputError("experiment= and ckpt= exclude each other: the checkpoint brings its own configuration")
        given, recorded = _get(composed, key), _get(config, key)
        if any(key == free or key.startswith(f"{free}.") for free in _FREE[mode]):
            _set(config, key, given)
        elif _comparable(given) != _comparable(recorded):
            has = "none" if recorded is _MISSING else repr(_comparable(recorded))
            raise InputError(f"{key}={_comparable(given)!r} contradicts the checkpoint, which has {has}: leave it out")
    return config


def _comparable(value: Any) -> Any:
    """Choosing a group's option says which one; what it holds may have been overridden key by key."""
    return value["name"] if isinstance(value, Mapping) and "name" in value else value


def _get(config: Mapping[str, Any], key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return _MISSING
        node = node[part]
    return node


def _set(config: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    node = config
    for part in parents:
        node = node.setdefault(part, {})
    node[last] = deepcopy(value)
