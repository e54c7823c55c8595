"""Source–sink: the steady field of a few sources and sinks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from operators.errors import check_choice, check_number
from tasks.probes.linear.spectra import BOUNDARIES, Field, filtered, mean_factor
from tasks.probes.probe import Array, Kind, Probe, Sample, Samples


@dataclass(frozen=True, kw_only=True)
class SourceSink(Probe):
    """y with (-κ Δ + ρ) y = f, where f is ±√(cells / sources) on a few cells and 0 elsewhere.

    √(κ/ρ) is the screening length, over which a source is felt; ρ is such that y has variance 1 on a torus. Both fields
    have mean square 1. The oracle divides waves by κ k² + ρ: no error. Chance is the variance of y.

    Attributes:
        length: √(κ/ρ) in pixels.
        sources: cells with a source or a sink; which is which is drawn.
        boundary: `periodic` or `reflective`.
    """

    name: ClassVar[str] = "source_sink"
    kind: ClassVar[Kind] = "cell_values"
    isolates: ClassVar[str] = "long range and linear superposition: sums, not means"
    difficulties: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"length": 1.0, "sources": 16},
        {"length": 2.0, "sources": 8},
        {"length": 4.0, "sources": 8, "boundary": "reflective"},
        {"length": 8.0, "sources": 4, "boundary": "reflective"},
    )

    length: float = 2.0
    sources: int = 8
    boundary: str = "periodic"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("probe.length", self.length, least=0.1, most=self.grid / 2)
        check_number("probe.sources", self.sources, least=1, most=self.grid**2, integer=True)
        check_choice("probe.boundary", self.boundary, BOUNDARIES)

    @cached_property
    def rho(self) -> float:
        """The absorption ρ that gives y variance 1 on a torus."""
        return mean_factor(lambda rows, columns: self._screened(rows, columns) ** 2, self.grid) ** 0.5

    def draw(self, rng: np.random.Generator) -> Sample:
        field = np.zeros(self.grid**2)
        cells = rng.choice(field.size, self.sources, replace=False)
        field[cells] = rng.choice([-1.0, 1.0], self.sources) * (field.size / self.sources) ** 0.5
        given = field.reshape(1, self.grid, self.grid).astype(np.float32)
        return Sample(given, self._steady(given.astype(np.float64)).astype(np.float32))

    def solve(self, samples: Samples) -> Array:
        return self._steady(samples.input.astype(np.float64))

    def _steady(self, field: Field) -> Field:
        return filtered(field, self._screened, self.boundary) / self.rho

    def _screened(self, rows: Field, columns: Field) -> Field:
        return 1 / (self.length**2 * (rows + columns) + 1)
