"""Fourier symbols of the convection-diffusion-reaction equation, and what they become on a grid.

With K the diffusion tensor, v the velocity and r the reaction (all times the elapsed time), the symbol at wave number
k = (row, column), of videos (frame, row, column), in radians per pixel is

    s(k) = -k·K k - i v·k + r

and the transfer function from input to output is exp(s) for `initial` forcing, phi1(s) = (exp(s) - 1) / s for
`constant` forcing (times the elapsed time) and -1/s for `steady` forcing (PDE-SSM, arXiv 2603.13663, with b = -v).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.errors import InputError
from operators.pde.flows.telegraph import telegraph_response
from operators.runtime.differentiation import transformed
from operators.runtime.fakes import valueless
from operators.runtime.tracing import untraced

LEAST_DECAY = 1e-4
"""Steady forcing needs a reaction of at most minus this."""

AXES = "tyx"
"""Frame, row and column: an image has the last two."""

MOST_NODES = 4096
"""Quadrature nodes along one axis beyond which the plain reference refuses an `absorbing` plane."""


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of the equation, each (..., ) of one shape, times the elapsed time; None where a term is off.

    `kyy`, `kxx`, `kxy` are the entries of K in pixels², `vy`, `vx` the velocity in pixels, `r` the reaction; those with
    a t are of videos, in frames. `damping` makes the equation one of second order in time, and `initial_velocity` is
    the rate of change at time 0 over the field: see `operators.pde.flows.telegraph`. There K, v and r are times the
    squared time.
    """

    kyy: Tensor | None = None
    kxx: Tensor | None = None
    kxy: Tensor | None = None
    vy: Tensor | None = None
    vx: Tensor | None = None
    r: Tensor | None = None
    damping: Tensor | None = None
    initial_velocity: Tensor | None = None
    ktt: Tensor | None = None
    kty: Tensor | None = None
    ktx: Tensor | None = None
    vt: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Coefficients:
        """Every coefficient that is on, changed."""
        return Coefficients(**{key: change(value) for key, value in vars(self).items() if value is not None})

    def in_pixels(self, grid: Sequence[int], units: str) -> Coefficients:
        """The coefficients in pixels and frames, when they are given in `units` on a grid (H, W) or (T, H, W).

        With `image` an image has area 1, and a video lasts a time of 1.
        """
        if units == "pixel":
            return self
        *frames, height, width = grid
        area, side = float(height * width), math.sqrt(height * width)
        scales = {"kyy": area, "kxx": area, "kxy": area, "vy": side, "vx": side}
        for length in frames:
            scales |= {"ktt": float(length**2), "kty": length * side, "ktx": length * side, "vt": float(length)}
        given = {name: value for name, value in vars(self).items() if name in scales and value is not None}
        return replace(self, **{name: value * scales[name] for name, value in given.items()})

    def along(self, axes: int) -> list[tuple[Tensor | None, Tensor | None]]:
        """Diffusion and velocity along each axis of a grid with so many."""
        return [(getattr(self, entry(axis, axis)), getattr(self, f"v{axis}")) for axis in AXES[-axes:]]

    def across(self, axes: int) -> list[tuple[int, int, Tensor]]:
        """Entries of K off its diagonal that are on, each with the numbers of its two axes."""
        named = AXES[-axes:]
        pairs = [(i, j, getattr(self, entry(named[i], named[j]))) for i, j in combinations(range(axes), 2)]
        return [(i, j, value) for i, j, value in pairs if value is not None]

    @property
    def spatial(self) -> bool:
        """Whether any term moves content between pixels."""
        return self.kyy is not None or self.vy is not None


def entry(axis: str, other: str) -> str:
    """The name of an entry of K."""
    return "k" + "".join(sorted((axis, other)))


def phi1(z: Tensor) -> Tensor:
    """(exp(z) - 1) / z for real or complex z, with the limit 1 at zero, accurate and differentiable everywhere."""
    small = z.abs() < 0.5
    inside = torch.where(small, z, torch.zeros_like(z))
    series = torch.ones_like(z)
    for order in range(16, 1, -1):
        series = 1 + inside * series / order
    outside = torch.where(small, torch.ones_like(z), z)
    return torch.where(small, series, (outside.exp() - 1) / outside)


def respond(symbol: Tensor, forcing: str) -> Tensor:
    """Transfer function of one unit of time from the symbol, real or complex."""
    if forcing == "initial":
        return symbol.exp()
    return phi1(symbol) if forcing == "constant" else -1 / symbol


