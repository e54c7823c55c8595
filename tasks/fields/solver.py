"""Trajectories of an equation on a box, by Lawson's fourth-order Runge–Kutta scheme."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tasks.data import keyed
from tasks.fields.box import Box, Complex, Real
from tasks.fields.equations import Equation

COURANT = 1.0
"""Step times the equation's rate, at most: the scheme is stable up to 2.8 for waves and for decay."""


class Solver:
    """Carries states of one equation on one box forward in time.

    The scheme is Runge–Kutta's of order four in the variable e^{−tL} û, which takes the linear part exactly (Lawson
    1967, SIAM J. Numer. Anal. 4, 372; "integrating factor" in Kassam and Trefethen 2005, SIAM J. Sci. Comput. 26,
    1214). An equation without a nonlinear part takes one step, whatever its length. All numbers are float64.

    Args:
        equation, box: see there.
        courant: see `COURANT`.
    """

    def __init__(self, equation: Equation, box: Box, courant: float = COURANT) -> None:
        self.equation, self.box, self.courant = equation, box, courant
        self._linear = np.moveaxis(equation.linear(box), (0, 1), (-2, -1))
        self._propagators: dict[float, Complex] = {}

    def propagator(self, time: float) -> Complex:
        """e^{time · L} (C, C, points, points // 2 + 1), which is kept for later."""
        from scipy.linalg import expm  # here, since checking a configuration needs none of it

        if time not in self._propagators:
            self._propagators[time] = np.ascontiguousarray(np.moveaxis(expm(time * self._linear), (-2, -1), (0, 1)))
        return self._propagators[time]

    def step(self, state: Real, time: float) -> Real:
        """The state (C, grid, grid) after `time` from one (C, grid, grid), without the waves that the box cuts off.

        Raises:
            RuntimeError: it is not finite.
        """
        spectrum = self.box.spectrum(self.box.extend(state, self.equation.parities))
        after = self.box.crop(self.box.values(self._advance(spectrum, time)))
        if not np.isfinite(after).all():
            raise RuntimeError(f"{self.equation.name} did not stay finite on {self.box} over a time of {time:g}")
        return after

    def trajectory(self, state: Real, interval: float, frames: int) -> Real:
        """States (frames, C, grid, grid), the first of them `state`, each `interval` after the one before."""
        states = [state]
        while len(states) < frames:
            states.append(self.step(states[-1], interval))
        return np.stack(states)

    def steps(self, spectrum: Complex, time: float) -> int:
        """Steps over `time` from this state: a power of two, so that few propagators are needed."""
        least = max(1.0, time * self.equation.rate(spectrum, self.box) / self.courant)
        return int(2 ** np.ceil(np.log2(least)))

    def _advance(self, spectrum: Complex, time: float) -> Complex:
        if self.equation.nonlinear(spectrum, self.box) is None:
            return _apply(self.propagator(time), spectrum)
        steps = self.steps(spectrum, time)
        for _ in range(steps):
            spectrum = self._runge_kutta(spectrum, time / steps)
        return spectrum

    def _runge_kutta(self, u: Complex, h: float) -> Complex:
        def change(spectrum: Complex) -> Complex:
            nonlinear = self.equation.nonlinear(spectrum, self.box)
            assert nonlinear is not None
            return nonlinear

        half = self.propagator(h / 2)
        a = change(u)
        b = change(_apply(half, u + h / 2 * a))
        middle = _apply(half, u)
        c = change(middle + h / 2 * b)
        d = change(_apply(half, middle + h * c))
        return _apply(half, _apply(half, u + h / 6 * a) + h / 3 * (b + c)) + h / 6 * d


def _apply(matrices: Complex, spectrum: Complex) -> Complex:
    if len(spectrum) == 1:
        return matrices[0] * spectrum
    return np.einsum("ij...,j...->i...", matrices, spectrum)


@lru_cache(maxsize=8)
def shared(equation: Equation, box: Box) -> Solver:
    """The solver of that equation on that box, which keeps its propagators."""
    return Solver(equation, box)


def trajectory(
    equation: Equation, box: Box, frames: int, *, seed: int, split: str, index: int, stride: float = 1.0
) -> npt.NDArray[np.float32]:
    """The states (frames, C, grid, grid) of a trajectory that (seed, split, index) alone draw.

    Args:
        equation: see there.
        box: see there.
        frames: states.
        seed: of the data.
        split: name of the split.
        index: number of the trajectory in it.
        stride: time between two states, in the equation's intervals.
    """
    key = keyed.bits(seed, 0, np.array([index]), f"fields/{split}", 2)[0]
    rng = np.random.Generator(np.random.Philox(key=key))
    solver = shared(equation, box)
    state = solver.step(equation.draw(rng, box), equation.start)
    return solver.trajectory(state, stride * equation.interval, frames).astype(np.float32)
