"""Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) in pairs of neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tasks.data import keyed

if TYPE_CHECKING:
    from torch import Tensor


def draw_mix(
    seed: int,
    epoch: keyed.Index,
    index: keyed.Index,
    size: tuple[int, int],
    alphas: tuple[float, float],
    probability: float,
    switch: float,
) -> Tensor:
    """How positions (2j, 2j+1) of a batch are mixed, keyed by the index of the even one.

    Args:
        seed: of the key.
        epoch: of each image (B,), B even.
        index: of each image (B,).
        size: (H, W) of the images to be mixed, in pixels.
        alphas: α of mixup's and cutmix's Beta(α, α); 0 = off, at least one is on.
        probability: that a pair is mixed.
        switch: probability of cutmix where both are on.

    Returns:
        float32 (B, 5): the weight λ of the own image outside the box, and the box (top, bottom, left, right) that
        comes from the partner. Mixup has an empty box, cutmix λ = 1; both members of a pair have the same row.
    """
    mixup, cutmix = alphas
    height, width = size
    u = keyed.uniform(seed, epoch[::2], index[::2], "mix", 6)
    pairs = np.tile(np.array([1.0, 0, 0, 0, 0]), (len(u), 1))
    mixed = u[:, 0] < probability
    cut = mixed & (u[:, 1] < (switch if mixup and cutmix else float(cutmix > 0)))
    blend = mixed & ~cut
    if mixup:
        pairs[blend, 0] = symmetric_beta(mixup, u[blend, 2], u[blend, 3])
    if cutmix:
        side = np.sqrt(1 - symmetric_beta(cutmix, u[cut, 2], u[cut, 3]))
        for column, draw, length in ((1, u[cut, 4], height), (3, u[cut, 5], width)):
            centre, half = np.floor(draw * length), np.floor(side * length) // 2
            pairs[cut, column] = np.clip(centre - half, 0, length)
            pairs[cut, column + 1] = np.clip(centre + half, 0, length)
    import torch

    return torch.from_numpy(np.repeat(pairs, 2, axis=0).astype(np.float32))


def symmetric_beta(
    alpha: float, first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Beta(α, α) from two uniforms in (0, 1), exactly and for every α > 0.

    If T has Student's distribution with 2α degrees of freedom, ½ + ½ T / √(2α + T²) has Beta(α, α) (Devroye,
    "Random variate generation in one line of code", 1996); T comes from Bailey's polar method (1994).
    """
    # e^700 is still finite, and as good as infinite
    radius = np.expm1(np.minimum(-np.log(first) / alpha, 700))
    cosine = np.cos(2 * np.pi * second)
    squared = radius * cosine**2
    return 0.5 + 0.5 * np.sign(cosine) * np.sqrt(squared / (1 + squared))


class BatchMix:
    """Turns labels into soft targets, and mixes neighbouring images where the loader drew a "mix".

    Call it on the device, on a train batch with "image" (B, C, H, W), "label" (B,) and, where mixup or cutmix is
    on, "mix" (B, 5) from `draw_mix`. It returns a batch with the mixed "image" and "target" float32
    (B, num_classes), whose rows sum to one; the box's share of a label is its actual area. Without "mix" the
    target is one-hot. Nothing is drawn here, so nothing waits for the device.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        import torch
        import torch.nn.functional as F

        target = F.one_hot(batch["label"], self.num_classes).float()
        if "mix" not in batch:
            return {**batch, "target": target}
        image = batch["image"]
        height, width = image.shape[-2:]
        weight, top, bottom, left, right = batch["mix"].unbind(1)
        rows = torch.arange(height, device=image.device)
        columns = torch.arange(width, device=image.device)
        in_rows = (rows >= top[:, None]) & (rows < bottom[:, None])
        in_columns = (columns >= left[:, None]) & (columns < right[:, None])
        box = in_rows[:, :, None] & in_columns[:, None, :]
        own = weight[:, None, None].where(~box, 0.0)[:, None].to(image.dtype)
        share = (weight * (1 - (bottom - top) * (right - left) / (height * width)))[:, None]
        mixed = own * image + (1 - own) * _partner(image)
        return {**batch, "image": mixed, "target": share * target + (1 - share) * _partner(target)}


def _partner(values: Tensor) -> Tensor:
    """Swap positions 2j and 2j+1."""
    return values.reshape(-1, 2, *values.shape[1:]).flip(1).reshape(values.shape)