def symbol(coefficients: Coefficients, waves: Sequence[Tensor]) -> Tensor:
    """The symbol s (..., len(ky), len(kx)), complex, for the wave numbers of each axis in radians per pixel."""
    c, axes, like = coefficients, len(waves), waves[0]
    k = [wave.view(-1, *[1] * (axes - 1 - axis)) for axis, wave in enumerate(waves)]
    real = torch.zeros([1] * axes, dtype=like.dtype, device=like.device)
    imaginary = real
    for wave, (diffusion, _) in zip(k, c.along(axes), strict=True):
        if diffusion is not None:
            real = real - _over(diffusion, axes) * wave**2
    for i, j, value in c.across(axes):
        real = real - 2 * _over(value, axes) * k[i] * k[j]
    if c.r is not None:
        real = real + _over(c.r, axes)
    for wave, (_, velocity) in zip(k, c.along(axes), strict=True):
        if velocity is not None:
            imaginary = imaginary - _over(velocity, axes) * wave
    real, imaginary = torch.broadcast_tensors(real, imaginary)
    shape = torch.broadcast_shapes(real.shape, (1, *map(len, waves)))
    return torch.complex(real.expand(shape), imaginary.expand(shape))


def _over(value: Tensor, axes: int) -> Tensor:
    return value.view(*value.shape, *[1] * axes)


def transfer(coefficients: Coefficients, waves: Sequence[Tensor], forcing: str) -> Tensor:
    """Transfer function (..., len(ky), len(kx)), complex, for the wave numbers of each axis in radians per pixel."""
    c, s, axes = coefficients, symbol(coefficients, waves), len(waves)
    if c.damping is None:
        return respond(s, forcing)
    rate = None if c.initial_velocity is None else _over(c.initial_velocity, axes)
    return telegraph_response(s, _over(c.damping, axes), rate)


def axis_response(k: Tensor, diffusion: Tensor | None, velocity: Tensor | None, even: bool) -> Tensor:
    """Response exp(-K k² - i v k), (..., len(k)), along one axis; with `even` the last wave number is Nyquist, ±pi.

    There the responses of +pi and -pi are averaged, which leaves exp(-K pi²) cos(pi v).
    """
    zero = torch.zeros(1, dtype=k.dtype, device=k.device)
    decay = torch.exp(-(zero if diffusion is None else diffusion[..., None]) * k**2)
    if velocity is None:
        return torch.complex(decay, torch.zeros_like(decay))
    odd = torch.ones_like(k)
    if even:
        odd = torch.cat([odd[:-1], zero])
    phase = velocity[..., None] * k
    return torch.complex(decay * phase.cos(), -decay * phase.sin() * odd)


