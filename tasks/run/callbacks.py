"""What the training loop does besides training."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from torch import Tensor

from operators.precision import wide
from operators.runtime.torch_private import lerp_
from tasks.base import Task
from tasks.data.files.corrupt import Corrupt
from tasks.system import checkpoint as checkpoints
from tasks.system.lightning_private import OpenAveraging

_WHOLE = "whole."
"""Begins the names, in a checkpoint's `averaging_state`, of averages that the model's type cannot hold."""


class Averaging(OpenAveraging):
    """Exponential moving average of the parameters; validation, test and checkpoints use it.

    The decay after n updates is min(decay, (1 + n) / (10 + n)), so that short runs forget their initialisation.
    Parameters of half precision have theirs in float32, since a small step would be rounded away. The model works with
    it rounded to its own type, as checkpoints have it under `state_dict`; under `averaging_state` they have it whole.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=False, multi_avg_fn=self._average)
        self._decay = decay
        self._step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep the average where training happens: Lightning moves the model there only later."""
        self.place(trainer.strategy.root_device)
        super().setup(trainer, pl_module, stage)
        average = self.average
        if average is not None and any(p.dtype != wide(p.dtype) for p in average.module.parameters()):
            for parameter in average.module.parameters():
                parameter.data = parameter.data.to(wide(parameter.dtype))
            # Torch takes all parameters at once only where both have one type.
            average.multi_avg_fn, average.avg_fn = None, self._average_alone
        self._current: list[Tensor] = []

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """After every optimiser step."""
        if step_idx is None:
            return False
        self._step = step_idx
        return True

    def _average(self, average: Any, current: Any, _number: Any) -> None:
        lerp_(average, current, self._share)

    def _average_alone(self, average: Tensor, current: Tensor, _number: Any) -> Tensor:
        return average.lerp(current.to(average.dtype), self._share)

    @property
    def _share(self) -> float:
        return 1 - min(self._decay, (1 + self._step) / (10 + self._step))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the average, rounded to the model's type, in the place of the model's weights, and both beside it."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        current = checkpoint.get("current_model_state")
        if current is None:
            return
        whole = checkpoint["state_dict"]
        kept = {name: value for name, value in whole.items() if value.dtype != current[name].dtype}
        checkpoint["averaging_state"] |= {f"{_WHOLE}{name}": value for name, value in kept.items()}
        checkpoint["state_dict"] = {name: value.to(current[name].dtype) for name, value in whole.items()}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the average back in full precision, where the checkpoint kept it so, in place of the rounded one."""
        state = checkpoint.get("averaging_state", {})
        kept = {name.removeprefix(_WHOLE): value for name, value in state.items() if name.startswith(_WHOLE)}
        rest = {name: value for name, value in state.items() if not name.startswith(_WHOLE)}
        whole = {**checkpoint, "state_dict": {**checkpoint["state_dict"], **kept}}
        super().on_load_checkpoint(trainer, pl_module, whole | ({"averaging_state": rest} if state else {}))

    def swap(self, module: LightningModule) -> None:
        """Lend the model the average, or take that back: the average itself is never rounded."""
        parameters = [parameter.data for parameter in module.parameters()]
        if self._current:
            for parameter, own in zip(parameters, self._current, strict=True):
                parameter.copy_(own)
            self._current = []
        else:
            self._current = [parameter.clone() for parameter in parameters]
            self.lend(module)


def validation_scores(trainer: Trainer) -> dict[str, float]:
    """The latest scores of the validation split, by name."""
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}


class Contents(Callback):
    """Adds to checkpoints what rebuilds the model: see `tasks.system.checkpoint.KEY`."""

    def __init__(self, config: Mapping[str, Any], data: Mapping[str, Any], autoencoder: str | None = None) -> None:
        self._own = {"config": dict(config), "data": dict(data), "autoencoder": autoencoder}
        self._scores: dict[str, float] = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint_: dict[str, Any]) -> None:
        """Add the entry, with the latest validation scores."""
        self._scores = validation_scores(trainer) or self._scores
        checkpoint_[checkpoints.KEY] = {**self._own, "scores": self._scores}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint_: dict[str, Any]) -> None:
        """Take over the scores, until there are others: the trainer forgets them."""
        self._scores = dict(checkpoint_[checkpoints.KEY]["scores"])


class FinalValidation(Callback):
    """Lets a run be validated and checkpointed where it ends, in whatever epoch and wherever within it."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Ask Lightning to stop, which makes it validate first."""
        last = trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
        if 0 <= trainer.max_steps <= trainer.global_step:
            trainer.should_stop = last = True
        if last and trainer.check_val_every_n_epoch is not None:
            trainer.check_val_every_n_epoch = 1


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
        """Start the clock as training begins."""
        self._start = time.perf_counter()
        self._warm = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the time of this batch, and its images once the first ones are over."""
        now = time.perf_counter()
        self.seconds, self._start = self.seconds + now - self._start, now
        if self._warm:
            self._busy += now - self._since
            self._images += len(batch["index"]) * trainer.world_size
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
                known.unite([known_there[split] for known_there in everywhere])

    on_validation_epoch_end = on_test_epoch_end = on_train_epoch_end


class EpochLines(Callback):
    """One line an epoch, where there is no terminal for a progress bar."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the scores of a validation in one line, from rank 0."""
        if trainer.is_global_zero and trainer.state.fn == "fit":
            shown = ("train/loss", "val/loss", "val/error", "val/accuracy")
            scores = {name: float(trainer.callback_metrics[name]) for name in shown if name in trainer.callback_metrics}
            listed = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
            epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"
            self._console.print(
                f"epoch {trainer.current_epoch + 1}/{epochs}  step {trainer.global_step}  {listed}", highlight=False
            )
