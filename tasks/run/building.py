"""What a run consists of, made from its settings: model, task and autoencoder; and what is refused on the way."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator

import models
from operators.errors import InputError
from tasks import autoencoder
from tasks.autoencoder import Autoencoder
from tasks.base import Task
from tasks.classification import Classification
from tasks.config import schema
from tasks.config.schema import RunConfig
from tasks.config.task import ClassificationConfig, GenerationConfig, TaskConfig
from tasks.data import ImageData
from tasks.generation import Generation
from tasks.planning import memory, plan
from tasks.system import checkpoint

_TYPES = {"64-true": torch.float64, "16-true": torch.float16, "bf16-true": torch.bfloat16}
"""Of the parameters, where it is not float32."""


def check_interval(options: Mapping[str, Any], batches: int) -> None:
    """Refuse validation that is due only after the epoch, which Lightning would notice in the middle of it."""
    interval, limit = options.get("val_check_interval"), options.get("limit_train_batches")
    if limit is not None:
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    if isinstance(interval, int) and options.get("check_val_every_n_epoch", 1) is not None and interval > batches:
        raise InputError(
            f"trainer.val_check_interval={interval} must be at most {batches}, the number of batches in an epoch; "
            "or give +trainer.check_val_every_n_epoch=null, which counts on over the epochs"
        )


def check_processes(trainer: Trainer, batch: int) -> None:
    """Refuse what would start many processes only for each of them to fail, or for all to starve."""
    if trainer.world_size > 1 and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise InputError(
            f"--multirun goes with one process a run, not with the {trainer.world_size} devices of this one: "
            "start the runs one by one"
        )
    if batch % trainer.world_size:
        raise InputError(f"data.batch_size={batch} must be divisible by the {trainer.world_size} devices of this run")
    most = max(2, os.cpu_count() or 1)  # two, to try it, anywhere
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > most:
        raise InputError(f"trainer.devices={trainer.num_devices} CPU processes: this machine has cores for {most}")


def check_memory(settings: RunConfig, shape: Mapping[str, Any], batch_size: int) -> None:
    """Refuse, before anything is built, what no memory here can hold; `batch_size` is 0 where no images are read."""
    asked = settings.trainer
    device, here = plan.device(asked.accelerator) if asked.accelerator in plan.DEVICES else ("cpu", True)
    if here:
        processes = asked.num_nodes * (asked.devices if isinstance(asked.devices, int) else 1)
        batch = 0 if batch_size == 0 else max(1, batch_size // processes)
        memory.check(settings, shape, batch, device)


def data_shape(data: ImageData | None, saved: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the model is built for: the data set's shape, or in mode test that of the checkpoint's."""
    recorded = None if saved is None else dict(saved[checkpoint.KEY]["data"])
    if data is None:
        assert recorded is not None
        return recorded
    own = {
        "num_classes": data.num_classes,
        "channels": data.channels,
        "image_size": list(data.image_size),
        "mean": list(data.mean),
        "std": list(data.std),
    }
    if recorded is None:
        return own
    for key in ("num_classes", "channels"):
        if own[key] != recorded[key]:
            raise InputError(f"data={data.name} has {key}={own[key]}, the checkpoint {recorded[key]}")
    return recorded


def load_autoencoder(task: TaskConfig, saved: Mapping[str, Any] | None) -> Autoencoder | None:
    """The autoencoder that the task names, which must be the checkpoint's; None works on pixels."""
    path = task.autoencoder if isinstance(task, GenerationConfig) else None
    found = None if path is None else autoencoder.load(path)
    recorded = None if saved is None else saved[checkpoint.KEY].get("autoencoder")
    if saved is not None and recorded != (None if found is None else found.fingerprint):
        learned = "on pixels" if recorded is None else f"with another, of fingerprint {recorded[:12]}…"
        raise InputError(f"task.autoencoder={path} is not the checkpoint's, which has learned {learned}")
    return found


def input_shape(coder: Autoencoder | None, channels: int, height: int, width: int) -> tuple[int, int, int]:
    """What the model takes of images of that shape: themselves, or their latents."""
    return (channels, height, width) if coder is None else coder.geometry.shape(channels, height, width)


def build_model(settings: RunConfig, shape: Mapping[str, Any]) -> models.Trunk:
    """The model, with the weights that it starts from; `shape` is that of a checkpoint's `data`."""
    channels, height, width = shape["input"]
    model = models.create(
        **settings.model,
        mixers=settings.mixers,
        image_size=(height, width),
        in_channels=channels,
        num_classes=shape["num_classes"],
        seed=settings.seed,
    )
    if settings.trainer.compile:
        model.compile()
    return model


def build_module(
    settings: RunConfig,
    model: models.Trunk,
    shape: Mapping[str, Any],
    data: ImageData | None,
    coder: Autoencoder | None,
    saved: Mapping[str, Any] | None,
) -> Task:
    """The task around the model, with the weights of `ckpt` or `init`, if there are any."""
    more: dict[str, Any] = {
        "optimizer": settings.optimizer,
        "seed": settings.seed,
        "fused": not settings.trainer.precision.endswith("mixed"),
        "log_every": settings.logger.every,
    }
    schema.check_model(settings, model)
    module: Task
    if isinstance(settings.task, ClassificationConfig):
        module = Classification(model, num_classes=shape["num_classes"], task=settings.task, **more)
    else:
        assert isinstance(model, models.DiffusionTransformer)
        assert settings.sample is not None
        if data is not None:
            if data.augment.mixes:
                raise InputError("task=generation learns whole images: data.augment.mixup and cutmix must be 0")
            more |= {"mean": data.mean, "std": data.std}
        if settings.mode == "test" or (settings.mode == "fit" and settings.trainer.test):
            settings.task.check_network()
        height, width = shape["image_size"]
        module = Generation(
            model,
            task=settings.task,
            sample=settings.sample,
            channels=shape["channels"],
            image_size=(height, width),
            autoencoder=coder,
            **more,
        )
    # Lightning would do so after the weights have been loaded, and so rounded.
    model.to(_TYPES.get(settings.trainer.precision, torch.float32))
    if saved is not None:
        checkpoint.load_weights(module, saved["state_dict"], f"ckpt={settings.ckpt}")
    if settings.init is not None:
        start = checkpoint.load(settings.init, "init")["state_dict"]
        checkpoint.load_weights(module, start, f"init={settings.init}")
    return module
