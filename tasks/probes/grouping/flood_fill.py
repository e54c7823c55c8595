"""Flood fill: which free cells can be reached from a start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy import ndimage

from operators.errors import InputError, check_number
from tasks.probes.grouping.passages import cell_of, steps
from tasks.probes.probe import Array, Kind, Probe, Sample, Samples

MOST_TRIES = 1000
"""Grids drawn for a sample before its longest path counts as impossible."""


@dataclass(frozen=True, kw_only=True)
class FloodFill(Probe):
    """Each cell but the start is a wall with probability `walls`; the class of a free cell says whether it is reached.

    The start is a random cell. Two channels hold the walls and the start. Paths lead to the four neighbours of a cell;
    a layer that sees R cells around it needs at least path/R repetitions. The oracle labels connected regions. The
    error is balanced: the mean over both classes of the share of wrong answers, 1/2 for any constant.

    Attributes:
        walls: probability of a wall. About half of the free cells are reached at 0.4; paths are longest at 0.3.
        least_path: grids are drawn again until a shortest path from the start to a reached cell has so many steps.

    Raises:
        InputError: also when a sample is drawn, if no grid has so long a path.
    """

    name: ClassVar[str] = "flood_fill"
    kind: ClassVar[Kind] = "cell_classes"
    isolates: ClassVar[str] = "iteration: what is reached follows from what is reached next to it"
    difficulties: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"grid": 8, "walls": 0.4},
        {"grid": 16, "walls": 0.4},
        {"grid": 16, "walls": 0.3},
        {"grid": 16, "walls": 0.4, "least_path": 24},
        {"grid": 32, "walls": 0.35, "least_path": 48},
    )
    depth: ClassVar[int] = 4
    positions: ClassVar[str] = "learned"

    walls: float = 0.4
    least_path: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("probe.walls", self.walls, least=0, most=0.9)
        check_number("probe.least_path", self.least_path, least=0, most=self.grid**2 // 2, integer=True)

    @property
    def channels(self) -> int:
        return 2

    @property
    def outputs(self) -> int:
        return 2

    def draw(self, rng: np.random.Generator) -> Sample:
        for _ in range(MOST_TRIES):
            free = rng.random((self.grid, self.grid)) >= self.walls
            row, column = rng.integers(self.grid, size=2).tolist()
            free[row, column] = True
            (distance,) = steps(free, (row, column))
            reached = np.isfinite(distance)
            if distance[reached].max() >= self.least_path:
                planes = np.stack([~free, distance == 0]).astype(np.float32)
                return Sample(planes, reached.astype(np.int64), free)
        raise InputError(
            f"probe.least_path={self.least_path}: none of {MOST_TRIES} grids of {self.grid}×{self.grid} cells with "
            f"probe.walls={self.walls:g} has a path of so many steps"
        )

    def solve(self, samples: Samples) -> Array:
        answers = np.zeros(samples.target.shape, np.int64)
        for answer, (walls, start) in zip(answers, samples.input, strict=True):
            regions, _ = ndimage.label(walls == 0)
            answer[regions == regions[cell_of(start)]] = 1
        return answers

    def error(self, answers: Array, samples: Samples) -> float:
        wrong = np.broadcast_to(answers, samples.target.shape) != samples.target
        assert samples.mask is not None
        classes = [samples.mask & (samples.target == value) for value in range(self.outputs)]
        return float(np.mean([wrong[cells].mean() for cells in classes if cells.any()]))

    def measures(self, answers: Array, samples: Samples) -> dict[str, float]:
        return {
            "accuracy": 1 - super().error(answers, samples),
            "balanced_accuracy": 1 - self.error(answers, samples),
        }
