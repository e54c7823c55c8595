"""Maze: the cells of the way from start to end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from operators.errors import InputError, check_number
from tasks.probes.grouping.passages import Cells, cell_of, steps
from tasks.probes.probe import Array, Kind, Probe, Sample, Samples

START, END = (0, 0), (-1, -1)
NEXT = (-2, 0), (2, 0), (0, -2), (0, 2)
"""Ways from a room to the rooms next to it, in cells."""


@dataclass(frozen=True, kw_only=True)
class Maze(Probe):
    """The class of a free cell says whether it lies on the shortest path between two opposite corners.

    Depth-first search from the start draws a perfect maze: rooms are the cells of even row and column, a free cell
    between two rooms joins them, and one path leads from any room to any other. Three channels hold the free cells, the
    start and the end. The oracle measures distances from both ends: a cell lies on a shortest path if they add up.

    Attributes:
        loops: walls between rooms that are opened afterwards. Several shortest paths may then tie; the cells of all of
            them count.
    """

    name: ClassVar[str] = "maze"
    kind: ClassVar[Kind] = "cell_classes"
    isolates: ClassVar[str] = "global consistency: a wrong turn anywhere makes the path wrong"
    difficulties: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"grid": 7},
        {"grid": 15},
        {"grid": 15, "loops": 6},
        {"grid": 31},
        {"grid": 31, "loops": 24},
    )
    depth: ClassVar[int] = 4
    positions: ClassVar[str] = "learned"

    grid: int = 15
    loops: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid % 2 == 0:
            raise InputError(f"probe.grid={self.grid} must be odd: a maze of n×n rooms has 2n - 1 cells along a side")
        # a tree of n² rooms has n² - 1 of the 2n(n - 1) doors
        check_number("probe.loops", self.loops, least=0, most=(self.rooms - 1) ** 2, integer=True)

    @property
    def rooms(self) -> int:
        """Rooms along a side."""
        return (self.grid + 1) // 2

    @property
    def channels(self) -> int:
        return 3

    @property
    def outputs(self) -> int:
        return 2

    def draw(self, rng: np.random.Generator) -> Sample:
        free = perfect(rng, self.rooms)
        closed = np.argwhere(~free & (np.indices(free.shape).sum(axis=0) % 2 == 1))
        free[tuple(rng.choice(closed, self.loops, replace=False).T)] = True
        planes = np.zeros((3, *free.shape), np.float32)
        planes[0], planes[1][START], planes[2][END] = free, 1, 1
        return Sample(planes, shortest(free, START, END).astype(np.int64), free)

    def solve(self, samples: Samples) -> Array:
        paths = [shortest(free > 0, cell_of(start), cell_of(end)) for free, start, end in samples.input]
        return np.stack(paths).astype(np.int64)

    def measures(self, answers: Array, samples: Samples) -> dict[str, float]:
        assert samples.mask is not None
        right = (answers == samples.target) | ~samples.mask
        return {**super().measures(answers, samples), "exact_path": float(right.all(axis=(1, 2)).mean())}


def perfect(rng: np.random.Generator, rooms: int) -> Cells:
    """Free cells of a maze of rooms×rooms by depth-first search from its first room: a tree that spans the rooms."""
    free = np.zeros((2 * rooms - 1, 2 * rooms - 1), bool)
    free[START] = True
    unseen = {(i, j) for i in range(0, len(free), 2) for j in range(0, len(free), 2)} - {START}
    turns = iter(rng.random(len(unseen)).tolist())
    trail = [START]
    while trail:
        row, column = trail[-1]
        ahead = [(row + down, column + right) for down, right in NEXT if (row + down, column + right) in unseen]
        if not ahead:
            trail.pop()
            continue
        room = ahead[int(next(turns) * len(ahead))]
        free[(row + room[0]) // 2, (column + room[1]) // 2] = free[room] = True
        unseen.remove(room)
        trail.append(room)
    return free


def shortest(free: Cells, start: tuple[int, int], end: tuple[int, int]) -> Cells:
    """The cells of all shortest paths from start to end."""
    ahead, behind = steps(free, start, end)
    return ahead + behind == ahead[end]
