"""Rotation: shapes that are learned upright and tested turned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from operators.errors import check_number
from tasks.data import keyed
from tasks.probes.probe import Array, Kind, Probe, Sample, Samples, Split

ANGLES = (0, 10, -10, 20, -20, 30, -30, 45, -45, 90, 180, -90)
"""Degrees that test images are turned by, counter-clockwise, each equally often."""
WAVES = np.arange(1, 5)
"""Around the outline of a shape."""
RADIUS, ROUGH = 0.21, 0.6
"""Mean radius of a shape over the side of the grid; how far its outline is from a circle, at most, over the radius."""
OFF = 1
"""Cells that a shape is off the centre, at most, along rows and columns."""
LEAST_SIDE = int(np.ceil((np.sqrt(2) * OFF + 0.5) / (0.5 - RADIUS * (1 + ROUGH))))
"""Of a grid whose inscribed circle holds every shape."""


@dataclass(frozen=True, kw_only=True)
class Rotation(Probe):
    """The class of an image says which of several outlines its shape has. Training shows them upright, tests turned.

    Outline c is r(φ) = R (1 + Σ_k a_ck cos(k φ - p_ck)), k = 1 … 4, the same for every seed; each image moves it by up
    to a cell. Tests turn the image about its centre by 0, ±10, ±20, ±30, ±45, ±90 or 180 degrees. Shapes are drawn at
    their angle, not interpolated, so that no image is less sharp than another, and lie within the circle that the grid
    holds. Quarter turns are those of `numpy.rot90`, exactly. The oracle compares an image with every shape at every
    place and angle: no error; neither has a model that does not see orientation. Chance is the share of other classes.

    Attributes:
        shapes: outlines to tell apart.
        turned: whether tests turn the images. Otherwise they are upright as in training.
    """

    name: ClassVar[str] = "rotation"
    kind: ClassVar[Kind] = "image_class"
    isolates: ClassVar[str] = "bias of orders and axes: what was learned upright is lost when turned"
    difficulties: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"grid": 16, "shapes": 4},
        {"grid": 16, "shapes": 8},
        {"grid": 24, "shapes": 16},
    )

    shapes: int = 4
    turned: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("probe.grid", self.grid, least=LEAST_SIDE)
        check_number("probe.shapes", self.shapes, least=2, most=20, integer=True)

    @property
    def outputs(self) -> int:
        return self.shapes

    def at(self, split: Split) -> Probe:
        return self if split == "test" else replace(self, turned=False)

    @property
    def angles(self) -> tuple[int, ...]:
        """Degrees that images are turned by."""
        return ANGLES if self.turned else (0,)

    def draw(self, rng: np.random.Generator) -> Sample:
        shape = int(rng.integers(self.shapes))
        angle = self.angles[rng.integers(len(self.angles))]
        row, column = rng.integers(-OFF, OFF, size=2, endpoint=True).tolist()
        image = drawn(self.grid, shape, angle, row, column)
        return Sample(image[None].astype(np.float32), np.asarray(shape, np.int64))

    def solve(self, samples: Samples) -> Array:
        shapes, _, templates = catalogue(self.grid, self.shapes, self.angles)
        return shapes[_nearest(samples.input[:, 0], templates)]

    def measures(self, answers: Array, samples: Samples) -> dict[str, float]:
        """Accuracies of upright images and of each angle to either side, and what is lost from the first to these."""
        _, angles, templates = catalogue(self.grid, self.shapes, self.angles)
        sizes = np.abs(angles[_nearest(samples.input[:, 0], templates)])
        right = answers == samples.target
        accuracy = {size: float(right[sizes == size].mean()) for size in np.unique(sizes).tolist()}
        scores = {f"accuracy_{size}": value for size, value in accuracy.items()}
        if 0 in accuracy:
            scores |= {f"drop_{size}": accuracy[0] - value for size, value in accuracy.items() if size}
        return {**super().measures(answers, samples), **scores}


def drawn(side: int, shape: int, angle: float, row: int, column: int) -> npt.NDArray[np.float64]:
    """The outline number `shape`, filled with ones, `row` and `column` cells off the centre, turned by degrees."""
    size, phase = keyed.uniform(0, 0, np.array([shape]), "outline", 2 * len(WAVES)).reshape(2, -1)
    size = ROUGH * size / size.sum()
    up, right = np.meshgrid(*[np.arange(side)[::sign] - (side - 1) / 2 for sign in (-1, 1)], indexing="ij")
    place = (right + 1j * up) * _turn(-angle) - (column - 1j * row)
    waves = WAVES[:, None, None] * np.angle(place) - 2 * np.pi * phase[:, None, None]
    radius = RADIUS * side * (1 + (size[:, None, None] * np.cos(waves)).sum(axis=0))
    filled: npt.NDArray[np.float64] = np.clip(0.5 + radius - np.abs(place), 0, 1)
    return filled


def _turn(angle: float) -> complex:
    """The unit number at an angle in degrees, exact for quarter turns."""
    if angle % 90 == 0:
        return (1, 1j, -1, -1j)[int(angle // 90) % 4]
    return complex(np.exp(1j * np.deg2rad(angle)))


@cache
def catalogue(side: int, shapes: int, angles: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Shape (N,), angle (N,) and picture (N, side²) of every image there is."""
    offs = range(-OFF, OFF + 1)
    every = [(c, angle, row, column) for c in range(shapes) for angle in angles for row in offs for column in offs]
    templates = np.stack([drawn(side, *place).reshape(-1) for place in every]).astype(np.float32)
    return np.array([c for c, *_ in every]), np.array([angle for _, angle, *_ in every]), templates


def _nearest(images: Array, templates: Array) -> Array:
    """The number of the template nearest to each image (B, H, W)."""
    distance = np.square(templates).sum(axis=1) - 2 * images.reshape(len(images), -1) @ templates.T
    return distance.argmin(axis=1)
