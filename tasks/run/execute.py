"""One run: from a resolved configuration to metrics, checkpoints, predictions or samples in a directory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.accelerators import CPUAccelerator

import models
import tasks.data
from models import match
from operators.errors import InputError
from tasks import autoencoder
from tasks.base import Task
from tasks.classification import Classification
from tasks.config import schema
from tasks.config.overrides import run_directory
from tasks.config.schema import ClassificationConfig, GenerationConfig
from tasks.generation import Generation
from tasks.planning import memory, plan
from tasks.run import loggers, resolutions, trainer
from tasks.run.callbacks import Clock, Contents, validation_scores
from tasks.run.divergence import DivergedError
from tasks.run.restoring import check_resumable
from tasks.run.saving import Files, Saving, no_room, refuse_to_overwrite
from tasks.system import atomic_files, checkpoint, environment, failure, provenance, results
from tasks.system.atomic_files import LAST
from tasks.system.failure import DiskFullError
from tasks.system.reading import UnreadableError
from tasks.system.signals import Stop, StoppedError

_TYPES = {"64-true": torch.float64, "16-true": torch.float16, "bf16-true": torch.bfloat16}
"""Of the parameters, where it is not float32."""


def execute(
    config: Mapping[str, Any],
    run_dir: Path,
    *,
    callbacks: Sequence[Callback] = (),
    stop: Stop | None = None,
    tuned: bool = False,
) -> dict[str, Any]:
    """Carry out a run, and leave `config.yaml`, `metrics.json`, `provenance.json`, `checkpoints/{last,best}.ckpt` and,
    for classification, `predictions.npz`, for generation `samples/` in `run_dir`.

    The checkpoint that is best on the validation split (by `val/accuracy` or `val/loss`) is evaluated on the test
    split, once, at the very end. A run that diverges is a result: it returns, with status `diverged`. With mode=plan
    nothing is carried out: see `tasks.planning.plan.carry_out`. With mode=test and a list of resolutions there are
    `resolutions.csv` and, for each, a folder with its predictions.

    Args:
        config: resolved, in plain containers, as `tasks.config.composition.compose` or a run's `config.yaml` gives it.
        run_dir: made if need be.
        callbacks: further Lightning callbacks.
        stop: what may ask the run to stop.
        tuned: whether the learning rate was chosen on validation for this configuration; provenance says so.

    Returns:
        the content of `metrics.json`.

    Raises:
        InputError: a configuration that cannot be carried out.
        StoppedError: the run was asked to stop, and is saved.
        DiskFullError: it cannot go on.
        Exception: whatever else went wrong, after `metrics.json` has been written with status `failed`.
    """
    try:
        environment.check()
        with trainer.quiet(), loggers.quiet_threads():
            if config.get("mode") == "plan":
                return plan.carry_out(config, run_dir)
            if isinstance(schema.parse(config).data.get("resolution"), list | tuple):
                return _across(config, run_dir, callbacks, stop)
            return _Run(config, run_dir, callbacks, stop, tuned=tuned).carry_out()
    except Exception as error:
        reason = atomic_files.full(error) if isinstance(error, OSError) else None
        problem = error if reason is None else DiskFullError(no_room(reason, run_dir))
        # All processes stop alike when they are asked to.
        if environment.rank() > 0 and not isinstance(error, StoppedError):
            failure.tell(run_dir, problem)
        if problem is error:
            raise
        raise problem from error


def _across(
    config: Mapping[str, Any], run_dir: Path, callbacks: Sequence[Callback], stop: Stop | None
) -> dict[str, Any]:
    """As `execute` with mode=test, at each of several resolutions; the first's run leaves the results of all."""
    sides = resolutions.sides(config["data"]["resolution"])
    first = _Run(_at(config, sides[0]), run_dir, callbacks, stop)
    first.config = config
    model = first.module.model
    assert isinstance(model, models.Trunk)
    for side in sides:
        resolutions.check_size(model, (side, side))

    def work() -> None:
        rows = []
        for side in sides:
            folder = run_dir / f"resolution_{side}"
            folder.mkdir(exist_ok=True)
            scores = _Run(_at(config, side), run_dir, callbacks, stop).tested(folder)
            rows.append(resolutions.row(model, (side, side), scores))
        first.metrics |= resolutions.flat(rows)
        if first.trainer.is_global_zero:
            resolutions.write(run_dir / "resolutions.csv", rows)
            resolutions.show(rows)

    return first.carry_out(work)


