"""When and how a run is saved: files that are never torn, saves within an epoch, and stopping when asked to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from operators.errors import InputError
from tasks.base import Task
from tasks.system import atomic_files, checkpoint, results
from tasks.system.atomic_files import LAST, PREVIOUS
from tasks.system.lightning_private import validation_is_due
from tasks.system.reading import UnreadableError
from tasks.system.signals import Stop, StoppedError


class Files(CheckpointIO):
    """Reads checkpoints as `tasks.system.checkpoint.load` does; writes them whole, and keeps the `last.ckpt` before.

    Args:
        trusted: whether a `last.ckpt` that is already there is known to be good. One that is not is set aside.
    """

    def __init__(self, trusted: bool) -> None:
        self._trusted = trusted

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write `checkpoint`; a kill at any moment leaves the file that was there, or the new one.

        Raises:
            OSError: it cannot be written; names `path`.
        """
        path = Path(path)
        rotated = path.name == LAST and self._trusted
        if path.name == LAST and not self._trusted and path.exists():
            results.say(f"warning: the damaged {path} is kept as {atomic_files.set_aside(path).name}")
        with atomic_files.replacing(path, keep_as=path.with_name(PREVIOUS) if rotated else None) as file:
            _write(checkpoint, file)
        if path.name == LAST:
            self._trusted = True

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Checked, on the CPU, and nothing but plain containers and tensors, whatever is asked for."""
        return checkpoint.load(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the checkpoint at `path`, if there is one."""
        Path(path).unlink(missing_ok=True)


class _Attentive:
    """A file that remembers why writing failed: PyTorch's writer replaces the reason by its own."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self._file.flush()


def _write(content: dict[str, Any], file: IO[bytes]) -> None:
    attentive = _Attentive(file)
    try:
        torch.save(content, attentive)  # type: ignore[arg-type]
    except (OSError, RuntimeError) as error:
        if attentive.error is not None:
            raise attentive.error from error
        raise


class Best(ModelCheckpoint):
    """`best.ckpt`: that of the best validation so far, also after the run's directory was moved.

    Args:
        folder: of the checkpoints.
        monitor: score, and which way is better.
    """

    def __init__(self, folder: Path, monitor: tuple[str, str]) -> None:
        super().__init__(
            folder,
            "best",
            monitor[0],
            mode=monitor[1],
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        )

    def state_dict(self) -> dict[str, Any]:
        """The score of the best checkpoint so far, which a resumed run has to beat."""
        return {"score": self.best_model_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it over, as that of the file in this directory."""
        score = state_dict["score"]
        if score is not None:
            path = self.format_checkpoint_name({})
            self.best_k_models = {path: score}
            self.best_model_path = self.kth_best_model_path = path
            self.best_model_score = self.kth_value = score


