"""Where trajectories come from: an equation that is solved here, or files."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from operators.errors import InputError
from tasks.fields import equations, solver
from tasks.fields.box import Box, Real
from tasks.fields.well import WellSplit

Field = npt.NDArray[np.float32]
KEPT = 1024
"""Trajectories that stay in memory: 240 MB of three fields at 20 times on a grid of 32 × 32."""


class Trajectory(NamedTuple):
    """States (frames, C, H, W) and constant fields (K, H, W)."""

    states: Field
    constants: Field


class FieldScale(NamedTuple):
    """Mean and standard deviation of each field, float64 (C, 1, 1); 1 for the deviation of a field that is uniform."""

    mean: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]


class Trajectories(Hashable, Protocol):
    """Gives trajectories by split and number; hashable."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, in the order of the channels."""
        ...

    @property
    def units(self) -> tuple[str, ...]:
        """What each field is measured in; empty where nobody says."""
        ...

    @property
    def constants(self) -> tuple[str, ...]:
        """Names of the fields that do not change."""
        ...

    def most(self, split: str) -> int | None:
        """How many trajectories there are; None: as many as are asked for."""
        ...

    def get(self, split: str, index: int) -> Trajectory:
        """The trajectory of that number."""
        ...

    def step(self, states: Real) -> Real | None:
        """What comes after states (B, C, H, W); None where nobody can tell."""
        ...


@dataclass(frozen=True)
class Solved:
    """Solves trajectories when they are asked for; there is no end of them.

    Args:
        equation: its name.
        box: see there.
        frames: states of a trajectory.
        stride: time between two states, in the equation's intervals.

    Raises:
        InputError: an unknown equation.
    """

    equation: str
    box: Box
    frames: int
    stride: float = 1.0
    constants = ()

    def __post_init__(self) -> None:
        equations.get(self.equation)

    @property
    def fields(self) -> tuple[str, ...]:
        return equations.get(self.equation).fields

    @property
    def units(self) -> tuple[str, ...]:
        return equations.get(self.equation).units

    def most(self, split: str) -> int | None:
        return None

    def get(self, split: str, index: int) -> Trajectory:
        equation = equations.get(self.equation)
        states = solver.trajectory(
            equation, self.box, self.frames, seed=0, split=split, index=index, stride=self.stride
        )
        return Trajectory(states, np.zeros((0, *states.shape[2:]), np.float32))

    def step(self, states: Real) -> Real:
        own = solver.shared(equations.get(self.equation), self.box)
        return np.stack([own.step(state, self.stride * own.equation.interval) for state in states])


@dataclass(frozen=True)
class Recorded:
    """Reads trajectories from files of The Well.

    Args:
        root: folder of the data set.
        grid: pixels along each side, which the files must have.
        frames: states of a trajectory, from its first on.
        stride: recorded times from one state to the next.

    Raises:
        InputError: see `WellSplit`; or another grid, or fewer times.
    """

    root: Path
    grid: int
    frames: int
    stride: int = 1

    def __post_init__(self) -> None:
        split = WellSplit(self.root)
        if split.grid != (self.grid, self.grid):
            raise InputError(f"probe.grid={self.grid} must be the grid of the files, {split.grid[0]} × {split.grid[1]}")
        most = (split.frames - 1) // self.stride + 1
        if self.frames > most:
            raise InputError(f"probe.frames={self.frames} must be at most {most}, which the files have")

    @property
    def fields(self) -> tuple[str, ...]:
        return WellSplit(self.root).fields

    @property
    def constants(self) -> tuple[str, ...]:
        return WellSplit(self.root).constants

    @property
    def units(self) -> tuple[str, ...]:
        return ("",) * len(self.fields)

    def most(self, split: str) -> int | None:
        return len(WellSplit(self.root, split))

    def get(self, split: str, index: int) -> Trajectory:
        times = (self.frames - 1) * self.stride + 1
        states, constants = WellSplit(self.root, split).trajectory(index, times)
        return Trajectory(states[:: self.stride], constants)

    def step(self, states: Real) -> None:
        return None


@lru_cache(maxsize=KEPT)
def kept(source: Trajectories, split: str, index: int) -> Trajectory:
    """The trajectory, which is solved or read once as long as there is room."""
    return source.get(split, index)


@lru_cache(maxsize=KEPT)
def scale(source: Trajectories, count: int) -> FieldScale:
    """Of the first `count` trajectories of training."""
    states: Any = np.stack([kept(source, "train", index).states for index in range(count)]).astype(np.float64)
    axes = (0, 1, 3, 4)
    spread = states.std(axis=axes)
    return FieldScale(states.mean(axis=axes)[:, None, None], np.where(spread > 0, spread, 1.0)[:, None, None])
