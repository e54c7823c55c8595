"""Learned numbers of the mixer `pde_ssm`, and the coefficients of the equation that they stand for.

Raw numbers are unbounded, (groups, state, numbers) by name; coefficients are in image units over one unit of time:

    K = L Lᵀ / 2, L = [[a, 0], [b c, c]], of lengths a and c and a shear b; of videos
        L = [[a, 0, 0], [b c, c, 0], [d f, e f, f]] for row, column, frame, so that an image in it has its own K
    v as it is; of second order v = d F w / sqrt(1 + |w|²), F Fᵀ = K and d the damping, which no wave outgrows
    r in [-8, 0]; damping d = exp; rate of a reaction that is not linear in [0, 8]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from operators.mixers.equations.options import Agreed
from operators.pde.symbols import AXES, Coefficients, entry

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

_ORDER = "yxt"
"""The axes of the rows of L, from the top."""


def term_of(name: str) -> str:
    """What a raw number belongs to: a term of the equation, or one of `options.OTHERS`."""
    return _TERMS[name]


def least_decay(forcing: str) -> float:
    """The reaction is kept at or below minus this."""
    return LEAST_STEADY_DECAY if forcing == "steady" else 0.0


def draw(agreed: Agreed, groups: int, grid: Sequence[int]) -> dict[str, Tensor]:
    """Raw numbers at the start: many scales at once, most of them short."""
    *frames, height, width = grid
    pixels = [1 / length for length in frames] + 2 * [1 / math.sqrt(height * width)]
    count = groups * agreed.states
    # One length in each of `count` equal shares of probability, so that no model misses a scale by bad luck.
    quantile = ((torch.randperm(count) + torch.rand(count)) / count).view(groups, agreed.states, 1)
    waves = agreed.call.order == 2
    # Waves run a length over sqrt(2) in a unit of time: from a pixel to half the image, evenly by their logarithm.
    long, share = (math.sqrt(0.5), quantile) if waves else (0.5, quantile**2)
    shortest = [math.sqrt(2) * pixel if waves else pixel / 3 for pixel in pixels]
    log_length = torch.cat(
        [(1 - share) * math.log(short) + share * math.log(max(long, short)) for short in shortest], dim=-1
    )
    drift = torch.randn(groups, agreed.states, len(grid)) * (torch.tensor(pixels) + log_length.exp() / 2)
    raw = {}
    if "diffusion" in agreed.terms:
        raw["log_length"] = log_length[..., -1:].clone() if agreed.tensor == "isotropic" else log_length
        if agreed.tensor == "full":
            raw["shear"] = torch.zeros(groups, agreed.states, math.comb(len(grid), 2))
    if "convection" in agreed.terms:
        raw["velocity"] = torch.zeros_like(drift) if waves else drift
    if "reaction" in agreed.terms:
        # Under initial forcing a mere gain, best near 1; otherwise it shapes the kernel.
        decay, least = 0.05 if agreed.call.forcing == "initial" else 0.5, least_decay(agreed.call.forcing)
        raw["reaction_logit"] = torch.full_like(quantile, math.log(decay / (MOST_DECAY - least - decay)))
    if waves:
        low, high = map(math.log, DAMPINGS)
        raw["log_damping"] = low + (high - low) * torch.rand_like(quantile)
        if agreed.initial_velocity == "learned":
            raw["initial_velocity"] = torch.zeros_like(quantile)
    if agreed.nonlinearity != "none":
        raw["rate_logit"] = torch.full_like(quantile, math.log(START_RATE / (MOST_RATE - START_RATE)))
    return raw


def physical(raw: Mapping[str, Tensor], agreed: Agreed) -> Coefficients:
    """Coefficients of the linear equation."""
    axes = AXES[-agreed.call.axes :]
    made: dict[str, Tensor] = {}
    if "log_length" in raw:
        squares = (2 * raw["log_length"]).exp() / 2
        squares = squares.expand(*squares.shape[:-1], len(axes))
        made |= {entry(axis, axis): square for axis, square in zip(axes, squares.unbind(-1), strict=True)}
    if "shear" in raw:
        made |= _sheared(raw, axes, made)
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
        velocity = _drift(raw, axes, made["damping"]) if "damping" in made else raw["velocity"]
        made |= {f"v{axis}": value for axis, value in zip(axes, velocity.unbind(-1), strict=True)}
    return Coefficients(**made)


def _shears(raw: Mapping[str, Tensor], axes: str) -> dict[tuple[str, str], Tensor]:
    """Entries of L below its diagonal over the length of their row, by (column, row)."""
    order = [axis for axis in _ORDER if axis in axes]
    return dict(zip(combinations(order, 2), raw["shear"].unbind(-1), strict=True))


def _sheared(raw: Mapping[str, Tensor], axes: str, alone: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Entries of K with shears, from those of its diagonal without."""
    lengths = dict(zip(axes, raw["log_length"].exp().unbind(-1), strict=True))
    shears, made = _shears(raw, axes), {}
    for (i, j), shear in shears.items():
        for m in _ORDER[: _ORDER.index(i)]:
            shear = shear + shears[m, i] * shears[m, j]
        made[entry(i, j)] = lengths[i] * shear * lengths[j] / 2
    for axis in axes:
        squares = [shear**2 for (_, row), shear in shears.items() if row == axis]
        if squares:
            name = entry(axis, axis)
            made[name] = alone[name] * sum(squares, start=1)
    return made


def _drift(raw: Mapping[str, Tensor], axes: str, damping: Tensor) -> Tensor:
    """Velocities (..., axes) of the equation of second order, none of which makes a wave grow."""
    ball = raw["velocity"] / (1 + raw["velocity"].square().sum(-1, keepdim=True)).sqrt()
    lengths = raw["log_length"].exp().expand_as(ball)
    made = list((lengths * ball).unbind(-1))
    if "shear" in raw:
        for (column, row), shear in _shears(raw, axes).items():
            i, j = axes.index(column), axes.index(row)
            made[j] = made[j] + shear * lengths[..., j] * ball[..., i]
    return torch.stack(made, dim=-1) * (damping / math.sqrt(2))[..., None]


def reaction_rate(raw: Mapping[str, Tensor]) -> Tensor:
    """The rate of a reaction that is not linear."""
    return MOST_RATE * raw["rate_logit"].squeeze(-1).sigmoid()
