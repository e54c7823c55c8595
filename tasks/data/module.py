"""The LightningDataModule of every image data set."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from operators.errors import InputError, check_number
from tasks.config import bounds
from tasks.data import subset as subsets
from tasks.data import workers
from tasks.data.augment import Augment, Transform
from tasks.data.files import identical
from tasks.data.files.corrupt import Corrupt
from tasks.data.sampler import EvalBatches, Loader, Pairs, TrainBatches, TrainLoader
from tasks.data.splits import Source, Split, Splits, carve
from tasks.system.atomic_files import LAST
from tasks.system.signals import shield

Batch = dict[str, Any]

TRAINING_LOADERS = 3
"""Loaders that live at once while training: that of the train split, and those of validation and test."""


class ImageSplit(Dataset[Batch]):
    """One split. A whole batch is fetched and augmented at once, hence `__getitems__`."""

    def __init__(self, split: Split, transform: Transform, seed: int, augment: Augment) -> None:
        self._split, self._transform, self._seed, self._augment = split, transform, seed, augment

    def __len__(self) -> int:
        return len(self._split)

    def __getitems__(self, pairs: Pairs) -> Batch:
        """The batch of these (epoch, index) pairs, see `ImageData`; "corrupt" in it is for `Loader`."""
        epoch, index = np.ascontiguousarray(np.array(pairs, dtype=np.int64).T)
        pixels, labels, corrupt = self._split.fetch(self._seed, epoch, index, self._augment)
        batch: Batch = {**self._transform(pixels, epoch, index)}
        columns = {"label": labels, "index": index, "epoch": epoch}
        batch |= {name: torch.from_numpy(column) for name, column in columns.items()}
        return {**batch, "corrupt": dict(corrupt)} if corrupt else batch


class ImageData(lightning.LightningDataModule):
    """Train, validation and test loaders of one data set.

    A batch is a dict: "image" float32 (B, C, H, W) normalised, "label", "index" and "epoch" int64 (B,); `index` is
    the image's position in its split, `epoch` is 0 outside training. With mixup or cutmix, train batches also hold
    "mix" (B, 5), which `BatchMix` applies on the device. Train drops its last incomplete batch; validation and test
    show every image exactly once. The validation split never depends on `seed`, and never on the test split.

    In place of a photograph that cannot be decoded comes another, keyed by (epoch, index), with its label. The
    corrupt ones are named in a warning, in `corrupt` and in `corrupt.txt` in the trainer's directory; how many are
    tolerated is a matter of the whole run, see `tasks.data.files.corrupt`.

    Args:
        source: what data set this is; `tasks.data.create` looks it up by name.
        root: folder that holds the data; None takes it where it usually is, downloading it if need be.
        batch_size: global batch, over all devices, which must divide it.
        num_workers: loader processes per device.
        resolution: side of the images in pixels; None keeps their native size.
        seed: of the order and the augmentation.
        val_size: images of train to validate on; None is the data set's default. Refused where the data set has
            its own validation split.
        subset: share of the train split to learn from, see `tasks.data.subset.take`; None and 1 are all of it.
            Validation and test stay whole.
        augment: an `Augment`, or a mapping of its fields; None switches it off.

    Attributes:
        name, num_classes, channels, image_size (H, W), class_names, mean, std: known without loading anything.
        fingerprint: SHA-256 over images and labels of the three splits; of photographs, which are too many to
            read, over names, encoded sizes and labels.
        corrupt: what is known of the corrupt images of "train", "val" and "test", once it has a loader.

    Raises:
        InputError: a value out of range, or a `root` that does not hold the data set.
    """

    def __init__(
        self,
        source: Source,
        *,
        root: str | None = None,
        batch_size: int = 128,
        num_workers: int = 0,
        resolution: int | None = None,
        seed: int = 0,
        val_size: int | None = None,
        subset: float | None = None,
        augment: Augment | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_number("seed", seed, integer=True)
        bounds.check_data(
            batch_size=batch_size, num_workers=num_workers, resolution=resolution, val_size=val_size, subset=subset
        )
        self.augment = Augment.parse(augment)
        source.check(self.augment, val_size)
        root = None if root is None else str(Path(root).expanduser())
        source.require(root)
        self._source, self._root, self._val_size = source, root, val_size or source.val_size
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.subset = subset
        self.corrupt: dict[str, Corrupt] = {}
        self.name, self.class_names = source.name, source.class_names
        self.mean, self.std = source.mean, source.std
        self.num_classes = len(source.class_names)
        self.channels, height, width = source.shape
        self.image_size = (resolution, resolution) if resolution else (height, width)

    @cached_property
    def whole(self) -> Splits:
        """The images of the three splits; reads (and where needed downloads) them the first time."""
        return carve(self._source.load(self._root), self._val_size)

    @cached_property
    def splits(self) -> Splits:
        """As `whole`, with the share of train that is learnt from."""
        return replace(self.whole, train=subsets.take(self.whole.train, self.subset, self.seed))

    @cached_property
    def fingerprint(self) -> str:
        """See the class; loads the data."""
        return self.splits.fingerprint()

    @cached_property
    def identical(self) -> dict[str, int] | None:
        """See `tasks.data.files.identical`; None of images in memory. Says it, where there are any."""
        return identical.count(self.splits)

    def prepare_data(self) -> None:
        """Load once per machine before the other processes do, so that only one of them downloads."""
        _ = self.splits

    def setup(self, stage: str | None = None) -> None:
        """Load in every process."""
        _ = self.splits

    @property
    def steps_per_epoch(self) -> int:
        """Train batches in an epoch, the same on every rank."""
        return len(self.splits.train) // self.batch_size

    def train_dataloader(self) -> TrainLoader:
        """Shuffled, augmented; checkpoints and resumes within an epoch.

        Raises:
            InputError: the batch does not divide by the number of devices, or exceeds the split.
        """
        rank, world_size = self._place()
        dataset = self._dataset(self.splits.train, self.augment)
        batches = self._train_batches(rank, world_size)
        loader = TrainLoader(dataset, batch_sampler=batches, **self._options(len(batches), TRAINING_LOADERS))
        loader.corrupt, loader.checkpoint = self._tally("train", self.splits.train), self._checkpoint()
        return loader

    def batches(self, world_size: int) -> dict[str, int]:
        """Batches that each of so many processes gets of "train", "val" and "test"; loads the data.

        Raises:
            InputError: as `train_dataloader`.
        """
        train = len(self._train_batches(0, world_size))
        self._check_workers(train, TRAINING_LOADERS, world_size)
        others = {"val": self.splits.val, "test": self.splits.test}
        return {"train": train} | {
            name: len(EvalBatches(len(split), self.batch_size, 0, world_size)) for name, split in others.items()
        }

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation split in its order."""
        return self._eval_loader("val", self.splits.val)

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test split in its order."""
        return self._eval_loader("test", self.splits.test)

    def _eval_loader(self, name: str, split: Split) -> DataLoader[Batch]:
        batches = EvalBatches(len(split), self.batch_size, *self._place())
        loader = Loader(self._dataset(split, Augment()), batch_sampler=batches, **self._options(len(batches)))
        loader.corrupt, loader.checkpoint = self._tally(name, split), self._checkpoint()
        return loader

    def _tally(self, name: str, split: Split) -> Corrupt:
        if name not in self.corrupt:
            path = None if self.trainer is None else Path(self.trainer.default_root_dir) / "corrupt.txt"
            self.corrupt[name] = Corrupt(name, len(split), split.tolerated, self._source.max_corrupt, path)
        return self.corrupt[name]

    def _dataset(self, split: Split, augment: Augment) -> ImageSplit:
        resolution = self.image_size[0] if self.image_size != self._source.shape[1:] else None
        return ImageSplit(split, Transform(self.mean, self.std, resolution, augment, self.seed), self.seed, augment)

    def check_memory(self) -> None:
        """Raise `InputError` unless a batch fits into this machine's memory."""
        image = 4 * self.channels * math.prod(self.image_size)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if image * self.batch_size > memory:
            side = "×".join(map(str, self.image_size))
            raise InputError(
                f"data.batch_size={self.batch_size} images of {side} pixels take "
                f"{image * self.batch_size / 2**30:,.1f} GiB, and this machine has {memory / 2**30:,.1f}: allowed are "
                f"at most {memory // image} in a batch"
            )

    def _checkpoint(self) -> Path | None:
        return None if self.trainer is None else Path(self.trainer.default_root_dir) / "checkpoints" / LAST

    def _train_batches(self, rank: int, world_size: int) -> TrainBatches:
        batches = TrainBatches(len(self.splits.train), self.batch_size, self.seed, rank, world_size)
        if self.augment.mixes and self.batch_size // world_size % 2:
            raise InputError(
                f"data.batch_size={self.batch_size} on {world_size} device(s) must give each an even number of "
                "images: mixup and cutmix mix pairs"
            )
        return batches

    def _check_workers(self, batches: int, loaders: int, world_size: int) -> None:
        batch = 4 * self.batch_size // world_size * self.channels * math.prod(self.image_size)
        workers.check(self.num_workers, loaders, batch, batches)

    def _options(self, batches: int, loaders: int = 1) -> dict[str, Any]:
        self._check_workers(batches, loaders, self._place()[1])
        return {
            "num_workers": self.num_workers,
            "collate_fn": workers.send,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "worker_init_fn": shield,
        }

    def _place(self) -> tuple[int, int]:
        """(rank, world size); a lone process outside a trainer."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
