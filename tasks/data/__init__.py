"""Image data sets: embedded, local or downloaded; batches that depend on (seed, epoch, index) alone."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace
from typing import Any

from operators.errors import check_choice, check_names
from tasks.data import folder, imagenet
from tasks.data.augment import Augment, RandAugment
from tasks.data.cifar10 import CIFAR10
from tasks.data.fashion_mnist import FASHION_MNIST, FASHION_MNIST_MINI
from tasks.data.layout import Opener, Options
from tasks.data.mix import BatchMix
from tasks.data.module import ImageData
from tasks.data.splits import Source

__all__ = ["Augment", "BatchMix", "ImageData", "RandAugment", "create", "describe", "names"]

_SOURCES: dict[str, Source] = {source.name: source for source in (CIFAR10, FASHION_MNIST, FASHION_MNIST_MINI)}
_PHOTOGRAPHS: dict[str, Opener] = {"image_folder": folder.image_folder, "imagenet": imagenet.imagenet}
_ELSEWHERE = ("cifar10", "fashion_mnist", "imagenet")
"""Data sets that lie outside the package, and whose shape and classes are known all the same."""
_CROP_SCALE = {"classification": 0.08, "generation": 0.0}


def names() -> list[str]:
    """The known data sets, sorted."""
    return sorted({**_SOURCES, **_PHOTOGRAPHS})


def create(name: str, **params: Any) -> ImageData:
    """The data set `name`; `params` are those of `ImageData`, without its `source`, and for photographs `Options`.

    Raises:
        InputError: unknown name or parameter, a value out of range, or a `root` that does not hold the data set.
    """
    check_choice("data.name", name, names())
    common = {p for p in inspect.signature(ImageData).parameters if p != "source"}
    if name in _SOURCES:
        check_names("data", params, common)
        return ImageData(_SOURCES[name], **params)
    own = {f.name for f in fields(Options)}
    check_names("data", params, common | own)
    options = Options(**{key: value for key, value in params.items() if key in own})
    augment = Augment.parse(params.pop("augment", None))
    if augment.crop_scale is None:
        augment = replace(augment, crop_scale=_CROP_SCALE[options.pipeline])
    rest = {key: value for key, value in params.items() if key not in own}
    return ImageData(_PHOTOGRAPHS[name](options), augment=augment, **rest)


def describe(name: str, **params: Any) -> ImageData:
    """As `create`, for its shape and classes only: nothing is looked for where the name alone tells them.

    Raises:
        InputError: as `create`; of a folder of images the root is needed, since its folders are the classes.
    """
    params = {key: value for key, value in params.items() if key != "num_workers"}  # which another machine will run
    if name in _ELSEWHERE:
        params = {key: value for key, value in params.items() if key not in ("root", "splits")}
    return create(name, **params)
