"""A small run with much to lose, in a process of its own that can be killed; and what has to be the same in the end."""

from __future__ import annotations

import csv
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

# Averages, mixed images, dropped paths, and steps of two batches of which the epoch's last has only one.
RUN = (
    "mixer=pool",
    "model.dim=16",
    "model.depth=2",
    "model.drop_path=0.3",
    "data.batch_size=16",
    "data.augment.mixup=0.4",
    "optimizer.lr=0.01",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "+trainer.limit_train_batches=7",
    "+trainer.limit_val_batches=2",
    "+trainer.limit_test_batches=1",
    "trainer.ema=0.9",
    "trainer.accumulate=2",
    "trainer.save_every=2",
    "logger=csv",
    "logger.every=1",
)
STEPS = 8
TIMES = ("train/seconds", "train/images_per_second")


def forked(work: Callable[[], int], output: Path) -> int:
    """Start `work` in a copy of this process, which exits with what it returns and writes to `output`; its id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads, whose locks we do not take
        child = os.fork()
    if child:
        return child
    status = 70
    try:
        os.setpgid(0, 0)
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in (1, 2):
            os.dup2(descriptor, number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        status = work()
    except BaseException:  # noqa: BLE001 - pytest must not go on in two processes
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def ended(child: int) -> int:
    """Wait for it: its exit status, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def outcome(run_dir: Path) -> dict[str, Any]:
    """Everything a run leaves that an interruption must not change."""
    checkpoints = {
        name: torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("last", "best")
    }
    for content in checkpoints.values():
        del content["callbacks"]["Clock"]
        # How many batches of a validation are done says nothing between two of them, and is not restored exactly.
        del content["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    metrics = json.loads((run_dir / "metrics.json").read_text())
    with np.load(run_dir / "predictions.npz") as file:
        predictions = {name: torch.from_numpy(file[name]) for name in file.files}
    return {
        **checkpoints,
        "metrics": {key: value for key, value in metrics.items() if key not in TIMES},
        "predictions": predictions,
        "curves": curves(run_dir),
    }


def curves(run_dir: Path) -> dict[str, list[tuple[int, str]]]:
    """Steps and values of what was logged."""
    with (run_dir / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        key: [(int(row["step"]), row[key]) for row in rows if row[key]]
        for key in ("train/loss", "val/loss", "test/loss")
        if key in rows[0]
    }


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two nests of containers and tensors are not the same bits."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [where]
    if isinstance(one, dict) and isinstance(other, dict):
        keys = {*one, *other}
        return [d for key in keys for d in differences(one.get(key), other.get(key), f"{where}/{key}")]
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        return [d for i, (a, b) in enumerate(zip(one, other, strict=True)) for d in differences(a, b, f"{where}/{i}")]
    return [] if type(one) is type(other) and one == other else [f"{where}: {one} and {other}"]
