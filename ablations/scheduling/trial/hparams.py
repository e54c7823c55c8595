"""A trial's settings beside its scores, for TensorBoard's table of hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from operators.runtime.torch_private import write_settings


def log_settings(run_dir: Path, settings: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    """Add an event file to the run.

    Its scores are called `study/…`, so that they do not become points of the curves of the same name.
    """
    scores = {
        f"study/{key}": value
        for key, value in metrics.items()
        if key.startswith(("val/", "test/")) and isinstance(value, int | float)
    }
    with SummaryWriter(str(run_dir), filename_suffix=".settings") as writer:
        write_settings(writer, settings, scores)
        for key, value in scores.items():
            writer.add_scalar(key, value)