class _MovingWaves(torch.autograd.Function):
    """exp(-K k²) cos(v k) and exp(-K k²) sin(v k), side by side, with the few products that their gradient needs."""

    @staticmethod
    def make(k: Tensor, diffusion: Tensor | None, velocity: Tensor) -> Tensor:
        phase = velocity[..., None] * k
        waves = torch.stack([phase.cos(), phase.sin()], dim=-2)
        return waves if diffusion is None else waves * torch.exp(-diffusion[..., None] * k**2)[..., None, :]

    @staticmethod
    def forward(ctx: Any, k: Tensor, diffusion: Tensor | None, velocity: Tensor) -> Tensor:
        waves = _MovingWaves.make(k, diffusion, velocity)
        ctx.save_for_backward(k, diffusion, velocity, waves)
        return waves.flatten(-2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        k, diffusion, velocity, waves = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives
            waves = _MovingWaves.make(k, diffusion, velocity)
        gradient = gradient.unflatten(-1, (2, -1))
        spread = turn = None
        if ctx.needs_input_grad[1]:
            spread = -(gradient * waves).sum(-2) @ k**2
        if ctx.needs_input_grad[2]:
            turn = (gradient[..., 1, :] * waves[..., 0, :] - gradient[..., 0, :] * waves[..., 1, :]) @ k
        return None, spread, turn


def axis_waves(k: Tensor, diffusion: Tensor | None, velocity: Tensor | None) -> Tensor:
    """Amplitudes along one axis of cos(k n) and, with a velocity, of sin(k n): (..., len(k)) or (..., 2 len(k)).

    exp(-K k²) cos(v k) and exp(-K k²) sin(v k), the real part of `axis_response` and minus its imaginary one. At the
    Nyquist wave number sin(k n) is zero at every pixel, whatever stands before it.
    """
    if velocity is not None:
        if transformed():
            return _MovingWaves.make(k, diffusion, velocity).flatten(-2)
        amplitudes: Tensor = _MovingWaves.apply(k, diffusion, velocity)
        return amplitudes
    assert diffusion is not None
    return torch.exp(-diffusion[..., None] * k**2)


def half_axis(length: int, like: Tensor) -> Tensor:
    """Wave numbers 0 … pi of a real transform of `length` samples, in radians per pixel."""
    return torch.arange(length // 2 + 1, dtype=like.dtype, device=like.device) * (2 * math.pi / length)


def grid_response(coefficients: Coefficients, grid: Sequence[int], forcing: str, like: Tensor) -> Tensor:
    """Transfer function (..., H, W // 2 + 1) on the half of a grid's wave numbers that a real transform has.

    On even lengths the responses of +pi and -pi are averaged, for each axis by itself.
    """
    nyquist = torch.full((1,), math.pi, dtype=like.dtype, device=like.device)

    def at(waves: list[Tensor]) -> Tensor:
        """The response at given waves of the first axes, and all of those that remain."""
        axis = len(waves)
        if axis == len(grid):
            return transfer(coefficients, waves, forcing)
        length, positive = grid[axis], half_axis(grid[axis], like)
        if axis == len(grid) - 1:
            if length % 2:
                return at([*waves, positive])
            edge = (at([*waves, nyquist]) + at([*waves, -nyquist])) / 2
            return torch.cat([at([*waves, positive[:-1]]), edge], dim=-1)
        below, dim = (length + 1) // 2, axis - len(grid)
        response = at([*waves, torch.cat([positive[:below], -positive[1:below].flip(0)])])
        if length % 2:
            return response
        edge = (at([*waves, nyquist]) + at([*waves, -nyquist])) / 2
        first, last = response.split([below, below - 1], dim)
        return torch.cat([first, edge, last], dim)

    return at([])


@lru_cache(maxsize=32)
def _gauss_legendre(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(nodes)


@untraced
def quadrature(nodes: int, low: float, high: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on [low, high]."""
    points, weights = _gauss_legendre(nodes)
    half = (high - low) / 2
    k = torch.as_tensor(low + half * (points + 1), dtype=like.dtype, device=like.device)
    return k, torch.as_tensor(half * weights, dtype=like.dtype, device=like.device)


def _reach(diffusion: Tensor | None, velocity: Tensor | None, r: Tensor | None, forcing: str, digits: float) -> float:
    """Pixels along one axis beyond which the response to a point is below exp(-digits) of its peak, ringing apart.

    A Gaussian falls as exp(-n²/4K); the steady response falls downstream as exp(-q n), with K q² + v q + r = 0.
    """
    zero = torch.zeros((), device="cpu")
    k = zero if diffusion is None else diffusion.detach().clamp(min=0)
    v = zero if velocity is None else velocity.detach().abs()
    if forcing == "steady" and r is not None:
        # The rate's conjugate form, free of cancellation: q = -2r / (v + sqrt(v² - 4 K r)).
        reach = digits * (v + (v**2 - 4 * k * r.detach()).sqrt()) / (-2 * r.detach())
    else:
        reach = v + 2 * (digits * k).sqrt()
    return float(reach.max())


def _nodes(length: int, reach: float) -> int:
    """Gauss-Legendre nodes that integrate exp(i k n) over a full period for |n| <= length + reach to rounding."""
    # What is not finite is not to be integrated: it shows in the response.
    return math.ceil(math.pi / 2 * (length + (reach if math.isfinite(reach) else 0.0))) + 28


@untraced
def plane_nodes(
    length: int, diffusion: Tensor | None, velocity: Tensor | None, r: Tensor | None, forcing: str, like: Tensor
) -> int:
    """Quadrature nodes along an axis without an end that serve the plain reference.

    Raises:
        InputError: the response reaches so far that the kernel cannot be computed.
    """
    if valueless(like):
        return _nodes(length, length)
    digits = 36.0 if like.dtype == torch.float64 else 16.0
    nodes = _nodes(length, _reach(diffusion, velocity, r, forcing, digits))
    if nodes > MOST_NODES:
        raise InputError(
            f"method='reference' with boundary='absorbing': the response takes {nodes} quadrature nodes, at most "
            f"{MOST_NODES} are computed; use method='auto', less diffusion or velocity, or more decay"
        )
    return nodes