class Saving(Checkpoint):
    """Saves `last.ckpt` after every validation, every so many optimiser steps, and when the run is asked to stop.

    A save within an epoch lies between two optimiser steps. Lightning continues there exactly, except where a
    validation is due right after the step: what is saved then is a validation that has not begun.

    Args:
        folder: of the checkpoints.
        every: optimiser steps after which to save; None only saves after validation.
        stop: what to heed; None heeds nothing.
    """

    def __init__(self, folder: Path, every: int | None, stop: Stop | None) -> None:
        self._path, self._every, self._stop = folder / LAST, every, stop
        self._seen = self._saved = 0
        self._leaving = self._validation_due = False
        self._position: dict[str, int] | None = None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint_: dict[str, Any]) -> None:
        """Note the position in the epoch."""
        (self._position,) = checkpoint_["loops"]["fit_loop"]["state_dict"]["combined_loader"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue at the position in the epoch, which Lightning only restores to a loader that is not yet there.

        It is there: the schedule of the learning rate had to know its length.
        """
        if self._position is not None:
            loader: Any = trainer.train_dataloader
            loader.load_state_dict(self._position)
            self._position = None
        self._seen = self._saved = trainer.global_step
        self._begin(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave, if the run is saved for that."""
        self._leave()
        if trainer.state.fn == "fit":
            # Those of a validation that was saved before it began would stay one ahead: begun, and never completed.
            trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Heed signals from here on."""
        self._begin(trainer)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Heed signals from here on."""
        self._begin(trainer)

    def on_train_batch_start(self, *_: Any) -> None:
        """Leave, if the run is saved for that: only here has the last step been logged."""
        self._leave()

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """End here if a signal asked for it."""
        self._look(trainer)

    def on_test_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """End here if a signal asked for it."""
        self._look(trainer)

    def on_predict_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """End here if a signal asked for it."""
        self._look(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Save, if it is time to.

        Raises:
            DivergedError: the parameters are no longer finite; the file keeps those that were.
        """
        if trainer.global_step == self._seen:
            return  # the next batch belongs to the same step
        self._seen = trainer.global_step
        asked = self._asked(trainer)
        if not asked and (self._every is None or self._seen - self._saved < self._every):
            return
        validation_due = validation_is_due(trainer)
        if validation_due:
            # Validation saves by itself. And Lightning would not begin a run again that has made all its steps.
            self._leaving = asked
            if not asked or 0 <= trainer.max_steps <= trainer.global_step:
                return
        elif trainer.is_last_batch:
            return  # an epoch without validation: Lightning cannot continue here, but after the next step
        self._leaving = asked
        assert isinstance(pl_module, Task)
        pl_module.check(all(bool(torch.isfinite(parameter).all()) for parameter in pl_module.parameters()))
        self._save(trainer, validation_due)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after each validation of a training run."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer)
            self._leaving = self._asked(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint_: dict[str, Any]) -> None:
        """Put down that the validation is still to come, in the terms of Lightning's loops."""
        if self._validation_due:
            loops = checkpoint_["loops"]["fit_loop"]
            for count in ("total", "current"):
                progress = loops["epoch_loop.batch_progress"][count]
                progress["completed"] = progress["processed"]
                begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
                loops["epoch_loop.val_loop.batch_progress"][count].update(begun)

    def _save(self, trainer: Trainer, validation_due: bool = False) -> None:
        for logger in trainer.loggers:
            logger.save()
        self._validation_due = validation_due
        trainer.save_checkpoint(self._path)
        self._validation_due = False
        self._saved = trainer.global_step

    def _begin(self, trainer: Trainer) -> None:
        if self._stop is not None:
            # Lightning's handler of SIGTERM communicates from within, at whatever the process is doing: not ours.
            self._stop.listen()
        self._look(trainer)

    def _asked(self, trainer: Trainer) -> bool:
        """Whether any process was asked to stop; all have to call it."""
        asked = self._stop is not None and self._stop.name is not None
        if self._stop is not None and trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        return asked

    def _look(self, trainer: Trainer) -> None:
        self._leaving = self._asked(trainer)
        self._leave()

    def _leave(self) -> None:
        if self._leaving:
            assert self._stop is not None
            raise StoppedError(self._stop.name or "SIGTERM")  # of another process, where this one got none


def refuse_to_overwrite(run_dir: Path) -> None:
    """Refuse a directory with a run in it, but not one with a run that ended before it had anything to save.

    Raises:
        InputError: there is a checkpoint, or a result.
    """
    last = run_dir / "checkpoints" / LAST
    if last.is_file() or last.with_name(PREVIOUS).is_file():
        raise InputError(f"{run_dir} already holds a run: continue it with ckpt={last}, or choose another directory")
    if any(run_dir.glob("checkpoints/*.ckpt")):
        raise InputError(f"{run_dir} already holds a run: choose another directory")
    result = results.read(run_dir / "metrics.json")
    if result is None:
        return
    try:
        status = json.loads(result)["status"]
    except (ValueError, LookupError, TypeError):
        status = "unknown"
    if status != "failed":
        raise InputError(f"{run_dir} already holds a run, of status {status}: choose another directory")


def no_room(reason: OSError, run_dir: Path) -> str:
    """What to tell who has to make room for the run: what failed, what is safe, and how it continues."""
    last = run_dir / "checkpoints" / LAST
    text = f"cannot write {reason.filename or f'in {run_dir}'}: {reason.strerror}, {atomic_files.room(run_dir)} free; "
    try:
        step = checkpoint.load(last)["global_step"]
    except UnreadableError as error:
        return f"{text}{error}"
    except InputError:
        return f"{text}no checkpoint is saved: make room, then start it again"
    return f"{text}{last} of step {step} is intact: make room, then continue with ckpt={last}"
