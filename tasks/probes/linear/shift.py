"""Shift: white noise, moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from operators.errors import InputError, check_choice, check_number
from tasks.probes.linear.spectra import Field, shifted
from tasks.probes.probe import Array, Kind, Probe, Sample, Samples


@dataclass(frozen=True, kw_only=True)
class Shift(Probe):
    """y(p) = x(p - s), x white noise: content moves by s = (rows, columns).

    The oracle moves the input: no error. Chance is the variance of y.

    Attributes:
        distance: s = (distance, distance) in pixels, a multiple of a half; between pixels the field is interpolated by
            its Fourier series.
        per_image: s is drawn anew for each image, each component from -distance, -distance + 1, …, distance; two more
            channels hold s / distance.
        boundary: `wrap` moves on a torus; `zero` brings in zeros, for whole pixels only.
    """

    name: ClassVar[str] = "shift"
    kind: ClassVar[Kind] = "cell_values"
    isolates: ClassVar[str] = "convection; per image: a kernel that depends on the input"
    difficulties: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"distance": 1.0},
        {"distance": 5.0},
        {"distance": 2.5},
        {"distance": 2.0, "per_image": True},
        {"distance": 5.0, "per_image": True, "boundary": "zero"},
    )

    distance: float = 1.0
    per_image: bool = False
    boundary: str = "wrap"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("probe.distance", self.distance, least=0.5, most=self.grid / 2)
        check_choice("probe.boundary", self.boundary, ("wrap", "zero"))
        if self.distance * 2 % 1:
            raise InputError(f"probe.distance={self.distance:g} must be a multiple of 0.5")
        if self.boundary == "zero" and self.distance % 1:
            raise InputError(f"probe.distance={self.distance:g} must be whole with probe.boundary=zero")

    @property
    def channels(self) -> int:
        return 3 if self.per_image else 1

    def draw(self, rng: np.random.Generator) -> Sample:
        field = rng.standard_normal((self.grid, self.grid))
        by = np.full(2, self.distance)
        if self.per_image:
            by -= rng.integers(0, int(2 * self.distance), size=2, endpoint=True)
        planes = [field]
        if self.per_image:
            planes += [np.full_like(field, part / self.distance) for part in by]
        target = self._move(field, by[0], by[1])
        return Sample(np.stack(planes).astype(np.float32), target[None].astype(np.float32))

    def solve(self, samples: Samples) -> Array:
        fields = samples.input[:, 0].astype(np.float64)
        if not self.per_image:
            return self._move(fields, self.distance, self.distance)[:, None]
        by = np.round(2 * self.distance * samples.input[:, 1:, 0, 0].astype(np.float64)) / 2
        moved = [self._move(field, rows, columns) for field, (rows, columns) in zip(fields, by, strict=True)]
        return np.stack(moved)[:, None]

    def _move(self, field: Field, rows: float, columns: float) -> Field:
        if self.boundary == "wrap":
            return shifted(field, rows, columns)
        margin = int(self.distance)
        wide = np.pad(field, [(0, 0)] * (field.ndim - 2) + [(margin, margin)] * 2)
        moved = np.roll(wide, (int(rows), int(columns)), axis=(-2, -1))
        return moved[..., margin:-margin, margin:-margin]
