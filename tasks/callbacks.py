"""What the training loop does besides training."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from rich.console import Console

from tasks import checkpoint
from tasks.base import Task
from tasks.data.corrupt import Corrupt


class Averaging(WeightAveraging):
    """Exponential moving average of the parameters; validation, test and checkpoints use it.

    The decay after n updates is min(decay, (1 + n) / (10 + n)), so that short runs forget their initialisation.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=False, multi_avg_fn=self._average)
        self._decay = decay
        self._step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep the average where training happens: Lightning moves the model there only later."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """After every optimiser step."""
        if step_idx is None:
            return False
        self._step = step_idx
        return True

    def _average(self, average: Any, current: Any, _number: Any) -> None:
        decay = min(self._decay, (1 + self._step) / (10 + self._step))
        torch._foreach_lerp_(average, current, 1 - decay)


def validation_scores(trainer: Trainer) -> dict[str, float]:
    """The latest `val/…`."""
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}


class Contents(Callback):
    """Adds to checkpoints what rebuilds the model: see `tasks.checkpoint.KEY`."""

    def __init__(self, config: Mapping[str, Any], data: Mapping[str, Any], autoencoder: str | None = None) -> None:
        self._own = {"config": dict(config), "data": dict(data), "autoencoder": autoencoder}
        self._scores: dict[str, float] = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint_: dict[str, Any]) -> None:
        """Add the entry, with the latest validation scores."""
        self._scores = validation_scores(trainer) or self._scores
        checkpoint_[checkpoint.KEY] = {**self._own, "scores": self._scores}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint_: dict[str, Any]) -> None:
        """Take over the scores, until there are others: the trainer forgets them."""
        self._scores = dict(checkpoint_[checkpoint.KEY]["scores"])


class FinalValidation(Callback):
    """Lets a run that `max_steps` ends within an epoch be validated and checkpointed where it ends."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Ask Lightning to stop, which makes it validate first."""
        if 0 <= trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True


class Clock(Callback):
    """Seconds of training, and images per second without validation and without the first step (which warms up).

    Attributes:
        seconds: wall-clock time from the start of training to its end, validation included, over all restarts.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._images, self._busy = 0, 0.0
        self._start = self._since = 0.0
        self._warm = False

    @property
    def images_per_second(self) -> float | None:
        """Over all devices; None after fewer than two steps."""
        return self._images / self._busy if self._images else None

    def on_train_start(self, *_: Any) -> None:
        """Start."""
        self._start = time.perf_counter()
        self._warm = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch."""
        now = time.perf_counter()
        self.seconds, self._start = self.seconds + now - self._start, now
        if self._warm:
            self._busy += now - self._since
            self._images += len(batch["label"]) * trainer.world_size
        self._warm, self._since = True, now

    def on_validation_end(self, *_: Any) -> None:
        """Leave the validation out of the throughput."""
        self._since = time.perf_counter()

    def on_train_epoch_end(self, *_: Any) -> None:
        """Count the end of the epoch."""
        now = time.perf_counter()
        self.seconds, self._start = self.seconds + now - self._start, now

    def state_dict(self) -> dict[str, Any]:
        """What a continued run adds to."""
        return {"seconds": self.seconds, "images": self._images, "busy": self._busy}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Add to an earlier run."""
        self.seconds, self._images, self._busy = state_dict["seconds"], state_dict["images"], state_dict["busy"]


class CorruptCounts(Callback):
    """At the end of every epoch, makes the corrupt images that each process has met known to all of them."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Of every split; raises `InputError` where there are more than tolerated."""
        if trainer.world_size > 1:
            corrupt: dict[str, Corrupt] = trainer.datamodule.corrupt  # type: ignore[attr-defined]
            assert isinstance(pl_module, Task)
            everywhere = pl_module.gathered({split: known.found for split, known in corrupt.items()})
            for split, known in corrupt.items():
                known.unite([found[split] for found in everywhere])

    on_validation_epoch_end = on_test_epoch_end = on_train_epoch_end


class EpochLines(Callback):
    """One line an epoch, where there is no terminal for a progress bar."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the scores."""
        if trainer.is_global_zero and trainer.state.fn == "fit":
            shown = ("train/loss", "val/loss", "val/accuracy")
            scores = {name: float(trainer.callback_metrics[name]) for name in shown if name in trainer.callback_metrics}
            listed = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
            epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"
            self._console.print(
                f"epoch {trainer.current_epoch + 1}/{epochs}  step {trainer.global_step}  {listed}", highlight=False
            )
