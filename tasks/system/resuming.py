"""A run directory that may hold an earlier, interrupted or ended, go at the same run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from operators.errors import InputError
from tasks.system import checkpoint, results
from tasks.system.atomic_files import LAST, set_aside
from tasks.system.reading import UnreadableError, reading


def earlier_result(folder: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """`metrics.json` of the run of `config`, if it has ended in `folder`: whoever carried it out could not tell.

    Raises:
        UnreadableError: it cannot be read at the moment.
    """
    result, settings = (results.read(folder / name) for name in ("metrics.json", "config.yaml"))
    if result is None or settings is None:
        return None
    try:
        metrics = json.loads(result)
        same = OmegaConf.to_container(OmegaConf.create(settings)) == dict(config)
    except (ValueError, YAMLError, OmegaConfBaseException, RecursionError):
        return None
    return metrics if same and isinstance(metrics, dict) and metrics.get("status") in ("ok", "diverged") else None


def continued(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that goes on where an interrupted run stands, or that begins it in a new folder.

    A folder that the run cannot go on from is set aside if it holds a checkpoint or a result, and else removed.

    Raises:
        UnreadableError: the folder, or what is in it, cannot be read at the moment; it is left as it is.
    """
    reason = "of another configuration"
    try:
        last, content = checkpoint.resumable(folder / "checkpoints" / LAST)
        if content[checkpoint.KEY]["config"] == {**config, "ckpt": None, "init": None}:
            return {**config, "ckpt": str(last)}
    except UnreadableError:
        raise
    except InputError as error:
        reason = str(error)
    with reading(str(folder)):
        if _holds_work(folder):
            results.say(f"warning: {folder} is kept as {set_aside(folder).name}: {reason}")
        elif folder.exists():
            shutil.rmtree(folder)
    return dict(config)


def _holds_work(folder: Path) -> bool:
    """Whether there is a checkpoint, or the result of a run that did not fail. Raises `OSError` where it cannot say."""
    try:
        names = os.listdir(folder / "checkpoints")
    except FileNotFoundError:
        names = []
    if any(name.endswith(".ckpt") for name in names):
        return True
    result = results.read(folder / "metrics.json")
    try:
        return result is not None and json.loads(result)["status"] != "failed"
    except (ValueError, LookupError, TypeError):
        return True
