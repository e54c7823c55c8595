"""What a run is about, in a few lines before it starts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from operators.command_line import console
from tasks.config.schema import RunConfig
from tasks.data import KeyedData
from tasks.data.decode import Box, CorruptError, centre_box, decode
from tasks.data.sources.photographs import Photographs
from tasks.data.splits import SplitImages

LOOKED_AT = 8
"""Photographs whose size and colours speak for all."""
SMALL = 8
"""Side in pixels at which they are decoded for that."""


class Header(Callback):
    """Prints the lines of `describe` once, from the first process, when the model is on its device.

    Args:
        settings: of the run.
        run_dir: where its results go.
        metrics: what `metrics.json` holds so far: the costs of the model.
    """

    def __init__(self, settings: RunConfig, run_dir: Path, metrics: Mapping[str, Any]) -> None:
        self._settings, self._run_dir, self._metrics = settings, run_dir, metrics
        self._printed = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the header once, from rank 0, when the first step is about to be made."""
        if self._printed or not trainer.is_global_zero:
            return
        self._printed = True
        backend = str(getattr(pl_module.model, "backend", ""))
        facts = {**self._metrics, "backend": backend or self._metrics["backend"]}
        data = getattr(trainer, "datamodule", None)
        lines = describe(self._settings, facts, data, _device(trainer), self._run_dir)
        console().print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)

    on_test_start = on_predict_start = on_train_start


def describe(
    settings: RunConfig, metrics: Mapping[str, Any], data: KeyedData | None, device: str, run_dir: Path
) -> list[str]:
    """The lines of a header; `data` is None where samples are drawn without it."""
    shell = f"shell {settings.shell}"
    model = f"{settings.mixer} in {settings.model['name']}, {shell}, {metrics['params']:,} parameters"
    rows = [
        (settings.task.name, f"{model}, {metrics['macs']:,} MACs an image"),
        ("device", f"{device}, {settings.trainer.precision}, backend {metrics['backend']}"),
    ]
    if data is not None:
        sizes = {name: len(getattr(data.splits, name)) for name in ("train", "val", "test")}
        counts = ", ".join(f"{size:,} {name}" for name, size in sizes.items())
        if settings.probe is not None:
            rows += [("probe", f"{counts} samples of {settings.probe}")]
        else:
            rows += [("data", f"{data.name}: {counts} images of {data.num_classes} classes"), ("images", _images(data))]
    rows.append(("run", f"{settings.mode}, seed {settings.seed}, in {os.path.relpath(run_dir)}"))
    width = max(len(name) for name, _ in rows)
    return [f"{name:{width}}  {text}" for name, text in rows]


def _device(trainer: Trainer) -> str:
    kind = trainer.strategy.root_device.type
    name = f"{kind} ({torch.cuda.get_device_name(trainer.strategy.root_device)})" if kind == "cuda" else kind
    return name if trainer.world_size == 1 else f"{trainer.world_size} × {name}"


class Native(NamedTuple):
    """Images as they are stored.

    Attributes:
        sides: of the square that is cropped from each image that was looked at, in pixels, or None where images are
            taken whole.
        size: height and width of the first.
        grey: whether all are.
        few: whether they are a few of many, which speak for all.
    """

    sides: Sequence[float] | None
    size: tuple[int, int]
    grey: bool
    few: bool


def _images(data: KeyedData) -> str:
    height, width = data.image_size
    native = _native(data)
    text = f"{height}×{width}, {data.channels} channel{'s' if data.channels > 1 else ''}"
    if native is None:
        return text
    stored = f"{native.size[0]}×{native.size[1]}"
    looked = f" (of {LOOKED_AT} looked at)" if native.few else ""
    if native.sides is None:
        pixels, own = height * width, native.size[0] * native.size[1]
        if pixels != own:
            text += f", {'enlarged' if pixels > own else 'reduced'} from {stored}"
    else:
        small = sum(side < height for side in native.sides)
        share = "all" if small == len(native.sides) else f"{small} of {len(native.sides)}"
        text += f", {share if small else 'none'} enlarged; the first is {stored}{looked}"
    return text + (", greyscale tripled" if native.grey and data.channels == 3 else "")


def _native(data: KeyedData) -> Native | None:
    """How the training images are stored; None of a kind that is not known, or where none can be decoded."""
    split = data.splits.train
    if isinstance(split, SplitImages):
        height, width = split.images.shape[2:]
        return Native(None, (height, width), False, False)
    if not isinstance(split, Photographs):
        return None
    sides, sizes, grey = [], [], []
    for position in np.unique(np.linspace(0, len(split) - 1, LOOKED_AT).astype(np.int64)):

        def place(width: int, height: int) -> Box:
            sizes.append((height, width))
            sides.append(split.share * min(width, height))
            return centre_box(width, height, split.share)

        try:
            with split.store.open(int(split.positions[position])) as file:
                pixels = decode(file, SMALL, place)
        except (CorruptError, OSError):
            continue  # training counts and names the corrupt ones
        grey.append(bool((pixels == pixels[:1]).all()))
    return Native(sides, sizes[0], all(grey), len(split) > LOOKED_AT) if grey else None
