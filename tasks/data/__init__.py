"""Image data sets: embedded, local or downloaded; batches that depend on (seed, epoch, index) alone."""

from __future__ import annotations

import inspect
from typing import Any

from operators.errors import check_choice, check_names
from tasks.data.augment import Augment, RandAugment
from tasks.data.cifar10 import CIFAR10
from tasks.data.fashion_mnist import FASHION_MNIST, FASHION_MNIST_MINI
from tasks.data.mix import BatchMix
from tasks.data.module import ImageData
from tasks.data.splits import Source

__all__ = ["Augment", "BatchMix", "ImageData", "RandAugment", "create", "names"]

_SOURCES: dict[str, Source] = {source.name: source for source in (CIFAR10, FASHION_MNIST, FASHION_MNIST_MINI)}


def names() -> list[str]:
    """The known data sets, sorted."""
    return sorted(_SOURCES)


def create(name: str, **params: Any) -> ImageData:
    """The data set `name`; `params` are those of `ImageData`, without its `source`.

    Raises:
        InputError: unknown name or parameter, a value out of range, or a `root` that does not hold the data set.
    """
    check_choice("data.name", name, names())
    check_names("data", params, [p for p in inspect.signature(ImageData).parameters if p != "source"])
    return ImageData(_SOURCES[name], **params)
