"""What every kind of data does the same way: loaders whose batches depend on (seed, epoch, index) alone."""

from __future__ import annotations

import math
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Protocol

import lightning
import torch
from torch.utils.data import DataLoader, Dataset

from operators.errors import InputError
from tasks.config import bounds
from tasks.data import workers
from tasks.data.augment import Augment
from tasks.data.files.corrupt import Corrupt
from tasks.data.sampler import EvalBatches, Loader, TrainBatches, TrainLoader
from tasks.system.atomic_files import LAST
from tasks.system.signals import shield

Batch = dict[str, Any]

TRAINING_LOADERS = 3
"""Loaders that live at once while training: that of the train split, and those of validation and test."""


class Lengths(Protocol):
    """Three splits, of which at least the sizes are known."""

    @property
    def train(self) -> Sized: ...

    @property
    def val(self) -> Sized: ...

    @property
    def test(self) -> Sized: ...


class KeyedData(lightning.LightningDataModule):
    """Base class of the data: train, validation and test loaders.

    Train drops its last incomplete batch; validation and test show every sample exactly once. A subclass has `splits`,
    and makes the data sets that serve them.

    Args:
        batch_size: global batch, over all devices, which must divide it.
        num_workers: loader processes per device.
        seed: of the order, and of what a subclass draws.

    Attributes:
        name, num_classes, channels, image_size (H, W), class_names, mean, std: known without loading anything.
        augment: what happens to images in training.
        subset: share of the train split that is learnt from; None where there is none.
        fingerprint: SHA-256 over the data.
        identical: see `tasks.data.files.identical`; None where nobody counts.
        corrupt: what is known of the corrupt images of "train", "val" and "test", once it has a loader.

    Raises:
        InputError: a value out of range.
    """

    name: str
    class_names: Sequence[str]
    num_classes: int
    channels: int
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment
    subset: float | None

    def __init__(self, *, batch_size: int, num_workers: int, seed: int) -> None:
        super().__init__()
        bounds.check_data(batch_size=batch_size, num_workers=num_workers)
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.corrupt: dict[str, Corrupt] = {}

    @property
    @abstractmethod
    def splits(self) -> Lengths:
        """The three splits; reads (and where needed downloads) or draws them the first time."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """See the class; loads the data."""

    @property
    def identical(self) -> Mapping[str, int] | None:
        """How many images lie in several splits; None where nobody counts."""
        return None

    @abstractmethod
    def serve(self, split: str) -> Dataset[Batch]:
        """What makes a batch of a list of (epoch, index) pairs, by `__getitems__`."""

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
        batches = self.train_batches(*self._place())
        options = self._options(len(batches), TRAINING_LOADERS)
        loader = TrainLoader(self.serve("train"), batch_sampler=batches, **options)
        self.watch("train", loader)
        return loader

    def batches(self, world_size: int) -> dict[str, int]:
        """Batches that each of so many processes gets of "train", "val" and "test"; loads the data.

        Raises:
            InputError: as `train_dataloader`.
        """
        train = len(self.train_batches(0, world_size))
        self._check_workers(train, TRAINING_LOADERS, world_size)
        others = {"val": self.splits.val, "test": self.splits.test}
        return {"train": train} | {
            name: len(EvalBatches(len(split), self.batch_size, 0, world_size)) for name, split in others.items()
        }

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation split in its order."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test split in its order."""
        return self._eval_loader("test")

    def _eval_loader(self, name: str) -> DataLoader[Batch]:
        batches = EvalBatches(len(getattr(self.splits, name)), self.batch_size, *self._place())
        loader = Loader(self.serve(name), batch_sampler=batches, **self._options(len(batches)))
        self.watch(name, loader)
        return loader

    def watch(self, split: str, loader: Loader) -> None:
        """Tell a loader what it needs to know of the run."""
        loader.checkpoint = self._checkpoint()

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

    def train_batches(self, rank: int, world_size: int) -> TrainBatches:
        """The batches of the train split that one of so many processes gets; raises as `train_dataloader`."""
        return TrainBatches(len(self.splits.train), self.batch_size, self.seed, rank, world_size)

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
