"""The images that are placed, and what their outermost pixels are like, given the others."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.data.sources.fashion_mnist import FASHION_MNIST_MINI, load_mini

Images = npt.NDArray[np.float32]


@cache
def resized(split: str, side: int) -> Images:
    """The embedded images of a split, (N, side, side), resized bilinearly with antialiasing and normalised.

    Black becomes negative, so that an image differs from an empty canvas of zeros over its whole square.
    """
    import torch
    import torch.nn.functional as F

    pixels = torch.from_numpy(load_mini(None)[split].images) / 255
    small = F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True)
    placed: Images = ((small - FASHION_MNIST_MINI.mean[0]) / FASHION_MNIST_MINI.std[0])[:, 0].numpy()
    return placed


def border(side: int) -> npt.NDArray[np.bool_]:
    """The outermost pixels of a square (side, side): 4 (side - 1) of them."""
    inside = np.zeros((side, side), bool)
    inside[1:-1, 1:-1] = True
    return ~inside


class Completion(NamedTuple):
    """The linear regression of border pixels on the others.

    Attributes:
        weights: (1 + inner pixels, border pixels); the first row is the intercept.
        variance: mean over the border of the conditional variance, estimated by the residuals of the fit.
    """

    weights: npt.NDArray[np.float64]
    variance: float


@cache
def completion(side: int) -> Completion:
    """Least squares on the training images."""
    known, outer = resized("train", side).astype(np.float64), border(side)
    inner, wanted = _with_one(known[:, ~outer]), known[:, outer]
    weights = np.asarray(np.linalg.lstsq(inner, wanted)[0], np.float64)
    left = np.square(wanted - inner @ weights).sum() / (inner.shape[0] - inner.shape[1])
    return Completion(weights, float(left / wanted.shape[1]))


def completed(framed: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Images (B, side, side) with what `completion` expects at their borders."""
    outer = border(framed.shape[-1])
    whole = framed.copy()
    whole[:, outer] = _with_one(framed[:, ~outer]) @ completion(framed.shape[-1]).weights
    return whole


def _with_one(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.concatenate([np.ones((len(values), 1)), values], axis=1)
