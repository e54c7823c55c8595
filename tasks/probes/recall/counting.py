"""Counting: how many cells of the grid are marked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from operators.errors import check_number
from tasks.probes.probe import MOST_SIDE, Array, Kind, Probe, Sample, Samples, Split


@dataclass(frozen=True, kw_only=True)
class Counting(Probe):
    """Every cell tells the number k of marked cells, drawn evenly from 0 … K, less its mean, over its deviation.

    The cells answer rather than the image, so that the mixer has to count, and not the trunk's pooling. The oracle
    sums: no error. Chance is the variance of the target, 1, since k has the variance K (K + 2) / 12.

    Attributes:
        most: K.
        test_grid: cells along each side in testing; None: as in training. A mean over the grid no longer tells k there.
    """

    name: ClassVar[str] = "counting"
    kind: ClassVar[Kind] = "cell_values"
    isolates: ClassVar[str] = "a sum over the grid; on a test_grid of its own: a sum and not a mean"
    difficulties: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"grid": 8, "most": 4},
        {"grid": 16, "most": 16},
        {"grid": 16, "most": 128},
        {"grid": 12, "most": 16, "test_grid": 24},
    )

    most: int = 16
    test_grid: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("probe.most", self.most, least=1, most=self.grid**2, integer=True)
        if self.test_grid is not None:
            check_number("probe.test_grid", self.test_grid, least=self.grid, most=MOST_SIDE, integer=True)

    def at(self, split: Split) -> Probe:
        if split != "test" or self.test_grid is None:
            return self
        return replace(self, grid=self.test_grid, test_grid=None)

    def draw(self, rng: np.random.Generator) -> Sample:
        marks = np.zeros((1, self.grid, self.grid), np.float32)
        number = int(rng.integers(0, self.most, endpoint=True))
        marks.reshape(-1)[rng.choice(self.grid**2, number, replace=False)] = 1
        return Sample(marks, np.full_like(marks, self._scaled(number)))

    def solve(self, samples: Samples) -> Array:
        numbers = samples.input.sum(axis=(1, 2, 3), dtype=np.float64)
        return np.broadcast_to(self._scaled(numbers)[:, None, None, None], samples.target.shape)

    def measures(self, answers: Array, samples: Samples) -> dict[str, float]:
        """The share of cells whose answer is nearest to the right number, as `accuracy`."""
        return {"accuracy": float((np.abs(answers - samples.target) < self._scaled(0.5) - self._scaled(0)).mean())}

    def _scaled(self, number: Any) -> Any:
        return (number - self.most / 2) / (self.most * (self.most + 2) / 12) ** 0.5
