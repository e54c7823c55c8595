"""Steps of selective scans on larger grids than the one they were trained on: see `operators.transfer`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

WAYS = ("rescaled", "filtered")


@dataclass(frozen=True)
class StepChange:
    """How steps are changed.

    Attributes:
        way: one of `WAYS`.
        share: tokens of the nominal grid over those of the one that is read, less than one.
        remembered: see `filtered`.
    """

    way: str
    share: float
    remembered: float


def changed_steps(raw: Tensor, bias: Tensor, rates: Tensor, change: StepChange | None) -> dict[str, Any]:
    """Arguments of `selective_scan` for steps softplus(raw + bias), with that change.

    Args:
        raw: (B, N, D).
        bias: (D,).
        rates: A (D, S), negative.
        change: None for none.
    """
    if change is None:
        return {"delta": raw.mT, "delta_bias": bias, "delta_softplus": True}
    dt = F.softplus(raw + bias.to(raw.dtype))
    if change.way == "rescaled":
        return {"delta": (dt * math.sqrt(change.share)).mT}
    return {"delta": filtered(dt, rates, change.share, change.remembered).mT}


def filtered(dt: Tensor, rates: Tensor, share: float, remembered: float) -> Tensor:
    """The largest steps of each channel, as many as sum up to a share of all, and zeros.

    A channel stays as it is if it fades to less than `remembered` within that share. The largest step always stays.

    Args:
        dt: (B, N, D).
        rates: A (D, S), negative; the state that fades most slowly counts.
        share: of the sum over tokens.
        remembered: between 0 and 1.
    """
    total = share * dt.sum(1, keepdim=True)
    largest, place = dt.sort(dim=1, descending=True)
    fits = largest.cumsum(1) <= total
    fits[:, 0] = True
    stays = torch.zeros_like(fits).scatter(1, place, fits)
    forgets = torch.exp(rates.amax(-1) * total) < remembered
    return torch.where(stays | forgets, dt, 0)
