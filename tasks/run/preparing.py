"""Everything that a run needs, put together and found to fit, before anything is written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

import models
import tasks.data
from models import match, targets
from operators.errors import InputError
from tasks.autoencoder import Autoencoder
from tasks.base import Task
from tasks.config.overrides import run_directory
from tasks.config.schema import RunConfig
from tasks.data import KeyedData
from tasks.planning import memory
from tasks.run import building, resolutions, trainer
from tasks.run.callbacks import Clock, Contents
from tasks.run.header import Header
from tasks.run.restoring import check_resumable
from tasks.run.saving import Files, Saving, refuse_to_overwrite
from tasks.system import checkpoint
from tasks.system.atomic_files import LAST
from tasks.system.signals import Stop


@dataclass(frozen=True)
class Run:
    """A run that is ready to begin.

    Attributes:
        settings: what is asked for.
        run_dir: where its results go.
        data: to be read; None where samples are drawn.
        ckpt: checkpoint to go on from, or None.
        coder: in whose latents the model works; None works on pixels.
        module: the task, with the model in it.
        trainer: that carries it out.
        clock: of the training.
        facts: the part of `metrics.json` that is known beforehand.
    """

    settings: RunConfig
    run_dir: Path
    data: KeyedData | None
    ckpt: str | Path | None
    coder: Autoencoder | None
    module: Task
    trainer: Trainer
    clock: Clock
    facts: Mapping[str, Any]

    @property
    def trunk(self) -> models.Trunk:
        """The model of the task."""
        assert isinstance(self.module.model, models.Trunk)
        return self.module.model


def check_directory(settings: RunConfig, run_dir: Path) -> None:
    """Raise `InputError` unless the run may write to `run_dir`: it is new, or that of the run to go on with."""
    if settings.mode == "fit" and settings.ckpt is not None:
        own = run_directory(Path(settings.ckpt))
        if own != Path(os.path.realpath(run_dir)):
            raise InputError(f"ckpt={settings.ckpt} continues the run in {own}, not in {run_dir}: try init=PATH")
    else:
        refuse_to_overwrite(run_dir)


def open_data(settings: RunConfig) -> KeyedData | None:
    """The data that the run reads. Samples are drawn without the data that the generator has learned from.

    Raises:
        InputError: see `tasks.data.create`.
    """
    return None if settings.mode == "sample" else tasks.data.create(**{"seed": settings.seed, **settings.data})


def prepare(
    settings: RunConfig,
    data: KeyedData | None,
    run_dir: Path,
    *,
    callbacks: Sequence[Callback] = (),
    stop: Stop | None = None,
    device: str = "cpu",
) -> Run:
    """Put a run together.

    Args:
        settings: what is asked for.
        data: see `open_data`.
        run_dir: where its results are to go.
        callbacks: further Lightning callbacks.
        stop: what may ask the run to stop.
        device: where the model is built; `meta` only finds out whether the run is refused.

    Raises:
        InputError: parts that do not fit together, or that this machine cannot carry.
    """
    continues = settings.mode == "fit" and settings.ckpt is not None
    ckpt: str | Path | None = settings.ckpt
    saved: dict[str, Any] | None = None
    if continues:
        assert settings.ckpt is not None
        ckpt, saved = checkpoint.resumable(settings.ckpt)
    elif settings.ckpt is not None:
        saved = checkpoint.load(settings.ckpt)
    coder = building.load_autoencoder(settings.task, saved)
    images = building.images_of(data, coder, saved)
    batch = 0 if data is None else data.batch_size
    memory.check(settings, images, batch)
    model = settings.build(images, device=device)
    if settings.trainer.compile:
        model.compile()
    if data is not None:
        resolutions.check_size(model, building.input_shape(coder, data.channels, *data.image_size)[1:])
    if settings.probe is not None:
        tested = settings.probe.at("test").grid
        resolutions.check_size(model, (tested, tested))
    module = building.build_module(settings, model, images, data, coder)
    building.load_weights(module, settings, images, saved)
    clock = Clock()
    contents = Contents(
        deepcopy({**settings.plain, "ckpt": None, "init": None}),
        images.record(),
        None if coder is None else coder.fingerprint,
    )
    step = int(saved["global_step"]) if saved is not None and continues else 0
    saving = Saving(run_dir / "checkpoints", settings.trainer.save_every, stop)
    io = Files(trusted=ckpt is not None and Path(ckpt).name == LAST)
    more = [*callbacks, clock, contents]
    loop = trainer.create(settings, run_dir, module.monitor, more, saving, io, step)
    building.check_processes(loop, batch)
    if saved is not None and continues:
        check_resumable(saved, f"ckpt={ckpt}", loop, module, settings.trainer.strategy)
    cost = model.cost()
    facts: dict[str, Any] = {
        "task": settings.task.name,
        "mixer": settings.mixer,
        "shell": settings.shell,
        "data": settings.data["name"],
        "seed": settings.seed,
        "params": cost.parameters,
        "macs": cost.macs,
        "mixer_macs": cost.mixer_macs,
        "backend": model.backend,
    }
    if settings.probe is not None:
        facts["data"] = f"{settings.probe.name}/{settings.plain['probe']['difficulty']}"
    if settings.transfer is not None:
        facts["transfer"] = settings.transfer
    budget = settings.model.get("match")
    if budget is not None and not targets.unmeasured(budget):
        facts |= match.verify(budget, model).record()
    loop.callbacks.insert(0, Header(settings, run_dir, facts))  # type: ignore[attr-defined] # before a progress bar
    return Run(settings, run_dir, data, ckpt, coder, module, loop, clock, facts)


def check_batches(run: Run) -> None:
    """Refuse what Lightning would notice only when it has the data, or in the middle of training.

    Raises:
        InputError: a batch that the splits cannot fill, or an interval or a share that comes to no batch.
    """
    if run.settings.mode != "fit":
        return
    assert run.data is not None
    number = run.data.batches(run.trainer.world_size)
    building.check_interval(run.settings.trainer.lightning, number["train"])
    for split in ("train", "val", "test") if run.settings.trainer.test else ("train", "val"):
        building.check_share(split, getattr(run.trainer, f"limit_{split}_batches"), number[split])


def check(settings: RunConfig, data: KeyedData | None) -> None:
    """Refuse what `tasks.run.execute.execute` refuses before it trains. Nothing is left, and weights take no memory.

    Args:
        settings: what is asked for.
        data: see `open_data`.

    Raises:
        InputError: as the run itself, in the same words.
    """
    with trainer.quiet(), tempfile.TemporaryDirectory() as folder:
        check_batches(prepare(settings, data, Path(folder) / "run", device="meta"))
