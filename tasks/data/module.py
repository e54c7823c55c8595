"""The LightningDataModule of every image data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from operators.errors import InputError, check_number
from tasks.config import bounds
from tasks.data import subset as subsets
from tasks.data.augment import Augment, Transform
from tasks.data.files import identical
from tasks.data.files.corrupt import Corrupt
from tasks.data.loading import Batch, KeyedData
from tasks.data.sampler import Loader, Pairs, TrainBatches
from tasks.data.splits import Source, Split, Splits, carve


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


class ImageData(KeyedData):
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
        check_number("seed", seed, integer=True)
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        bounds.check_data(resolution=resolution, val_size=val_size, subset=subset)
        self.augment = Augment.parse(augment)
        source.check(self.augment, val_size)
        root = None if root is None else str(Path(root).expanduser())
        source.require(root)
        self._source, self._root, self._val_size = source, root, val_size or source.val_size
        self.subset = subset
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

    def serve(self, split: str) -> ImageSplit:
        """The images of a split, of training augmented."""
        resolution = self.image_size[0] if self.image_size != self._source.shape[1:] else None
        augment = self.augment if split == "train" else Augment()
        transform = Transform(self.mean, self.std, resolution, augment, self.seed)
        return ImageSplit(getattr(self.splits, split), transform, self.seed, augment)

    def watch(self, split: str, loader: Loader) -> None:
        """Tell a loader of the run, and where to count corrupt images."""
        super().watch(split, loader)
        if split not in self.corrupt:
            path = None if self.trainer is None else Path(self.trainer.default_root_dir) / "corrupt.txt"
            images: Split = getattr(self.splits, split)
            self.corrupt[split] = Corrupt(split, len(images), images.tolerated, self._source.max_corrupt, path)
        loader.corrupt = self.corrupt[split]

    def train_batches(self, rank: int, world_size: int) -> TrainBatches:
        """As in `KeyedData`; an odd number of images cannot be mixed in pairs."""
        batches = super().train_batches(rank, world_size)
        if self.augment.mixes and self.batch_size // world_size % 2:
            raise InputError(
                f"data.batch_size={self.batch_size} on {world_size} device(s) must give each an even number of "
                "images: mixup and cutmix mix pairs"
            )
        return batches
