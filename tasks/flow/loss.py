"""The flow matching loss of each sample, in the space of the prediction and as an error of the velocity."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from operators.errors import InputError, check_choice, check_number
from tasks.flow.paths import Path, interpolate, velocity
from tasks.flow.prediction import KINDS, Model, velocity_weight


class Losses(NamedTuple):
    """Mean squared errors of each sample.

    Attributes:
        prediction: (B,), of what the model predicts: what is minimised.
        velocity: (B,), of the velocity that follows from it: comparable between kinds of prediction.
    """

    prediction: Tensor
    velocity: Tensor


def flow_loss(model: Model, path: Path, kind: str, x: Tensor, label: Tensor, t: Tensor, eps: Tensor) -> Losses:
    """Conditional flow matching (arXiv 2210.02747, equation 9), for any path and prediction.

    Args:
        model: of x_t, t and label.
        path: between noise and data.
        kind: what the model predicts: velocity, data or noise.
        x: data (B, …).
        label: (B,).
        t: times (B,), in `span(path, kind)`.
        eps: noise, shape of x.

    Returns:
        means over all dimensions but the first, in the wider of the types of prediction and data.

    Raises:
        InputError: the prediction does not have the shape of x, or the kind is unknown.
    """
    check_choice("prediction", kind, KINDS)
    target = velocity(path, x, eps, t) if kind == "velocity" else {"data": x, "noise": eps}[kind]
    prediction = model(interpolate(path, x, eps, t), t, label)
    if prediction.shape != x.shape:
        raise InputError(f"prediction has shape {tuple(prediction.shape)}, data {tuple(x.shape)}: they must be equal")
    loss = (prediction - target).square().flatten(1).mean(1)
    return Losses(loss, velocity_weight(path, kind, t) * loss)


def bin_by_time(losses: Tensor, t: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Sums and numbers of losses in `bins` equal intervals of [0, 1], to be added up over batches.

    Args:
        losses: (B,).
        t: times (B,) in [0, 1]; 1 belongs to the last bin.
        bins: how many.

    Returns:
        sums (bins,) and counts (bins,), float64. A loss that is not finite shows in its own bin only.

    Raises:
        InputError: less than one bin.
    """
    check_number("bins", bins, least=1, integer=True)
    here = (t * bins).long().clamp(0, bins - 1) == torch.arange(bins, device=t.device)[:, None]
    return torch.where(here, losses.double(), 0.0).sum(1), here.sum(1, dtype=torch.float64)


class BinnedLoss(Metric):
    """Mean of a loss over samples, whole and in equal intervals of time.

    Args:
        bins: number of intervals of [0, 1].
    """

    full_state_update = False
    sums: Tensor
    counts: Tensor

    def __init__(self, bins: int) -> None:
        super().__init__()
        for name in ("sums", "counts"):
            self.add_state(name, torch.zeros(bins, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, losses: Tensor, t: Tensor) -> None:
        """Take in losses (B,) at times t (B,)."""
        sums, counts = bin_by_time(losses, t, len(self.sums))
        self.sums += sums
        self.counts += counts

    def compute(self) -> dict[str, float]:
        """`loss`, and `loss_bin_i` for each interval that has been seen, noise first."""
        values = {"loss": float(self.sums.sum() / self.counts.sum())}
        means = zip(self.sums.tolist(), self.counts.tolist(), strict=True)
        return values | {f"loss_bin_{i}": total / count for i, (total, count) in enumerate(means) if count}

    def collect(self) -> dict[str, float]:
        """What `compute` gives, after which the sums start from zero."""
        values: dict[str, float] = self.compute()
        self.reset()
        return values
