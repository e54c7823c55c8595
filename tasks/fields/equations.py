"""Five equations of fields on a square, dimensionless: lengths are sides of the square.

Each is û' = L û + N(û) in Fourier space: L couples the fields of a wave, and its exponential is exact, so that only N
limits the step of `tasks.fields.solver`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from operators.errors import check_choice
from tasks.fields.box import SCALAR, VECTOR, Box, Complex, Parity, Real
from tasks.fields.draws import smooth

REACTION = 2.0
"""Steps of a reaction are so many times shorter than its rate asks: it moves all waves, a flow mostly the shortest."""


class Equation(ABC):
    """What the solver has to know of an equation.

    Attributes:
        name: in the configuration.
        fields: names of the fields, in the order of the channels.
        units: of each field.
        parities: of each field.
        interval: time between two states of a trajectory.
        start: time from the random state to the first state that is shown.
    """

    name: ClassVar[str]
    fields: ClassVar[tuple[str, ...]]
    units: ClassVar[tuple[str, ...]]
    parities: ClassVar[tuple[Parity, ...]]
    interval: ClassVar[float]
    start: ClassVar[float] = 0.0

    @abstractmethod
    def draw(self, rng: np.random.Generator, box: Box) -> Real:
        """A random state (C, grid, grid)."""

    @abstractmethod
    def linear(self, box: Box) -> Complex:
        """L (C, C, points, points // 2 + 1)."""

    def nonlinear(self, spectrum: Complex, box: Box) -> Complex | None:
        """N (C, points, points // 2 + 1) of the state with this spectrum; None: there is none."""
        return None

    def rate(self, spectrum: Complex, box: Box) -> float:
        """A bound on how fast N, and what L does beside it, change that state: 1 / time."""
        return 0.0


def _diagonal(box: Box, *symbols: Complex | Real) -> Complex:
    linear = np.zeros((len(symbols), len(symbols), *box.laplacian.shape), dtype=np.complex128)
    for number, symbol in enumerate(symbols):
        linear[number, number] = symbol
    return linear


def _transport(velocity: Real, gradients: Real) -> Real:
    """−(velocity · ∇) of fields (C, n, n) with gradients (C, 2, n, n)."""
    return -(velocity * gradients).sum(axis=1)


def _crossing(velocity: Real, box: Box) -> float:
    """The rate at which the shortest waves of the box pass at this velocity (2, n, n)."""
    return float(box.highest * abs(velocity).max(axis=(1, 2)).sum())


@dataclass(frozen=True)
class AdvectionDiffusion(Equation):
    """Solves ∂c/∂t + w·∇c = κ Δc: a concentration in a flow w that stays the same.

    Between periodic walls the flow is uniform, between reflecting ones a single vortex, of stream function
    (s/π) sin(πx) sin(πy) on the unit square, which no wall lets out.

    Attributes:
        velocity: uniform flow along rows and columns.
        swirl: s, the largest speed of the vortex.
        diffusivity: κ.
    """

    name: ClassVar[str] = "advection_diffusion"
    fields: ClassVar[tuple[str, ...]] = ("concentration",)
    units: ClassVar[tuple[str, ...]] = ("× largest at start",)
    parities: ClassVar[tuple[Parity, ...]] = (SCALAR,)
    interval: ClassVar[float] = 0.1

    velocity: tuple[float, float] = (0.6, 0.3)
    swirl: float = 0.5
    diffusivity: float = 2e-3

    def draw(self, rng: np.random.Generator, box: Box) -> Real:
        return smooth(rng, box, 3.0)[None]

    def linear(self, box: Box) -> Complex:
        symbol = self.diffusivity * box.laplacian + 0j
        if box.boundary == "periodic":
            rows, columns = box.waves
            symbol = symbol - 1j * (self.velocity[0] * rows + self.velocity[1] * columns)
        return _diagonal(box, symbol)

    def vortex(self, box: Box) -> Real:
        """The flow (2, points, points) between reflecting walls."""
        phase = np.pi * box.centres / box.side
        sine, cosine = np.sin(phase), np.cos(phase)
        return self.swirl * np.stack([np.outer(sine, cosine), -np.outer(cosine, sine)])

    def nonlinear(self, spectrum: Complex, box: Box) -> Complex | None:
        if box.boundary == "periodic":
            return None
        return box.spectrum(_transport(self.vortex(box), box.values(box.gradient(spectrum))))

    def rate(self, spectrum: Complex, box: Box) -> float:
        return 0.0 if box.boundary == "periodic" else _crossing(self.vortex(box), box)


@dataclass(frozen=True)
class Burgers(Equation):
    """Solves ∂u/∂t + (u·∇)u = ν Δu for a velocity u along rows and columns.

    Attributes:
        viscosity: ν.
    """

    name: ClassVar[str] = "burgers"
    fields: ClassVar[tuple[str, ...]] = ("velocity along rows", "velocity along columns")
    units: ClassVar[tuple[str, ...]] = ("sides per time",) * 2
    parities: ClassVar[tuple[Parity, ...]] = VECTOR
    interval: ClassVar[float] = 0.05

    viscosity: float = 0.015

    def draw(self, rng: np.random.Generator, box: Box) -> Real:
        return np.stack([smooth(rng, box, 2.0, parity) for parity in self.parities])

    def linear(self, box: Box) -> Complex:
        return _diagonal(box, *2 * [self.viscosity * box.laplacian])

    def nonlinear(self, spectrum: Complex, box: Box) -> Complex:
        return box.spectrum(_transport(box.values(spectrum), box.values(box.gradient(spectrum))))

    def rate(self, spectrum: Complex, box: Box) -> float:
        return _crossing(box.values(spectrum), box)


@dataclass(frozen=True)
class GrayScott(Equation):
    """Solves ∂u/∂t = D_u Δu − u v² + F (1 − u) and ∂v/∂t = D_v Δv + u v² − (F + k) v (Pearson 1993, Science 261, 189).

    Attributes:
        feed, kill: F and k.
        diffusivities: D_u and D_v.
    """

    name: ClassVar[str] = "gray_scott"
    fields: ClassVar[tuple[str, ...]] = ("substrate", "activator")
    units: ClassVar[tuple[str, ...]] = ("× feed",) * 2
    parities: ClassVar[tuple[Parity, ...]] = (SCALAR, SCALAR)
    interval: ClassVar[float] = 20.0
    start: ClassVar[float] = 40.0

    feed: float = 0.04
    kill: float = 0.06
    diffusivities: tuple[float, float] = (1.6e-4, 8e-5)

    def draw(self, rng: np.random.Generator, box: Box) -> Real:
        share = (1 + smooth(rng, box, 2.0)) / 2
        return np.stack([1 - 0.5 * share, 0.25 * share])

    def linear(self, box: Box) -> Complex:
        return _diagonal(box, *(each * box.laplacian for each in self.diffusivities))

    def nonlinear(self, spectrum: Complex, box: Box) -> Complex:
        u, v = box.values(spectrum)
        reaction = u * v**2
        return box.spectrum(np.stack([self.feed * (1 - u) - reaction, reaction - (self.feed + self.kill) * v]))

    def rate(self, spectrum: Complex, box: Box) -> float:
        u, v = box.values(spectrum)
        return REACTION * float((v**2 + 2 * abs(u * v)).max() + self.feed + self.kill)


@dataclass(frozen=True)
class Wave(Equation):
    """Solves ∂u/∂t = v and ∂v/∂t = c² Δu, exactly.

    Attributes:
        speed: c.
    """

    name: ClassVar[str] = "wave"
    fields: ClassVar[tuple[str, ...]] = ("displacement", "rate of displacement")
    units: ClassVar[tuple[str, ...]] = ("× largest at start", "× largest at start, per time")
    parities: ClassVar[tuple[Parity, ...]] = (SCALAR, SCALAR)
    interval: ClassVar[float] = 0.05

    speed: float = 1.0

    def draw(self, rng: np.random.Generator, box: Box) -> Real:
        waves = 3.0
        rate = 2 * np.pi * waves * self.speed
        return np.stack([smooth(rng, box, waves), rate * smooth(rng, box, waves, slope=1.0)])

    def linear(self, box: Box) -> Complex:
        linear = _diagonal(box, 0 * box.laplacian, 0 * box.laplacian)
        linear[0, 1], linear[1, 0] = 1.0, self.speed**2 * box.laplacian
        return linear


@dataclass(frozen=True)
class ShallowWater(Equation):
    """Solves ∂h/∂t + ∇·(h u) = 0 and ∂u/∂t + (u·∇)u = −g ∇h + ν Δu for a depth h and a velocity u.

    Attributes:
        gravity: g.
        depth: of the water at rest.
        viscosity: ν.
        height: of the waves at the start, in depths.
    """

    name: ClassVar[str] = "shallow_water"
    fields: ClassVar[tuple[str, ...]] = ("depth", "velocity along rows", "velocity along columns")
    units: ClassVar[tuple[str, ...]] = ("× depth at rest", "sides per time", "sides per time")
    parities: ClassVar[tuple[Parity, ...]] = (SCALAR, *VECTOR)
    interval: ClassVar[float] = 0.05
    start: ClassVar[float] = 0.1

    gravity: float = 1.0
    depth: float = 1.0
    viscosity: float = 3e-3
    height: float = 0.2

    def draw(self, rng: np.random.Generator, box: Box) -> Real:
        waves = self.depth * (1 + self.height * smooth(rng, box, 2.0))
        return np.stack([waves, np.zeros_like(waves), np.zeros_like(waves)])

    def linear(self, box: Box) -> Complex:
        rows, columns = box.waves
        friction = self.viscosity * box.laplacian
        linear = _diagonal(box, 0 * friction, friction, friction)
        linear[0, 1], linear[0, 2] = -1j * self.depth * rows, -1j * self.depth * columns
        linear[1, 0], linear[2, 0] = -1j * self.gravity * rows, -1j * self.gravity * columns
        return linear

    def nonlinear(self, spectrum: Complex, box: Box) -> Complex:
        values = box.values(spectrum)
        velocity = values[1:]
        flux = box.spectrum((values[0] - self.depth) * velocity)
        transport = box.spectrum(_transport(velocity, box.values(box.gradient(spectrum[1:]))))
        return np.concatenate([-box.divergence(flux)[None], transport])

    def rate(self, spectrum: Complex, box: Box) -> float:
        wave = float(np.sqrt(self.gravity * self.depth))
        return _crossing(box.values(spectrum[1:]), box) + wave * box.highest


EQUATIONS: dict[str, type[Equation]] = {
    equation.name: equation for equation in (AdvectionDiffusion, Burgers, GrayScott, Wave, ShallowWater)
}


def get(name: str) -> Equation:
    """The equation of that name.

    Raises:
        InputError: there is none.
    """
    return EQUATIONS[check_choice("equation", name, EQUATIONS)]()
