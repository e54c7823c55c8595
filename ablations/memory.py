"""Peak memory of a run."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

_SELF = Path("/proc/self")


class PeakMemory(Callback):
    """Notes the most memory in use while training.

    Attributes:
        megabytes: allocated on a GPU; resident in the process on Linux's CPUs, what the program itself takes included;
            None where the system does not say.
    """

    def __init__(self) -> None:
        self.megabytes: float | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the peak of earlier runs of the process."""
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        elif (_SELF / "clear_refs").exists():
            (_SELF / "clear_refs").write_text("5")  # proc(5): resets the peak resident set size

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the peak."""
        if pl_module.device.type == "cuda":
            self.megabytes = torch.cuda.max_memory_allocated(pl_module.device) / 1e6
        elif (_SELF / "status").exists():
            facts = dict(line.split(":", 1) for line in (_SELF / "status").read_text().splitlines() if ":" in line)
            self.megabytes = float(facts["VmHWM"].split()[0]) * 1024 / 1e6
