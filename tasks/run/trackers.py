"""Weights & Biases and MLflow: Lightning's loggers for runs that may be continued."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger

from operators.errors import InputError
from tasks.config.training import LoggerConfig
from tasks.system import environment, results

IDENTITY = "tracker.json"
"""File of the run directory that says which run of the tracker is this one, so that a continued run goes on in it."""
URI, HERE = "MLFLOW_TRACKING_URI", "sqlite:///mlflow.db"
"""MLflow's variable for where it keeps runs, and its own default: a file of the working directory."""


def create(config: LoggerConfig, folder: Path, *, continued: bool) -> WandbLogger | MLFlowLogger:
    """The logger of `wandb` or `mlflow` for the run in `folder`, not yet connected.

    Args:
        config: of the logger.
        folder: the run directory, where wandb keeps files of its own.
        continued: whether the run goes on where it stands.

    Raises:
        InputError: the tracker's package does not work.
    """
    known = _identity(folder) if continued else {}
    run = str(known["run"]) if known.get("logger") == config.name else None
    with _refusals(config):
        if config.name == "wandb":
            own: dict[str, Any] = {"project": config.project, "offline": config.offline}
            return WandbLogger(save_dir=folder, name=folder.name, id=run or secrets.token_hex(4), **own)
        uri = config.uri or os.environ.get(URI, HERE)
        return MLFlowLogger(config.project, folder.name, uri, run_id=run)


def connect(logger: Logger, config: LoggerConfig, folder: Path) -> None:
    """Begin, or go on with, the run of the tracker, from the first process.

    Raises:
        InputError: the tracker is not reached, or wants a login.
    """
    if environment.rank() > 0:
        return
    with _refusals(config):
        _ = logger.experiment  # type: ignore[attr-defined]
    results.write_json(folder / IDENTITY, {"logger": config.name, "run": logger.version})


@contextmanager
def _refusals(config: LoggerConfig) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        offline = "; logger.offline=true needs no server" if config.name == "wandb" and not config.offline else ""
        raise InputError(f"logger={config.name}: {' '.join(str(error).split())}{offline}") from error


def _identity(folder: Path) -> dict[str, Any]:
    text = results.read(folder / IDENTITY)
    try:
        content = json.loads(text or "{}")
    except ValueError as error:
        raise InputError(f"{folder / IDENTITY} is damaged: {error}") from error
    return content if isinstance(content, dict) else {}
