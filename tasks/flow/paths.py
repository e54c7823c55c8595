"""Interpolation between noise and data: x_t = α(t)·data + σ(t)·noise (SiT, arXiv 2401.08740, section 2.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.errors import check_choice

Schedule = Callable[[Tensor], Tensor]

# Where α vanishes at t = 0 or σ at t = 1, whatever divides by it stops at these values instead. The noise that is left,
# 0.001, is an eighth of a grey level; 0.01 is what the VP path starts from, too (α(0) = 0.0066).
LEAST_ALPHA, LEAST_SIGMA = 1e-2, 1e-3


@dataclass(frozen=True)
class Path:
    """A path from noise at t = 0 to data at t = 1.

    Attributes:
        name: its name in `PATHS`.
        alpha: weight of the data; any tensor of times in [0, 1] → the same shape and dtype.
        sigma: weight of the noise, likewise.
        alpha_rate: exact derivative of `alpha` with respect to t.
        sigma_rate: exact derivative of `sigma` with respect to t.
        first: the first time at which α ≥ `LEAST_ALPHA`, or 0 where α(0) is positive.
        last: the last time at which σ ≥ `LEAST_SIGMA`.
    """

    name: str
    alpha: Schedule
    sigma: Schedule
    alpha_rate: Schedule
    sigma_rate: Schedule
    first: float
    last: float


def _sine(t: Tensor) -> Tensor:
    return torch.sin(math.pi / 2 * t)


LINEAR = Path(
    "linear",
    alpha=lambda t: t,
    sigma=lambda t: 1 - t,
    alpha_rate=torch.ones_like,
    sigma_rate=lambda t: -torch.ones_like(t),
    first=LEAST_ALPHA,
    last=1 - LEAST_SIGMA,
)

# cos(πt/2) is written as sin(π(1 − t)/2), which is exactly zero at t = 1 and precise next to it.
GVP = Path(
    "gvp",
    alpha=_sine,
    sigma=lambda t: _sine(1 - t),
    alpha_rate=lambda t: math.pi / 2 * _sine(1 - t),
    sigma_rate=lambda t: -math.pi / 2 * _sine(t),
    first=2 / math.pi * math.asin(LEAST_ALPHA),
    last=1 - 2 / math.pi * math.asin(LEAST_SIGMA),
)

_BETA_0, _BETA_1 = 0.1, 20.0  # the noise rates of the variance-preserving diffusion, arXiv 2011.13456, appendix C
_BETA_SLOPE = _BETA_1 - _BETA_0


def _vp_log_alpha(t: Tensor) -> Tensor:
    s = 1 - t
    return -s * (s * _BETA_SLOPE / 4 + _BETA_0 / 2)


def _vp_alpha(t: Tensor) -> Tensor:
    return _vp_log_alpha(t).exp()


def _vp_sigma(t: Tensor) -> Tensor:
    return (-torch.expm1(2 * _vp_log_alpha(t))).sqrt()


def _vp_alpha_rate(t: Tensor) -> Tensor:
    return _vp_alpha(t) * ((1 - t) * _BETA_SLOPE + _BETA_0) / 2


def _vp_sigma_rate(t: Tensor) -> Tensor:
    return -_vp_alpha(t) * _vp_alpha_rate(t) / _vp_sigma(t)


def _vp_last() -> float:
    """The root of log α = ½ log(1 − σ²) at σ = `LEAST_SIGMA`, a quadratic in 1 − t."""
    height = -0.5 * math.log1p(-(LEAST_SIGMA**2))
    half = _BETA_0 / 2
    return 1 - 2 * height / (half + math.sqrt(half**2 + _BETA_SLOPE * height))


# α(0) = exp(−5.025), not 0, and σ'(1) = −∞.
VP = Path("vp", _vp_alpha, _vp_sigma, _vp_alpha_rate, _vp_sigma_rate, first=0.0, last=_vp_last())

PATHS: dict[str, Path] = {path.name: path for path in (LINEAR, GVP, VP)}


def get(name: str) -> Path:
    """The path `name`.

    Raises:
        InputError: the name is none of `PATHS`.
    """
    return PATHS[check_choice("path", name, PATHS)]


def per_sample(t: Tensor, x: Tensor) -> Tensor:
    """Times (B,) as (B, 1, …, 1), to be multiplied with x (B, …)."""
    return t.reshape(-1, *[1] * (x.ndim - 1))


def interpolate(path: Path, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """x_t = α(t) x + σ(t) eps for data x and noise eps (B, …) and times t (B,)."""
    t = per_sample(t, x)
    return path.alpha(t) * x + path.sigma(t) * eps


def velocity(path: Path, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """α'(t) x + σ'(t) eps, the derivative of `interpolate` with respect to time; arguments as there."""
    t = per_sample(t, x)
    return path.alpha_rate(t) * x + path.sigma_rate(t) * eps
