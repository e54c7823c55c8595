"""Generated and real images in one form: uint8 (N, C, H, W), what an image file would hold."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from operators.errors import InputError
from tasks.data import ImageData, keyed

Split = Literal["train", "val", "test"]


def quantised(samples: Tensor) -> Tensor:
    """Samples (B, C, H, W) as uint8: those in floating point, nominally in [-1, 1], are clipped and rounded.

    Real images have 256 levels; a feature network could tell them from samples that have more.

    Raises:
        InputError: another shape or dtype, or a value that is not finite.
    """
    if samples.ndim != 4:
        raise InputError(f"samples of shape {tuple(samples.shape)} must be (batch, channels, height, width)")
    if samples.dtype == torch.uint8:
        return samples
    if not samples.is_floating_point():
        raise InputError(f"samples of type {samples.dtype} must be uint8, or floating point in [-1, 1]")
    if not torch.isfinite(samples).all():
        raise InputError("samples hold values that are not finite: the model or the sampler has diverged")
    return ((samples.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def signed(pixels: Tensor) -> Tensor:
    """float32 in [-1, 1] of uint8 pixels."""
    return pixels.float() / 127.5 - 1


def real(data: ImageData, split: Split, first: int | None = None) -> Tensor:
    """Images of a split at the resolution of `data`, as uint8 (N, C, H, W).

    Args:
        data: loaded if need be.
        split: train, val or test.
        first: that many images, drawn without replacement in an order that is the same for every run; None takes
            all of them in their own order.
    """
    images = getattr(data.splits, split).images
    if first is not None:
        images = images[keyed.permutation(0, 0, len(images), f"measures/{split}")[:first]]
    pixels = torch.from_numpy(np.ascontiguousarray(images))
    if tuple(pixels.shape[-2:]) == data.image_size:
        return pixels
    # as `tasks.data` shows them to the model, then rounded
    return F.interpolate(pixels.float(), data.image_size, mode="bilinear", antialias=True).round().to(torch.uint8)
