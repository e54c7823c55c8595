"""Lightning's trainer as a run's settings ask for it, without its advice."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.callbacks import RichProgressBar

from operators.command_line import console
from operators.errors import InputError
from tasks.config.schema import RunConfig
from tasks.run import loggers
from tasks.run.callbacks import Averaging, CorruptCounts, EpochLines, FinalValidation
from tasks.run.curves import Inputs, MixerPictures
from tasks.run.patience import Patience
from tasks.run.restoring import WHOLE
from tasks.run.saving import Best, Files, Saving
from tasks.system import environment


def create(
    settings: RunConfig,
    run_dir: Path,
    monitor: tuple[str, str],
    callbacks: Sequence[Callback],
    saving: Saving,
    io: Files,
    step: int,
) -> Trainer:
    """Lightning's trainer for a run.

    Args:
        settings: the run's.
        run_dir: where its results go.
        monitor: the score that the best checkpoint is chosen by, and `min` or `max`.
        callbacks: the run's own, called after those that measure and before those that save.
        saving: writes the last checkpoint.
        io: writes files.
        step: that the run goes on from.

    Raises:
        InputError: Lightning refuses the options.
    """
    asked, out = settings.trainer, console()
    _check_accelerator(asked.accelerator, asked.strategy)
    if settings.logger.pictures and not asked.strategy.startswith(WHOLE):
        raise InputError(
            f"logger.pictures={settings.logger.pictures} needs a process that has the whole model, which "
            f"trainer.strategy={asked.strategy} has not: give trainer.strategy=auto or ddp, or logger.pictures=0"
        )
    plugins: list[Any] = [io]
    allocated = "SLURM_NTASKS" in os.environ and not environment.started_by_srun()
    if allocated and not TorchElasticEnvironment.detect():
        plugins.append(LightningEnvironment())  # SLURM gave this process a place, and did not start it
    logger = loggers.create(settings.logger, run_dir, step)
    own: list[Callback] = [
        CorruptCounts(),
        FinalValidation(),
        RichProgressBar() if out.is_terminal else EpochLines(out),
    ]
    if logger:
        own.append(Inputs())
    if settings.logger.pictures:
        own.append(MixerPictures(settings.logger.pictures))
    if asked.ema:
        own.append(Averaging(asked.ema))
    if asked.patience is not None:
        own.append(Patience(monitor, asked.patience))
    best = Best(run_dir / "checkpoints", monitor)
    try:
        return Trainer(
            max_epochs=asked.max_epochs,
            max_steps=-1 if asked.max_steps is None else asked.max_steps,
            accelerator=asked.accelerator,
            devices=asked.devices,
            num_nodes=asked.num_nodes,
            strategy=asked.strategy,
            precision=asked.precision,  # type: ignore[arg-type]
            gradient_clip_val=asked.clip or None,
            accumulate_grad_batches=asked.accumulate,
            callbacks=[*own, *callbacks, best, saving],  # in this order, so that the last checkpoint knows of the best
            logger=logger or False,
            plugins=plugins,
            default_root_dir=run_dir,
            log_every_n_steps=settings.logger.every,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            enable_progress_bar=out.is_terminal,
            enable_model_summary=False,
            **asked.lightning,
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError, OSError, KeyError) as error:
        # Of options, or of what a launcher has put into the environment.
        raise InputError(f"trainer: {' '.join(str(error).split())}") from error


def _check_accelerator(accelerator: str, strategy: str) -> None:
    here = [name for name, known in AcceleratorRegistry.items() if known["accelerator"].is_available()]
    usable = {"auto", *here, *(["gpu"] if {"cuda", "mps"} & {*here} else [])}
    if accelerator not in usable:
        allowed = ", ".join(sorted(usable))
        raise InputError(f"trainer.accelerator={accelerator} is not on this machine: allowed are {allowed}")
    if {"xla", "tpu"} & {*strategy.split("_")} and "tpu" not in here:
        raise InputError(f"trainer.strategy={strategy} needs a TPU, and this machine has none: allowed are auto, ddp")


@contextmanager
def refusals() -> Iterator[None]:
    """What Lightning refuses only when it begins, for it has to see the data first.

    Raises:
        InputError: instead of Lightning's error.
    """
    try:
        yield
    except MisconfigurationException as error:
        raise InputError(f"trainer: {' '.join(str(error).split())}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning's advice is for those who write training loops, not for those who run this one."""
    talking = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in talking]
    for logger in talking:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"lightning\.")
            # The data has nothing to add there.
            warnings.filterwarnings("ignore", "You have overridden `on_before_batch_transfer` in `LightningModule`")
            # A continued run does write where it wrote before; any other is refused.
            warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
            yield
    finally:
        for logger, level in zip(talking, levels, strict=True):
            logger.setLevel(level)
