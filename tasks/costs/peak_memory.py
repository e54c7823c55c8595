"""Peak memory of training."""

from __future__ import annotations

import gc
from itertools import chain
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from operators.benchmark.measuring.memory import give_back

_SELF = Path("/proc/self")


class PeakMemory(Callback):
    """Notes the most memory that a run takes while it trains: its tensors and what computing them needs.

    Attributes:
        megabytes: allocated on a GPU. On Linux's CPUs the model, and what the process grows by after training begins:
            what the program itself takes is left out, and so is what earlier runs of the process have left behind.
            None where the system does not say.
    """

    def __init__(self) -> None:
        self.megabytes: float | None = None
        self._apart = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the peak of earlier runs of the process, and what they took."""
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        elif (_SELF / "clear_refs").exists():
            gc.collect()
            give_back()  # memory that is kept would be used again, and not be seen as taken
            (_SELF / "clear_refs").write_text("5")  # proc(5): resets the peak resident set size
            tensors = chain(pl_module.parameters(), pl_module.buffers())
            self._apart = _status("VmRSS") - sum(tensor.nbytes for tensor in tensors)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the peak of memory when training ends."""
        if pl_module.device.type == "cuda":
            self.megabytes = torch.cuda.max_memory_allocated(pl_module.device) / 1e6
        elif (_SELF / "clear_refs").exists():
            self.megabytes = (_status("VmHWM") - self._apart) / 1e6


def _status(name: str) -> int:
    """A size in `/proc/self/status`, in bytes."""
    facts = dict(line.split(":", 1) for line in (_SELF / "status").read_text().splitlines() if ":" in line)
    return int(facts[name].split()[0]) * 1024
