"""Forecasts of fields: the next state of a partial differential equation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from operators.errors import InputError, check_choice, check_number
from tasks.fields.box import BOUNDARIES, Box
from tasks.fields.equations import EQUATIONS
from tasks.fields.rollout import Rollout
from tasks.fields.sources import FieldScale, Recorded, Solved, Trajectories, kept, scale
from tasks.fields.vrmse import vrmse
from tasks.probes.probe import Array, Kind, Probe, Sample, Samples, Split

MOST_FRAMES, MOST_TRAJECTORIES, MOST_STRIDE = 1000, 100_000, 1000.0
LOOKED_AT = 8
"""Trajectories of training whose mean and spread stand for all."""
ROLLED = 16
"""Trajectories of the test split that are forecast to their end."""


@dataclass(frozen=True, kw_only=True)
class FieldForecast(Probe):
    """Asks for the state after the one that is shown, both in standard deviations of each field over training.

    A split consists of trajectories, of which a sample is one moment. The oracle is a step of the solver. Chance is
    the mean; what the last state itself would score is reported as well. With `data`, the trajectories are those of a
    data set of The Well: its next state is taken for the oracle's, since nobody here can solve it.

    Attributes:
        equation: advection_diffusion | wave | burgers | shallow_water | gray_scott, see `tasks.fields.equations`.
        boundary: periodic | reflecting.
        stride: time between two states, in the equation's intervals; with `data`, in recorded times.
        history: states that are shown, oldest first.
        trajectories: in each split; with `data` at most.
        frames: states of a trajectory.
        data: folder of a data set of The Well, whose equation and walls are its own; null solves an equation.
    """

    name: ClassVar[str] = "field_forecast"
    kind: ClassVar[Kind] = "cell_values"
    isolates: ClassVar[str] = "the time step of a partial differential equation"
    difficulties: ClassVar[tuple[Mapping[str, Any], ...]] = tuple(
        {"equation": name} for name in ("advection_diffusion", "wave", "burgers", "shallow_water", "gray_scott")
    )
    depth: ClassVar[int] = 4
    positions: ClassVar[str] = "learned"
    _split: ClassVar[Split] = "train"

    grid: int = 32
    equation: str = "advection_diffusion"
    boundary: str = "periodic"
    stride: float = 1.0
    history: int = 1
    trajectories: int = 64
    frames: int = 20
    data: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("probe.equation", self.equation, EQUATIONS)
        check_choice("probe.boundary", self.boundary, BOUNDARIES)
        check_number("probe.stride", self.stride, least=1e-3, most=MOST_STRIDE)
        check_number("probe.trajectories", self.trajectories, least=1, most=MOST_TRAJECTORIES, integer=True)
        check_number("probe.frames", self.frames, least=2, most=MOST_FRAMES, integer=True)
        check_number("probe.history", self.history, least=1, most=self.frames - 1, integer=True)
        if self.data is not None and self.stride % 1:
            raise InputError(f"probe.stride={self.stride:g} must be whole with probe.data")

    @property
    def source(self) -> Trajectories:
        """Where the trajectories come from.

        Raises:
            InputError: files that are not there, or that have another grid or too few times.
        """
        if self.data is not None:
            return Recorded(Path(self.data).expanduser(), self.grid, self.frames, int(self.stride))
        return Solved(self.equation, Box(self.grid, self.boundary), self.frames, self.stride)

    @property
    def channels(self) -> int:
        return self.history * self.outputs + len(self.source.constants)

    @property
    def outputs(self) -> int:
        return len(self.source.fields)

    def at(self, split: Split) -> FieldForecast:
        chosen = replace(self)
        object.__setattr__(chosen, "_split", split)
        return chosen

    def draw(self, rng: np.random.Generator) -> Sample:
        source = self.source
        states, constants = kept(source, self._split, int(rng.integers(self._count(source, self._split))))
        moment = int(rng.integers(self.history, self.frames))
        shown = self._standardised(states[moment - self.history : moment + 1])
        return Sample(np.concatenate([*shown[:-1], constants]), shown[-1])

    def solve(self, samples: Samples) -> Array:
        after = self.source.step(self._natural(self.shown(samples)))
        return samples.target.astype(np.float64) if after is None else (after - self._scale.mean) / self._scale.spread

    def shown(self, samples: Samples) -> Array:
        """The last states (B, C, H, W) that inputs hold."""
        return samples.input[:, (self.history - 1) * self.outputs : self.history * self.outputs]

    def measures(self, answers: Array, samples: Samples) -> dict[str, float]:
        """VRMSE of the answers and of the last state, and the latter's mean squared error."""
        true, still = self._natural(samples.target), self.shown(samples)
        return {
            "vrmse": float(vrmse(self._natural(answers), true).mean()),
            "persistence_vrmse": float(vrmse(self._natural(still), true).mean()),
            "persistence": self.error(still, samples),
        }

    def rollout(self, answer: Callable[[Array], Array]) -> Rollout:
        """Forecasts of test trajectories from their first states to their end."""
        source = self.source
        chosen = [kept(source, "test", index) for index in range(min(ROLLED, self._count(source, "test")))]
        states = self._standardised(np.stack([trajectory.states for trajectory in chosen]))
        constants = np.stack([trajectory.constants for trajectory in chosen])
        known = [states[:, moment] for moment in range(self.history)]
        while len(known) < self.frames:
            shown = np.concatenate([*known[-self.history :], constants], axis=1)
            known.append(answer(shown).astype(np.float32))
        predicted = np.stack(known[self.history :], axis=1)
        title = self.data or f"{self.equation}, {self.boundary} walls"
        return Rollout(
            true=self._natural(states[:, self.history :]),
            predicted=self._natural(predicted),
            last=self._natural(states[:, self.history - 1]),
            fields=source.fields,
            units=source.units,
            title=f"{title}: trajectory 0 of the test split",
        )

    @property
    def _scale(self) -> FieldScale:
        source = self.source
        return scale(source, min(LOOKED_AT, self._count(source, "train")))

    def _count(self, source: Trajectories, split: Split) -> int:
        return min(self.trajectories, source.most(split) or self.trajectories)

    def _standardised(self, states: Array) -> Array:
        own = self._scale
        return ((states - own.mean) / own.spread).astype(np.float32)

    def _natural(self, states: Array) -> Array:
        own = self._scale
        return states.astype(np.float64) * own.spread + own.mean
