"""One run: from a resolved configuration to metrics, checkpoints, predictions or samples in a directory."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from rich.console import Console

import models
import tasks.data
from operators.errors import InputError
from tasks import checkpoint, configuration, failure, provenance, report
from tasks.base import Task
from tasks.callbacks import (
    Averaging,
    Clock,
    Contents,
    CorruptCounts,
    EpochLines,
    FinalValidation,
    validation_scores,
)
from tasks.classification import Classification
from tasks.configuration import ClassificationConfig, RunConfig
from tasks.divergence import DivergedError
from tasks.generation import Generation
from tasks.overrides import run_directory

_TYPES = {"64-true": torch.float64, "16-true": torch.float16, "bf16-true": torch.bfloat16}
"""Of the parameters, where it is not float32."""


def execute(config: Mapping[str, Any], run_dir: Path, *, callbacks: Sequence[Callback] = ()) -> dict[str, Any]:
    """Carry out a run, and leave `config.yaml`, `metrics.json`, `provenance.json`, `checkpoints/{last,best}.ckpt` and,
    for classification, `predictions.npz`, for generation `samples/` in `run_dir`.

    The checkpoint that is best on the validation split (by `val/accuracy` or `val/loss`) is evaluated on the test
    split, once, at the very end. A run that diverges is a result: it returns, with status `diverged`.

    Args:
        config: resolved, in plain containers, as `tasks.composition.compose` or a run's `config.yaml` gives it.
        run_dir: made if need be.
        callbacks: further Lightning callbacks.

    Returns:
        the content of `metrics.json`.

    Raises:
        InputError: a configuration that cannot be carried out.
        Exception: whatever else went wrong, after `metrics.json` has been written with status `failed`.
    """
    try:
        with _quiet():
            return _Run(config, run_dir, callbacks).carry_out()
    except Exception as error:
        if failure.rank() > 0:
            failure.tell(run_dir, error)
        raise


class _Run:
    def __init__(self, config: Mapping[str, Any], run_dir: Path, callbacks: Sequence[Callback]) -> None:
        self.settings = settings = configuration.parse(config)
        self.run_dir = run_dir
        if settings.mode == "fit" and settings.ckpt is not None:
            own = run_directory(Path(settings.ckpt))
            if own != run_dir.resolve():
                raise InputError(f"ckpt={settings.ckpt} continues the run in {own}, not in {run_dir}: try init=PATH")
        elif any((run_dir / name).exists() for name in ("metrics.json", "checkpoints")):
            raise InputError(f"{run_dir} already holds a run: continue it with ckpt=PATH, or choose another directory")
        seed_everything(settings.seed, workers=True, verbose=False)
        # Samples are drawn without the data that the generator has learned from.
        drawing = settings.mode == "sample"
        self.data = None if drawing else tasks.data.create(**{"seed": settings.seed, **settings.data})
        self.saved = None if settings.ckpt is None else checkpoint.load(settings.ckpt)
        self.shape = self._data_shape()
        model = self._model()
        self.module = self._module(model)
        self.clock = Clock()
        contents = Contents(deepcopy({**config, "ckpt": None, "init": None}), self.shape)
        self.trainer = _trainer(settings, run_dir, self.module.monitor, [*callbacks, self.clock, contents])
        self._check_processes()
        cost = model.cost()
        self.metrics: dict[str, Any] = {
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
        self.config = config

    def carry_out(self) -> dict[str, Any]:
        self._begin()
        watch = None
        if self.trainer.world_size > 1 and self.trainer.is_global_zero:
            watch = failure.Watch(self.run_dir, self._children, self._give_up)
        try:
            return self._carry_out()
        except BaseException as error:
            if watch is not None:
                watch.stop(0.0 if isinstance(error, InputError) else failure.ECHO)
                self._end_children()
            self._finish("failed")
            raise
        finally:
            if watch is not None:
                watch.stop()

    def _carry_out(self) -> dict[str, Any]:
        try:
            if self.settings.mode == "fit":
                self._fit()
            if self.settings.mode == "sample":
                self._draw()
            elif self.settings.mode == "test" or self.settings.trainer.test:
                self._test()
        except DivergedError as error:
            return self._finish("diverged", {"diverged/step": error.step, "diverged/layer": error.layer})
        return self._finish("ok")

    def _children(self) -> Sequence[Any]:
        """The processes that Lightning has started for this run."""
        return getattr(self.trainer.strategy.launcher, "procs", ())

    def _end_children(self) -> None:
        for child in self._children():
            child.kill()

    def _give_up(self) -> None:
        """What is left to do when another process has failed."""
        for logger in self.trainer.loggers:
            logger.finalize("failed")
        self._finish("failed")

    def _fit(self) -> None:
        try:
            self.trainer.fit(self.module, self.data, ckpt_path=self.settings.ckpt, weights_only=True)
        finally:
            self.metrics |= validation_scores(self.trainer)
        path = self.run_dir / "checkpoints" / "best.ckpt"
        best = checkpoint.load(path)
        checkpoint.load_weights(self.module, best["state_dict"], str(path))
        self.metrics |= best[checkpoint.KEY]["scores"]

    def _test(self) -> None:
        self.trainer.test(self.module, self.data, verbose=False)
        self.metrics |= {k: float(v) for k, v in self.trainer.callback_metrics.items() if k.startswith("test/")}
        self.module.conclude(self.run_dir)

    def _draw(self) -> None:
        assert isinstance(self.module, Generation)
        self.trainer.predict(self.module, return_predictions=False)
        self.module.conclude(self.run_dir)

    def _begin(self) -> None:
        if self.trainer.is_global_zero:
            # A continued run is still the run that it was.
            own = {**self.config, "ckpt": None} if self.settings.mode == "fit" else self.config
            try:
                self.run_dir.mkdir(parents=True, exist_ok=True)
                report.write_yaml(self.run_dir / "config.yaml", own)
            except OSError as error:
                problem = f"{error.filename}: {error.strerror}"
                raise InputError(f"{problem}; hydra.run.dir=DIR must be a folder that can be written to") from error
            self._write_provenance()

    def _finish(self, status: str, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        if self.settings.mode == "fit":
            self.metrics["train/seconds"] = self.clock.seconds
            self.metrics["train/images_per_second"] = self.clock.images_per_second
        self.metrics["backend"] = self.module.backend or self.metrics["backend"]
        self.metrics |= {**(more or {}), "status": status}
        if self.trainer.is_global_zero:
            report.write_json(self.run_dir / "metrics.json", self.metrics)
            self._write_provenance()
            report.show(self.run_dir, self.metrics)
        return self.metrics

    def _write_provenance(self) -> None:
        settings = self.settings
        data: dict[str, Any] = {"name": settings.data["name"], "fingerprint": None}
        if self.data is not None:
            corrupt = {split: len(known.found) for split, known in self.data.corrupt.items()}
            data |= {"fingerprint": self.data.fingerprint, "corrupt": corrupt}
        facts = provenance.collect(
            seed=settings.seed,
            backend=self.metrics["backend"],
            precision=settings.trainer.precision,
            effective_batch=None if self.data is None else self.data.batch_size * settings.trainer.accumulate,
            world_size=self.trainer.world_size,
            data=data,
            sample=None if settings.sample is None else asdict(settings.sample),
            init=settings.init,
            ckpt=settings.ckpt,
            learning_rate_tuned=False,
        )
        report.write_json(self.run_dir / "provenance.json", facts)

    def _check_processes(self) -> None:
        """Refuse what would start many processes only for each of them to fail, or for all to starve."""
        trainer, batch = self.trainer, 0 if self.data is None else self.data.batch_size
        if trainer.world_size > 1 and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
            raise InputError(
                f"--multirun goes with one process a run, not with the {trainer.world_size} devices of this one: "
                "start the runs one by one"
            )
        if batch % trainer.world_size:
            raise InputError(
                f"data.batch_size={batch} must be divisible by the {trainer.world_size} devices of this run"
            )
        most = max(2, os.cpu_count() or 1)  # two, to try it, anywhere
        if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > most:
            raise InputError(f"trainer.devices={trainer.num_devices} CPU processes: this machine has cores for {most}")

    def _data_shape(self) -> dict[str, Any]:
        """What the model is built for: the data set's shape, or in mode test that of the checkpoint's."""
        recorded = None if self.saved is None else dict(self.saved[checkpoint.KEY]["data"])
        if self.data is None:
            assert recorded is not None
            return recorded
        own = {
            "num_classes": self.data.num_classes,
            "channels": self.data.channels,
            "image_size": list(self.data.image_size),
        }
        if recorded is None:
            return own
        for key in ("num_classes", "channels"):
            if own[key] != recorded[key]:
                raise InputError(f"data={self.data.name} has {key}={own[key]}, the checkpoint {recorded[key]}")
        return recorded

    def _model(self) -> models.Trunk:
        settings = self.settings
        height, width = self.shape["image_size"]
        model = models.create(
            **settings.model,
            mixers=settings.mixers,
            image_size=(height, width),
            in_channels=self.shape["channels"],
            num_classes=self.shape["num_classes"],
            seed=settings.seed,
        )
        if settings.trainer.compile:
            model.compile()
        return model

    def _module(self, model: models.Trunk) -> Task:
        settings = self.settings
        more: dict[str, Any] = {
            "optimizer": settings.optimizer,
            "seed": settings.seed,
            "fused": not settings.trainer.precision.endswith("mixed"),
            "log_every": settings.logger.every,
        }
        fitting = "vit_*" if isinstance(settings.task, ClassificationConfig) else "dit_*"
        refusal = InputError(
            f"model={settings.model['name']} is not made for task={settings.task.name}: take {fitting}"
        )
        module: Task
        if isinstance(settings.task, ClassificationConfig):
            if not isinstance(model, models.VisionTransformer):
                raise refusal
            module = Classification(model, num_classes=self.shape["num_classes"], task=settings.task, **more)
        else:
            if not isinstance(model, models.DiffusionTransformer):
                raise refusal
            assert settings.sample is not None
            if self.data is not None:
                if self.data.augment.mixes:
                    raise InputError("task=generation learns whole images: data.augment.mixup and cutmix must be 0")
                more |= {"mean": self.data.mean, "std": self.data.std}
            if settings.mode == "test" or (settings.mode == "fit" and settings.trainer.test):
                settings.task.check_network()
            height, width = self.shape["image_size"]
            module = Generation(
                model,
                task=settings.task,
                sample=settings.sample,
                channels=self.shape["channels"],
                image_size=(height, width),
                **more,
            )
        # Lightning would do so after the weights have been loaded, and so rounded.
        model.to(_TYPES.get(settings.trainer.precision, torch.float32))
        if self.saved is not None:
            checkpoint.load_weights(module, self.saved["state_dict"], f"ckpt={settings.ckpt}")
        if settings.init is not None:
            start = checkpoint.load(settings.init, "init")["state_dict"]
            checkpoint.load_weights(module, start, f"init={settings.init}")
        return module


def _trainer(settings: RunConfig, run_dir: Path, monitor: tuple[str, str], callbacks: Sequence[Callback]) -> Trainer:
    asked, console = settings.trainer, Console()
    logger = _logger(settings, run_dir)
    own: list[Callback] = [
        CorruptCounts(),
        FinalValidation(),
        RichProgressBar() if console.is_terminal else EpochLines(console),
    ]
    if logger:
        own.append(LearningRateMonitor(logging_interval="step"))
    if asked.ema:
        own.append(Averaging(asked.ema))
    folder = run_dir / "checkpoints"
    saving: dict[str, Any] = {"enable_version_counter": False, "save_on_train_epoch_end": False}
    best = ModelCheckpoint(folder, "best", monitor[0], mode=monitor[1], **saving)
    last = ModelCheckpoint(folder, "last", **saving)
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
            callbacks=[*own, *callbacks, best, last],  # in this order, so that the last checkpoint knows of the best
            logger=logger,
            default_root_dir=run_dir,
            log_every_n_steps=settings.logger.every,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            enable_progress_bar=console.is_terminal,
            enable_model_summary=False,
            **asked.lightning,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise InputError(f"trainer: {' '.join(str(error).split())}") from error


def _logger(settings: RunConfig, run_dir: Path) -> Logger | bool:
    kinds: dict[str, type[TensorBoardLogger] | type[CSVLogger]] = {"tensorboard": TensorBoardLogger, "csv": CSVLogger}
    kind = kinds.get(settings.logger.name)
    return kind(run_dir, name="", version="") if kind else False


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's advice is for those who write training loops, not for those who run this one."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
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
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
