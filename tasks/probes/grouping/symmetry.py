"""Symmetry: whether an image is its own mirror image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from operators.errors import check_choice, check_number
from tasks.probes.probe import Array, Kind, Probe, Sample, Samples

MIRRORS: Mapping[str, Callable[[Array], Array]] = {
    "row": lambda image: np.flip(image, axis=-2),
    "column": lambda image: np.flip(image, axis=-1),
    "diagonal": lambda image: image.swapaxes(-2, -1),
    "half_turn": lambda image: np.flip(image, axis=(-2, -1)),
}
"""The mirror image of (…, n, n) about the middle row or column, the main diagonal, or the centre."""


@dataclass(frozen=True, kw_only=True)
class Symmetry(Probe):
    """Class 1 is a random binary image that equals its mirror image; class 0 had cells of one half flipped afterwards.

    Both classes are equally likely, and every cell is 0 or 1 equally often in both. The oracle compares the halves.

    Attributes:
        mirror: `row` (about the middle row), `column`, `diagonal`, or `half_turn` (about the centre).
        flipped: cells m that are flipped in class 0, all in one half: m pairs differ. One is the hardest.
    """

    name: ClassVar[str] = "symmetry"
    kind: ClassVar[Kind] = "image_class"
    isolates: ClassVar[str] = "products of pairs of far cells; a scan is favoured by the mirror that its order matches"
    difficulties: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"grid": 8, "mirror": "column", "flipped": 16},
        {"grid": 8, "mirror": "column", "flipped": 4},
        {"grid": 8, "mirror": "diagonal", "flipped": 4},
        {"grid": 8, "mirror": "half_turn", "flipped": 1},
        {"grid": 16, "mirror": "half_turn", "flipped": 1},
    )
    positions: ClassVar[str] = "learned"

    mirror: str = "column"
    flipped: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("probe.mirror", self.mirror, MIRRORS)
        check_number("probe.flipped", self.flipped, least=1, most=len(self._half()), integer=True)

    @property
    def outputs(self) -> int:
        return 2

    def draw(self, rng: np.random.Generator) -> Sample:
        image = rng.random((self.grid, self.grid)) < 0.5
        half = self._half()
        MIRRORS[self.mirror](image).flat[half] = image.flat[half]
        same = rng.integers(2)
        if not same:
            image.flat[rng.choice(half, self.flipped, replace=False)] ^= True
        return Sample(image[None].astype(np.float32), np.asarray(same, np.int64))

    def solve(self, samples: Samples) -> Array:
        images = samples.input[:, 0]
        return (images == MIRRORS[self.mirror](images)).all(axis=(1, 2)).astype(np.int64)

    def _half(self) -> Array:
        """Numbers of the cells of one half, without the cells that are their own mirror images."""
        cells = np.arange(self.grid**2).reshape(self.grid, self.grid)
        return cells[cells < MIRRORS[self.mirror](cells)]
