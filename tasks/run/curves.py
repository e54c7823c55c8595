"""What a run's logger gets besides curves: the settings, a batch of inputs, and pictures of the mixers."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor

import models
from operators.show import page
from tasks import pictures
from tasks.base import Task
from tasks.run.loggers import log_image
from tasks.show import Witness, layers

SHOWN, COLUMNS = 32, 8
"""Images of the batch."""


class Settings(Callback):
    """Logs the configuration, flat, when training starts.

    Args:
        config: of the run, in plain containers.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._flat = dict(flat(config))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give every logger the settings of this run."""
        for logger in trainer.loggers:
            logger.log_hyperparams(self._flat)


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf; what is no number, text or truth value becomes a text."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            plain = isinstance(value, bool | int | float | str)
            yield f"{prefix}{key}", value if plain else "null" if value is None else str(value)


class Inputs(Callback):
    """Shows the first batch of a run as the network gets it: augmented, mixed, in the colours of the originals."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the picture after the very first batch."""
        if trainer.current_epoch or batch_idx or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Task)
        data = trainer.datamodule  # type: ignore[attr-defined]
        images = viewable(pl_module.seen[:SHOWN], data.mean, data.std)
        if images.shape[1] in (1, 3):
            page = np.asarray(pictures.enlarged(pictures.sheet(images, COLUMNS), images.shape[-1]))
            for logger in trainer.loggers:
                log_image(logger, "inputs", page, trainer.global_step)


class MixerPictures(Callback):
    """Shows what the mixers do: responses, receptive fields, spectra, mixing distances, equations, maps.

    They are drawn as validation sees them, among the tokens of the first image of its first batch, and leave training
    as it would be without them.

    Args:
        every: epochs between pictures.
    """

    def __init__(self, every: int) -> None:
        self._every = every

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Draw after the first batch, of its first image; the model is run on that once more."""
        fits = trainer.state.fn == "fit" and trainer.is_global_zero
        if batch_idx or not fits or (trainer.current_epoch + 1) % self._every:
            return
        assert isinstance(pl_module, Task)
        trunk = pl_module.model
        assert isinstance(trunk, models.Trunk)
        with Witness(trunk.mixers) as witness:
            pl_module.repeat({name: value[:1] for name, value in batch.items()})
        with torch.inference_mode(False), torch.autocast(pl_module.device.type, enabled=False):
            for each in page.overview(layers(trunk, witness.states(""))):
                with Image.open(io.BytesIO(each.content)) as picture:
                    pixels = np.asarray(picture.convert("RGB"))
                for logger in trainer.loggers:
                    log_image(logger, f"mixers/{each.file.removesuffix('.png')}", pixels, trainer.global_step)


def viewable(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> pictures.Pixels:
    """Normalised images (B, C, H, W) as uint8."""
    shape = (-1, 1, 1)
    pixels = images.detach().float().cpu() * torch.tensor(std).view(shape) + torch.tensor(mean).view(shape)
    shown: pictures.Pixels = (255 * pixels).round().clamp(0, 255).byte().numpy()
    return shown
