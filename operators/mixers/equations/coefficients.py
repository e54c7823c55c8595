"""Learned numbers of the mixer `pde_ssm`, and the coefficients of the equation that they stand for.

Raw numbers are unbounded, (groups, state, numbers) by name; coefficients are in image units over one unit of time:

    K = L Lᵀ / 2, L = [[a, 0], [b c, c]], of lengths a and c and a shear b
    v as it is; of second order v = d F w / sqrt(1 + |w|²), F Fᵀ = K and d the damping, which no wave outgrows
    r in [-8, 0]; damping d = exp; rate of a reaction that is not linear in [0, 8]
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from operators.mixers.equations.options import Agreed
from operators.pde.symbols import Coefficients

MOST_DECAY = 8.0
LEAST_STEADY_DECAY = 0.5
"""Of steady forcing. Its kernels depend on K / r and v / r alone: the bound costs nothing and limits their reach."""
MOST_RATE = 8.0
DAMPINGS = (0.1, 10.0)
"""Of waves at the start."""
START_RATE = 0.5
"""Of a reaction that is not linear, at the start."""
_TERMS = {
    "log_length": "diffusion", "shear": "diffusion", "velocity": "convection", "reaction_logit": "reaction",
    "log_damping": "damping", "initial_velocity": "initial_velocity", "rate_logit": "nonlinearity",
}  # fmt: skip


def term_of(name: str) -> str:
    """What a raw number belongs to: a term of the equation, or one of `options.OTHERS`."""
    return _TERMS[name]


def least_decay(forcing: str) -> float:
    """The reaction is kept at or below minus this."""
    return LEAST_STEADY_DECAY if forcing == "steady" else 0.0


def draw(agreed: Agreed, groups: int, grid: tuple[int, int]) -> dict[str, Tensor]:
    """Raw numbers at the start: many scales at once, most of them short."""
    height, width = grid
    pixel = 1 / math.sqrt(height * width)
    count = groups * agreed.states
    # One length in each of `count` equal shares of probability, so that no model misses a scale by bad luck.
    quantile = ((torch.randperm(count) + torch.rand(count)) / count).view(groups, agreed.states, 1)
    waves = agreed.call.order == 2
    # Waves run a length over sqrt(2) in a unit of time: from a pixel to half the image, evenly by their logarithm.
    short, long, share = (math.sqrt(2) * pixel, math.sqrt(0.5), quantile) if waves else (pixel / 3, 0.5, quantile**2)
    log_length = (1 - share) * math.log(short) + share * math.log(max(long, short))
    drift = torch.randn(groups, agreed.states, 2) * (pixel + log_length.exp() / 2)
    raw = {}
    if "diffusion" in agreed.terms:
        raw["log_length"] = log_length.repeat(1, 1, 1 if agreed.tensor == "isotropic" else 2)
        if agreed.tensor == "full":
            raw["shear"] = torch.zeros_like(log_length)
    if "convection" in agreed.terms:
        raw["velocity"] = torch.zeros_like(drift) if waves else drift
    if "reaction" in agreed.terms:
        # Under initial forcing a mere gain, best near 1; otherwise it shapes the kernel.
        decay, least = 0.05 if agreed.call.forcing == "initial" else 0.5, least_decay(agreed.call.forcing)
        raw["reaction_logit"] = torch.full_like(log_length, math.log(decay / (MOST_DECAY - least - decay)))
    if waves:
        low, high = map(math.log, DAMPINGS)
        raw["log_damping"] = low + (high - low) * torch.rand_like(log_length)
        if agreed.initial_velocity == "learned":
            raw["initial_velocity"] = torch.zeros_like(log_length)
    if agreed.nonlinearity != "none":
        raw["rate_logit"] = torch.full_like(log_length, math.log(START_RATE / (MOST_RATE - START_RATE)))
    return raw


def physical(raw: Mapping[str, Tensor], agreed: Agreed) -> Coefficients:
    """Coefficients of the linear equation."""
    made: dict[str, Tensor] = {}
    if "log_length" in raw:
        squares = (2 * raw["log_length"]).exp() / 2
        made["kyy"], made["kxx"] = squares.expand(*squares.shape[:-1], 2).unbind(-1)
    if "shear" in raw:
        a, c = raw["log_length"].exp().unbind(-1)
        b = raw["shear"].squeeze(-1)
        made["kxy"] = a * b * c / 2
        made["kxx"] = made["kxx"] * (1 + b**2)
    if "reaction_logit" in raw:
        least = least_decay(agreed.call.forcing)
        made["r"] = -least - (MOST_DECAY - least) * raw["reaction_logit"].squeeze(-1).sigmoid()
    if agreed.call.order == 2:
        made["damping"] = raw["log_damping"].squeeze(-1).exp()
        if agreed.initial_velocity == "learned":
            made["initial_velocity"] = raw["initial_velocity"].squeeze(-1)
        elif agreed.initial_velocity == "decay":
            made["initial_velocity"] = -made["damping"] / 2
    if "velocity" in raw:
        made["vy"], made["vx"] = (_drift(raw, made["damping"]) if "damping" in made else raw["velocity"]).unbind(-1)
    return Coefficients(**made)


def _drift(raw: Mapping[str, Tensor], damping: Tensor) -> Tensor:
    """Velocities (..., 2) of the equation of second order, none of which makes a wave grow."""
    ball = raw["velocity"] / (1 + raw["velocity"].square().sum(-1, keepdim=True)).sqrt()
    lengths = raw["log_length"].exp().expand_as(ball)
    vy, vx = (lengths * ball).unbind(-1)
    if "shear" in raw:
        vx = vx + raw["shear"].squeeze(-1) * lengths[..., 1] * ball[..., 0]
    return torch.stack([vy, vx], dim=-1) * (damping / math.sqrt(2))[..., None]


def reaction_rate(raw: Mapping[str, Tensor]) -> Tensor:
    """The rate of a reaction that is not linear."""
    return MOST_RATE * raw["rate_logit"].squeeze(-1).sigmoid()
