"""What a network predicts, and how one prediction follows from another."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from operators.errors import check_choice
from tasks.config import choices
from tasks.flow.paths import Path, per_sample

KINDS = choices.PREDICTIONS

Model = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_t (B, …), t (B,), label (B,)) → prediction (B, …)."""


class Span(NamedTuple):
    """The times at which a velocity is evaluated.

    Attributes:
        start: first time of the closed interval.
        end: its last time.
        singular_end: the velocity grows without bound beyond `end`.
    """

    start: float = 0.0
    end: float = 1.0
    singular_end: bool = False


WHOLE = Span()


def span(path: Path, kind: str) -> Span:
    """The times at which a prediction of this kind determines the velocity well: what to train and sample on.

    A data prediction says nothing about the noise where σ = 0, a noise prediction nothing about the data where α = 0,
    and the velocity of the VP path is infinite at t = 1. Such ends are cut where σ = 0.001 or α = 0.01; all others
    stay at 0 and 1.

    Raises:
        InputError: the kind is none of `KINDS`.
    """
    check_choice("prediction", kind, KINDS)
    ends = torch.tensor([0.0, 1.0])
    singular_start = kind == "noise" and not path.alpha(ends)[0]
    singular_end = kind == "data" or not path.sigma_rate(ends)[1].isfinite()
    return Span(path.first if singular_start else 0.0, path.last if singular_end else 1.0, bool(singular_end))


def convert(path: Path, value: Tensor, x_t: Tensor, t: Tensor, source: str, target: str) -> Tensor:
    """The prediction `target` that belongs to the prediction `value` of kind `source`.

    Solves x_t = α data + σ noise and velocity = α' data + σ' noise for what is asked. At a time where `value` does not
    determine the answer (see `span`) the result is not finite; it is `value` itself where the kinds are the same.

    Args:
        path: of x_t.
        value: (B, …).
        x_t: (B, …).
        t: (B,).
        source: kind of `value`.
        target: kind of the result.

    Returns:
        (B, …).

    Raises:
        InputError: a kind is none of `KINDS`.
    """
    check_choice("prediction", source, KINDS)
    check_choice("prediction", target, KINDS)
    if source == target:
        return value
    t = per_sample(t, x_t)
    alpha, sigma, alpha_rate, sigma_rate = path.alpha(t), path.sigma(t), path.alpha_rate(t), path.sigma_rate(t)
    if source == "velocity":
        determinant = alpha * sigma_rate - sigma * alpha_rate
        if target == "data":
            return (sigma_rate * x_t - sigma * value) / determinant
        return (alpha * value - alpha_rate * x_t) / determinant
    data = value if source == "data" else (x_t - sigma * value) / alpha
    noise = value if source == "noise" else (x_t - alpha * value) / sigma
    if target == "velocity":
        return alpha_rate * data + sigma_rate * noise
    return data if target == "data" else noise


def velocity_weight(path: Path, kind: str, t: Tensor) -> Tensor:
    """How many times larger a squared error of the velocity is than that of the prediction it was computed from.

    With the determinant δ = α σ' − σ α': 1 for the velocity, (δ/σ)² for data, (δ/α)² for noise.

    Returns:
        the shape of `t`; infinite at the times that `span` leaves out.

    Raises:
        InputError: the kind is none of `KINDS`.
    """
    check_choice("prediction", kind, KINDS)
    if kind == "velocity":
        return torch.ones_like(t)
    alpha, sigma = path.alpha(t), path.sigma(t)
    determinant = alpha * path.sigma_rate(t) - sigma * path.alpha_rate(t)
    return (determinant / (sigma if kind == "data" else alpha)).square()


def velocity_model(model: Model, path: Path, kind: str) -> Model:
    """A model that predicts the velocity, from one that predicts `kind`.

    Raises:
        InputError: the kind is none of `KINDS`.
    """
    check_choice("prediction", kind, KINDS)

    def velocity(x_t: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return convert(path, model(x_t, t, label), x_t, t, kind, "velocity")

    return velocity
