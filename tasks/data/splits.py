"""Images in memory, what any split of a data set can do, and what describes a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from operators.errors import InputError, check_number
from tasks.data import keyed
from tasks.data.augment import Augment

Update = Callable[[Any], None]
"""Takes bytes in, as a hash's `update`."""


class Fetched(NamedTuple):
    """A batch before augmentation: uint8 (B, C, H, W), int64 (B,), and the reason for each corrupt image by name."""

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    corrupt: Mapping[str, str] = {}


class Split(Protocol):
    """One split, in memory or on disk."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The class of each image, int64 (N,)."""
        ...

    @property
    def tolerated(self) -> int:
        """How many corrupt images the run passes over before it is refused."""
        ...

    def __len__(self) -> int: ...

    def take(self, positions: npt.NDArray[np.int64]) -> Split:
        """The images at `positions`, in that order."""
        ...

    def fetch(self, seed: int, epoch: keyed.Index, index: keyed.Index, augment: Augment) -> Fetched:
        """The images at `index`, after whatever of `augment` happens while decoding."""
        ...

    def describe(self, update: Update) -> None:
        """Feed what identifies the split to a hash."""
        ...


@dataclass(frozen=True)
class SplitImages:
    """One split in memory: `images` uint8 (N, C, H, W) and `labels` int64 (N,)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    tolerated: int = field(default=0, init=False)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: npt.NDArray[np.int64]) -> SplitImages:
        """The images at `positions`, in that order."""
        return SplitImages(self.images[positions], self.labels[positions])

    def fetch(self, seed: int, epoch: keyed.Index, index: keyed.Index, augment: Augment) -> Fetched:
        """The images at `index`, whatever the rest."""
        return Fetched(self.images[index], self.labels[index])

    def describe(self, update: Update) -> None:
        """Shape, pixels and labels."""
        update(repr(self.images.shape).encode())
        update(np.ascontiguousarray(self.images).data)
        update(self.labels.astype("<i8").data)


@dataclass(frozen=True)
class Splits:
    """Train, validation and test images of one data set."""

    train: Split
    val: Split
    test: Split

    def fingerprint(self) -> str:
        """SHA-256 (hex) over what describes the three splits, in this order: see `describe` of each kind."""
        digest = hashlib.sha256()
        for split in (self.train, self.val, self.test):
            split.describe(digest.update)
        return digest.hexdigest()


@dataclass(frozen=True)
class Source:
    """Describes a data set without loading it.

    Attributes:
        name: its name in the configuration.
        class_names: in the order of the labels.
        shape: native (C, H, W).
        mean, std: per channel, of the train split in [0, 1].
        val_size: images carved from train for validation; None if the data set has a validation split of its own.
        require: raises `InputError` if a root the user gave cannot be this data set; cheap, downloads nothing.
        load: reads (and where needed downloads) {"train", "test"} and, without a `val_size`, "val".
        crop: the crop augmentation that it serves, `crop_pad` (in memory) or `crop_scale` (photographs).
        max_corrupt: as given, see `tasks.data.sources.photographs.Photographs`.
    """

    name: str
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    val_size: int | None
    require: Callable[[str | None], None]
    load: Callable[[str | None], Mapping[str, Split]]
    crop: str = "crop_pad"
    max_corrupt: float = 0

    def check(self, augment: Augment, val_size: int | None) -> None:
        """Raise `InputError` for what does not go with the data set: its splits, its crop, its size."""
        if val_size is not None and self.val_size is None:
            raise InputError(f"data.val_size={val_size} is refused: {self.name} has a validation split")
        other = "crop_pad" if self.crop == "crop_scale" else "crop_scale"
        if getattr(augment, other):
            raise InputError(f"data.augment.{other} is refused: data={self.name} is cropped by {self.crop}")
        check_number("data.augment.crop_pad", augment.crop_pad, most=min(self.shape[1:]))


def stratified(labels: npt.NDArray[np.int64], size: int, purpose: str) -> tuple[keyed.Index, keyed.Index]:
    """Choose `size` positions so that every class keeps its share; the choice depends on `purpose` alone.

    Shares that are not whole are rounded down; the images still missing go to the classes with the largest
    remainders.

    Returns:
        (chosen, rest): ascending positions; together every position once.
    """
    if not 0 < size < len(labels):
        raise InputError(f"data.val_size={size} must be between 1 and {len(labels) - 1}")
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * (size / len(labels))
    take = np.floor(exact).astype(np.int64)
    take[np.argsort(take - exact, kind="stable")[: size - take.sum()]] += 1
    order = keyed.bits(0, 0, np.arange(len(labels)), f"split/{purpose}")[:, 0]
    chosen = np.zeros(len(labels), dtype=bool)
    for label, amount in zip(classes, take, strict=True):
        members = np.flatnonzero(labels == label)
        chosen[members[np.argsort(order[members], kind="stable")[:amount]]] = True
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)


def carve(loaded: Mapping[str, Split], val_size: int | None) -> Splits:
    """Make the three splits; `val_size` images of train become validation where there is none."""
    if val_size is None:
        return Splits(loaded["train"], loaded["val"], loaded["test"])
    chosen, rest = stratified(loaded["train"].labels, val_size, "val")
    return Splits(loaded["train"].take(rest), loaded["train"].take(chosen), loaded["test"])