def _at(config: Mapping[str, Any], side: int) -> dict[str, Any]:
    return {**config, "data": {**config["data"], "resolution": side}}


class _Run:
    def __init__(
        self,
        config: Mapping[str, Any],
        run_dir: Path,
        callbacks: Sequence[Callback],
        stop: Stop | None,
        *,
        tuned: bool = False,
    ) -> None:
        self.settings = settings = schema.parse(config)
        self.run_dir, self.tuned = run_dir, tuned
        if settings.mode == "fit" and settings.ckpt is not None:
            own = run_directory(Path(settings.ckpt))
            if own != Path(os.path.realpath(run_dir)):
                raise InputError(f"ckpt={settings.ckpt} continues the run in {own}, not in {run_dir}: try init=PATH")
        else:
            refuse_to_overwrite(run_dir)
        seed_everything(settings.seed, workers=True, verbose=False)
        # Samples are drawn without the data that the generator has learned from.
        drawing = settings.mode == "sample"
        self.data = None if drawing else tasks.data.create(**{"seed": settings.seed, **settings.data})
        self.ckpt: str | Path | None = settings.ckpt
        self.saved: dict[str, Any] | None = None
        if settings.ckpt is not None and settings.mode == "fit":
            self.ckpt, self.saved = checkpoint.resumable(settings.ckpt)
        elif settings.ckpt is not None:
            self.saved = checkpoint.load(settings.ckpt)
        self.shape = self._data_shape()
        self.autoencoder = self._autoencoder()
        self.shape["input"] = list(self._input_shape(*self.shape["image_size"]))
        self._check_memory()
        model = self._model()
        if self.data is not None:
            resolutions.check_size(model, self._input_shape(*self.data.image_size)[1:])
        self.module = self._module(model)
        self.clock = Clock()
        coder = None if self.autoencoder is None else self.autoencoder.fingerprint
        contents = Contents(deepcopy({**config, "ckpt": None, "init": None}), self.shape, coder)
        step = int(self.saved["global_step"]) if self.saved is not None and settings.mode == "fit" else 0
        saving = Saving(run_dir / "checkpoints", settings.trainer.save_every, stop)
        io = Files(trusted=self.ckpt is not None and Path(self.ckpt).name == LAST)
        more = [*callbacks, self.clock, contents]
        self.trainer = trainer.create(settings, run_dir, self.module.monitor, more, saving, io, step)
        self._check_processes()
        if self.saved is not None and settings.mode == "fit":
            check_resumable(self.saved, f"ckpt={self.ckpt}", self.trainer, self.module, settings.trainer.strategy)
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
        budget = settings.model.get("match")
        if budget is not None:
            self.metrics |= match.verify(budget, model).record()
        self.config = config

    def carry_out(self, work: Callable[[], None] | None = None) -> dict[str, Any]:
        """Do what the mode says, or `work`, and leave the result."""
        self._begin()
        watch = None
        if self.trainer.world_size > 1 and self.trainer.is_global_zero:
            watch = failure.Watch(self.run_dir, self._children, self._give_up)
        try:
            with trainer.refusals():
                (work or self._work)()
        except DivergedError as error:
            return self._finish("diverged", {"diverged/step": error.step, "diverged/layer": error.layer})
        except StoppedError as error:
            self._finish("failed", {"stopped": error.name}, shown=False)
            raise StoppedError(error.name, self._stopped(error.name)) from error
        except BaseException as error:
            if watch is not None:
                watch.stop(0.0 if isinstance(error, InputError) else failure.ECHO)
                self._end_children()
            if atomic_files.full(error) is None:
                self._finish("failed")
            else:
                self._finish_without_room()
            raise
        finally:
            if watch is not None:
                watch.stop()
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

    def _work(self) -> None:
        if self.settings.mode == "fit":
            self._fit()
        if self.settings.mode == "sample":
            self._draw()
        elif self.settings.mode == "test" or self.settings.trainer.test:
            self._test()

    def _fit(self) -> None:
        try:
            self._check_interval()
            self.trainer.fit(self.module, self.data, ckpt_path=self.ckpt, weights_only=True)
        finally:
            self.metrics |= validation_scores(self.trainer)
        path = self.run_dir / "checkpoints" / "best.ckpt"
        best = checkpoint.load(path)
        checkpoint.load_weights(self.module, best["state_dict"], str(path))
        self.metrics |= best[checkpoint.KEY]["scores"]

    def _check_interval(self) -> None:
        """Refuse validation that is due only after the epoch, which Lightning would notice in the middle of it."""
        options = self.settings.trainer.lightning
        interval, limit = options.get("val_check_interval"), options.get("limit_train_batches")
        assert self.data is not None
        batches = self.data.steps_per_epoch
        if limit is not None:
            batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        if isinstance(interval, int) and options.get("check_val_every_n_epoch", 1) is not None and interval > batches:
            raise InputError(
                f"trainer.val_check_interval={interval} must be at most {batches}, the number of batches in an epoch; "
                "or give +trainer.check_val_every_n_epoch=null, which counts on over the epochs"
            )

    def _test(self) -> None:
        self.metrics |= self.tested(self.run_dir)

    def tested(self, folder: Path) -> dict[str, float]:
        """The scores on the test split; what belongs to single images is written into `folder`."""
        self.trainer.test(self.module, self.data, verbose=False)
        self.module.conclude(folder)
        return {k: float(v) for k, v in self.trainer.callback_metrics.items() if k.startswith("test/")}

    def _draw(self) -> None:
        assert isinstance(self.module, Generation)
        coder = None if self.autoencoder is None else self.autoencoder.fingerprint
        origin = {"trainer.precision": self.settings.trainer.precision, "autoencoder": coder}
        self.module.write_to(self.run_dir / "samples", origin)
        self.trainer.predict(self.module, return_predictions=False)
        self.module.conclude(self.run_dir)

    def _begin(self) -> None:
        if self.trainer.is_global_zero:
            # A continued run is still the run that it was.
            own = {**self.config, "ckpt": None} if self.settings.mode == "fit" else self.config
            path = self.run_dir / "config.yaml"
            try:
                for folder in (self.run_dir, self.run_dir / "checkpoints"):
                    atomic_files.sweep(folder)
                before = results.read(path)
                results.write_yaml(path, own)
                result = self.run_dir / "metrics.json"
                if before != results.read(path) and result.exists():  # a run that goes on for longer has no result yet
                    atomic_files.set_aside(result)
            except UnreadableError as error:
                raise InputError(f"{error}; hydra.run.dir=DIR must be a folder that can be written to") from error
            except OSError as error:
                if atomic_files.full(error) is not None:
                    raise
                problem = f"{error.filename2 or error.filename}: {error.strerror}"
                raise InputError(f"{problem}; hydra.run.dir=DIR must be a folder that can be written to") from error
            self._write_provenance()

    def _stopped(self, name: str) -> str:
        """What to tell who asked for it."""
        if self.settings.mode != "fit":
            return f"stopped by {name}: start it again with hydra.run.dir={self.run_dir}"
        path, step = self.run_dir / "checkpoints" / LAST, self.trainer.global_step
        if not path.is_file():
            return f"stopped by {name} at step {step}: nothing is saved yet, start it again"
        saved = int(checkpoint.load(path)["global_step"])
        return f"stopped by {name} at step {step}: continue with ckpt={path}" + (
            "" if saved == step else f", which is of step {saved}"
        )

    def _finish_without_room(self) -> None:
        """Try to leave what fits: the caller reports that there is no room."""
        try:
            self._finish("failed", shown=False)
        except OSError as error:
            if atomic_files.full(error) is None:
                raise

    def _finish(self, status: str, more: Mapping[str, Any] | None = None, *, shown: bool = True) -> dict[str, Any]:
        if self.settings.mode == "fit":
            self.metrics["train/seconds"] = self.clock.seconds
            self.metrics["train/images_per_second"] = self.clock.images_per_second
        self.metrics["backend"] = self.module.backend or self.metrics["backend"]
        self.metrics |= {**(more or {}), "status": status}
        if self.trainer.is_global_zero:
            results.write_json(self.run_dir / "metrics.json", self.metrics)
            self._write_provenance()
            if shown:
                results.show(self.run_dir, self.metrics)
        return self.metrics

    def _write_provenance(self) -> None:
        settings = self.settings
        data: dict[str, Any] = {"name": settings.data["name"], "fingerprint": None}
        if self.data is not None:
            corrupt = {split: len(known.found) for split, known in self.data.corrupt.items()}
            data |= {"fingerprint": self.data.fingerprint, "corrupt": corrupt, "identical": self.data.identical}
        facts = provenance.collect(
            seed=settings.seed,
            backend=self.metrics["backend"],
            precision=settings.trainer.precision,
            effective_batch=None if self.data is None else self.data.batch_size * settings.trainer.accumulate,
            world_size=self.trainer.world_size,
            data=data,
            autoencoder=None if self.autoencoder is None else self.autoencoder.fingerprint,
            sample=None if settings.sample is None else asdict(settings.sample),
            init=settings.init,
            ckpt=settings.ckpt,
            learning_rate_tuned=self.tuned,
            match={key: value for key, value in self.metrics.items() if key.startswith("match/")} or None,
        )
        results.write_json(self.run_dir / "provenance.json", facts)

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

    def _check_memory(self) -> None:
        """Refuse, before anything is built, what no memory here can hold."""
        asked = self.settings.trainer
        device, here = plan.device(asked.accelerator) if asked.accelerator in plan.DEVICES else ("cpu", True)
        if here:
            processes = asked.num_nodes * (asked.devices if isinstance(asked.devices, int) else 1)
            batch = 0 if self.data is None else max(1, self.data.batch_size // processes)
            memory.check(self.settings, self.shape, batch, device)

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
            "mean": list(self.data.mean),
            "std": list(self.data.std),
        }
        if recorded is None:
            return own
        for key in ("num_classes", "channels"):
            if own[key] != recorded[key]:
                raise InputError(f"data={self.data.name} has {key}={own[key]}, the checkpoint {recorded[key]}")
        return recorded

    def _autoencoder(self) -> autoencoder.Autoencoder | None:
        task = self.settings.task
        path = task.autoencoder if isinstance(task, GenerationConfig) else None
        found = None if path is None else autoencoder.load(path)
        recorded = None if self.saved is None else self.saved[checkpoint.KEY].get("autoencoder")
        if self.saved is not None and recorded != (None if found is None else found.fingerprint):
            learned = "on pixels" if recorded is None else f"with another, of fingerprint {recorded[:12]}…"
            raise InputError(f"task.autoencoder={path} is not the checkpoint's, which has learned {learned}")
        return found

    def _input_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """What the model takes of images of that size: themselves, or their latents."""
        shape = (self.shape["channels"], height, width)
        return shape if self.autoencoder is None else self.autoencoder.geometry.shape(*shape)

    def _model(self) -> models.Trunk:
        settings = self.settings
        channels, height, width = self.shape["input"]
        model = models.create(
            **settings.model,
            mixers=settings.mixers,
            image_size=(height, width),
            in_channels=channels,
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
        schema.check_model(settings, model)
        module: Task
        if isinstance(settings.task, ClassificationConfig):
            module = Classification(model, num_classes=self.shape["num_classes"], task=settings.task, **more)
        else:
            assert isinstance(model, models.DiffusionTransformer)
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
                autoencoder=self.autoencoder,
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
