"""RandAugment (arXiv 1909.13719) in the form DeiT uses, `rand-m9-mstd0.5-inc1` of timm, keyed per sample.

Fifteen operations, each step picks one with replacement and applies it with probability one half; the magnitude is
N(m, 0.5) clipped to [0, 10] and grows in effect for every operation. After each operation the image is rounded to
the 255 steps of an 8-bit image, as Pillow does. Geometric operations interpolate bilinearly (timm picks bilinear or
bicubic at random) and fill with the data set's mean colour. Images are grouped by operation, so that a batch costs
at most fifteen calls a step whatever its size.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from kornia.enhance import equalize, sharpness
from torch import Tensor

from tasks.data import keyed


def rand_augment(
    images: npt.NDArray[np.uint8],
    seed: int,
    epoch: keyed.Index,
    index: keyed.Index,
    ops: int,
    magnitude: float,
    fill: tuple[float, ...],
) -> npt.NDArray[np.uint8]:
    """Apply `ops` operations to each image.

    Args:
        images: uint8 (B, C, H, W), C = 1 or 3.
        seed: of the key.
        epoch: of each image (B,).
        index: of each image (B,).
        ops: operations per image.
        magnitude: 0 … 10.
        fill: colour in [0, 1] per channel of what geometric operations uncover.

    Returns:
        uint8 (B, C, H, W).
    """
    draws = keyed.uniform(seed, epoch, index, "randaugment", 4 * ops).reshape(len(index), ops, 4)
    x = torch.from_numpy(images).float() / 255
    colour = torch.tensor(fill).view(1, -1, 1, 1)
    for choice, apply, level, sign in np.moveaxis(draws, 0, -1):
        noise = torch.special.ndtri(torch.from_numpy(level))
        levels = ((magnitude + 0.5 * noise).clamp(0, 10) / 10).float()
        signs = torch.from_numpy(np.where(sign < 0.5, -1.0, 1.0)).float()
        operation = np.where(apply < 0.5, (choice * len(OPERATIONS)).astype(np.int64), -1)
        for i, function in enumerate(OPERATIONS.values()):
            chosen = torch.from_numpy(np.flatnonzero(operation == i))
            if len(chosen):
                changed = function(x[chosen], levels[chosen], signs[chosen], colour)
                x[chosen] = changed.clamp(0, 1).mul(255).round().div(255)
    return x.mul(255).round().to(torch.uint8).numpy()


Operation = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(images (n, C, H, W) in [0, 1], level (n,) in [0, 1], sign (n,) of ±1, fill (1, C, 1, 1)) → images"""


def _column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _factor(level: Tensor, sign: Tensor) -> Tensor:
    return (1 + 0.9 * level * sign).clamp(min=0.1)


def _grey(x: Tensor) -> Tensor:
    """ITU-R 601 luma, (n, 1, H, W)."""
    return x if x.shape[1] == 1 else (x * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _affine(x: Tensor, fill: Tensor, matrix: tuple[tuple[Tensor, Tensor, Tensor], ...]) -> Tensor:
    """Output pixel p, measured from the image's centre, takes its value from the input at `matrix` · (p, 1).

    The matrix has a row for the horizontal and one for the vertical input coordinate, in pixels; entries are (n,).
    """
    height, width = x.shape[-2:]
    across = torch.arange(width) - (width - 1) / 2
    down = (torch.arange(height) - (height - 1) / 2)[:, None]
    # elementwise rather than a matrix product, whose rounding may depend on how many images share the call
    source = [a[:, None, None] * across + b[:, None, None] * down + c[:, None, None] for a, b, c in matrix]
    grid = torch.stack([source[0] * (2 / width), source[1] * (2 / height)], dim=-1)
    return F.grid_sample(x - fill, grid, align_corners=False) + fill


def _auto_contrast(x: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low), x)


def _equalize(x: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    # kornia truncates to 8 bits: a quarter of a step keeps k / 255 from falling to k − 1
    return equalize((x + 0.25 / 255).clamp(max=1))


def _invert(x: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    return 1 - x


def _rotate(x: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    angle = math.radians(30) * level.double() * sign
    cos, sin, zero = torch.cos(angle).float(), torch.sin(angle).float(), torch.zeros_like(level)
    return _affine(x, fill, ((cos, -sin, zero), (sin, cos, zero)))


def _posterize(x: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    step = _column(2 ** (8 - (4 - (4 * level).floor())))
    return (x * 255).round().div(step).floor().mul(step) / 255


def _solarize(x: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    return torch.where(x * 255 < _column(256 - (256 * level).floor()), x, 1 - x)


def _solarize_add(x: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    return torch.where((x * 255).round() < 128, x + _column((110 * level).floor() / 255), x)


def _color(x: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    grey = _grey(x)
    return grey + _column(_factor(level, sign)) * (x - grey)


def _contrast(x: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    # float64 sums are exact for 8-bit levels, hence independent of the order of summation
    mean = (_grey(x).double().mean((2, 3), keepdim=True) * 255).round().float() / 255
    return mean + _column(_factor(level, sign)) * (x - mean)


def _brightness(x: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    return x * _column(_factor(level, sign))


def _sharpness(x: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    return sharpness(x, _factor(level, sign))


def _shear_x(x: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    one, zero = torch.ones_like(level), torch.zeros_like(level)
    return _affine(x, fill, ((one, 0.3 * level * sign, zero), (zero, one, zero)))


def _shear_y(x: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    one, zero = torch.ones_like(level), torch.zeros_like(level)
    return _affine(x, fill, ((one, zero, zero), (0.3 * level * sign, one, zero)))


def _translate_x(x: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    one, zero = torch.ones_like(level), torch.zeros_like(level)
    return _affine(x, fill, ((one, zero, 0.45 * level * sign * x.shape[-1]), (zero, one, zero)))


def _translate_y(x: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    one, zero = torch.ones_like(level), torch.zeros_like(level)
    return _affine(x, fill, ((one, zero, zero), (zero, one, 0.45 * level * sign * x.shape[-2])))


OPERATIONS: dict[str, Operation] = {
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "invert": _invert,
    "rotate": _rotate,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": _color,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
