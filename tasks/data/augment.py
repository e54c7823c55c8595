"""What happens to a batch of uint8 images before the model sees it, every draw keyed by the sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from operators.errors import InputError, check_names, check_number
from tasks.data import keyed
from tasks.data.mix import draw_mix

if TYPE_CHECKING:
    from torch import Tensor

Pixels = npt.NDArray[np.uint8]


MOST_OPS = 100
"""Random operations for each image: two are usual, and nothing is left of one after so many."""


@dataclass(frozen=True)
class RandAugment:
    """`ops` random operations per image at `magnitude` (0 … 10), see `tasks.data.randaugment`."""

    ops: int
    magnitude: float

    def __post_init__(self) -> None:
        check_number("data.augment.randaugment.ops", self.ops, least=1, most=MOST_OPS, integer=True)
        check_number("data.augment.randaugment.magnitude", self.magnitude, least=0, most=10)


@dataclass(frozen=True)
class Augment:
    """Augmentation of the train split; the defaults switch everything off. Parts as in DeiT (arXiv 2012.12877).

    Attributes:
        flip: mirror half of the images left to right.
        crop_scale: photographs only: smallest share of the area that a random resized crop takes (see
            `tasks.data.decode.random_box`); 0 crops the centre as in evaluation, None is the pipeline's own.
        crop_pad: pad by this many native pixels of black on each side, at most the image's own, then crop to the
            native size.
        randaugment: None, or operations and magnitude.
        erasing: probability of replacing a random box (2 % to a third of the image) by Gaussian noise.
        mixup, cutmix: α of the Beta(α, α) that mixes neighbouring images; 0 switches it off.
        mixup_prob: probability that a pair is mixed at all.
        mixup_switch: probability of cutmix rather than mixup where both are on.

    Raises:
        InputError: a value out of its range.
    """

    flip: bool = False
    crop_scale: float | None = None
    crop_pad: int = 0
    randaugment: RandAugment | None = None
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mixup_prob: float = 1.0
    mixup_switch: float = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.flip, bool):
            raise InputError(f"data.augment.flip={self.flip!r} must be true or false")
        if self.crop_scale is not None:
            check_number("data.augment.crop_scale", self.crop_scale, least=0, most=1)
        check_number("data.augment.crop_pad", self.crop_pad, least=0, integer=True)
        for name, most in (("erasing", 1), ("mixup", None), ("cutmix", None), ("mixup_prob", 1), ("mixup_switch", 1)):
            check_number(f"data.augment.{name}", getattr(self, name), least=0, most=most)

    @property
    def mixes(self) -> bool:
        """Whether pairs of images are mixed."""
        return self.mixup_prob > 0 and (self.mixup > 0 or self.cutmix > 0)

    @classmethod
    def parse(cls, value: Augment | Mapping[str, Any] | None) -> Augment:
        """From a configuration node; None and {} switch everything off.

        Raises:
            InputError: unknown names or values out of range.
        """
        if isinstance(value, Augment):
            return value
        given = _mapping("data.augment", {} if value is None else value, cls)
        # 0 is how a command line says "off" (`data.augment.randaugment=0`)
        if given.get("randaugment") in (0, None):
            given["randaugment"] = None
        elif not isinstance(given["randaugment"], RandAugment):
            node = _mapping("data.augment.randaugment", given["randaugment"], RandAugment)
            if len(node) < 2:
                raise InputError(f"data.augment.randaugment={node} needs both ops and magnitude")
            given["randaugment"] = RandAugment(**node)
        return cls(**given)


def _mapping(what: str, value: Any, target: type) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{what}={value!r} must be a mapping")
    check_names(what, value, [f.name for f in fields(target)])
    return dict(value)


class Transform:
    """uint8 (B, C, H, W) → {"image": float32 (B, C, H', W') normalised[, "mix": float32 (B, 5)]}.

    In this order: crop and flip, RandAugment, resize (bilinear, antialiased), normalise, erase. What an image
    becomes depends on (seed, epoch, its index) alone; the mixing of pairs is drawn here and applied on the device
    by `BatchMix`.

    The plain path stays in NumPy: torch splits arrays of this size over its threads, and waiting for the last of
    them costs several times the work itself wherever the cores are shared.
    """

    def __init__(
        self, mean: tuple[float, ...], std: tuple[float, ...], resolution: int | None, augment: Augment, seed: int
    ) -> None:
        # (x / 255 − mean) / std as one subtraction and one product
        self._shift = 255 * np.array(mean, np.float32)[:, None, None]
        self._scale = 1 / (255 * np.array(std, np.float32)[:, None, None])
        self._mean, self._resolution, self._augment, self._seed = mean, resolution, augment, seed

    def __call__(self, images: Pixels, epoch: keyed.Index, index: keyed.Index) -> dict[str, Tensor]:
        import torch
        import torch.nn.functional as F

        augment, key = self._augment, (self._seed, epoch, index)
        if augment.crop_pad:
            images = random_crop(images, *key, pad=augment.crop_pad)
        if augment.flip:
            images = random_flip(images, *key)
        if augment.randaugment is not None:
            # kornia is slow to import and only this needs it
            from tasks.data.randaugment import rand_augment

            images = rand_augment(images, *key, augment.randaugment.ops, augment.randaugment.magnitude, self._mean)
        image = images.astype(np.float32)
        if self._resolution is not None:
            size = (self._resolution, self._resolution)
            image = F.interpolate(torch.from_numpy(image), size, mode="bilinear", antialias=True).numpy()
        image -= self._shift
        image *= self._scale
        if augment.erasing:
            random_erase(image, *key, probability=augment.erasing)
        batch = {"image": torch.from_numpy(image)}
        if augment.mixes:
            size = (image.shape[-2], image.shape[-1])
            alphas = (augment.mixup, augment.cutmix)
            batch["mix"] = draw_mix(*key, size, alphas, augment.mixup_prob, augment.mixup_switch)
        return batch


def random_crop(images: Pixels, seed: int, epoch: keyed.Index, index: keyed.Index, *, pad: int) -> Pixels:
    """Shift uint8 (B, C, H, W) by up to `pad` pixels in each direction against a black border.

    The key is (seed, epoch (B,), index (B,)).
    """
    count, channels, height, width = images.shape
    padded = np.zeros((count, channels, height + 2 * pad, width + 2 * pad), np.uint8)
    padded[:, :, pad : pad + height, pad : pad + width] = images
    top, left = keyed.integers(seed, epoch, index, "crop", 2 * pad + 1, 2).T
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    return windows[np.arange(count), :, top, left]


def random_flip(images: Pixels, seed: int, epoch: keyed.Index, index: keyed.Index) -> Pixels:
    """Mirror half of the images of uint8 (B, C, H, W) left to right; the key is (seed, epoch (B,), index (B,))."""
    mirrored = keyed.uniform(seed, epoch, index, "flip")[:, 0] < 0.5
    result = images.copy()
    result[mirrored] = images[mirrored, ..., ::-1]
    return result


def random_erase(
    image: npt.NDArray[np.float32], seed: int, epoch: keyed.Index, index: keyed.Index, *, probability: float
) -> None:
    """Random erasing (Zhong et al., arXiv 1708.04896) with noise per pixel, as DeiT and timm set it.

    Changes the normalised (B, C, H, W) in place; the key is (seed, epoch (B,), index (B,)). The box covers 2 % to
    33 % of the image with an aspect ratio from 0.3 to 3.3 (log-uniform); of ten proposals the first that fits is
    taken, and none if none fits.
    """
    _, channels, height, width = image.shape
    u = keyed.uniform(seed, epoch, index, "erase", 41)
    area, ratio, top, left = np.split(u[:, 1:], 4, axis=1)
    pixels = (0.02 + (1 / 3 - 0.02) * area) * height * width
    aspect = np.exp(np.log(0.3) + ratio * (np.log(3.3) - np.log(0.3)))
    box_height, box_width = np.rint(np.sqrt(pixels * aspect)), np.rint(np.sqrt(pixels / aspect))
    fits = (box_height < height) & (box_width < width)
    for i in np.flatnonzero((u[:, 0] < probability) & fits.any(axis=1)).tolist():
        j = int(fits[i].argmax())
        rows, columns = int(box_height[i, j]), int(box_width[i, j])
        first_row = int(top[i, j] * (height - rows + 1))
        first_column = int(left[i, j] * (width - columns + 1))
        key = (seed, epoch[i : i + 1], index[i : i + 1])
        noise = keyed.normal(*key, "erase/noise", channels * rows * columns).reshape(channels, rows, columns)
        image[i, :, first_row : first_row + rows, first_column : first_column + columns] = noise
