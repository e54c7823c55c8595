"""A canvas with images on it and an empty square at its lower right, where one of them is to appear."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from operators.errors import check_choice, check_number
from tasks.probes.items.images import Images, resized
from tasks.probes.probe import Array, Kind, Probe, Sample, Samples, Split

Corner = tuple[int, int]

MOST_TRIES = 100
"""Places drawn for an image before it is left out."""


@dataclass(frozen=True, kw_only=True)
class ItemProbe(Probe):
    """Base class: the target appears in the readout square, the lower right item × item cells, which alone are scored.

    Images are the embedded Fashion-MNIST, where the source takes EMNIST. The first is the target, the others are
    distractors; they neither overlap each other nor the readout square, and one that finds no place is left out. The
    source takes distractors from the batch, so that the task depends on its size; here they are drawn with the sample.
    Chance is the mean of the labels, pixel by pixel.

    Attributes:
        item: side of the images.
        images: where testing takes its images from: `test`, which training has not seen, or `train`.

    Source:
        The spatial recall data of nvSubquadratic (`spatial_recall_dataset.py`): a canvas of 64 × 64 and images of
        16 × 16, as in the last difficulty.
    """

    kind: ClassVar[Kind] = "cell_values"
    positions: ClassVar[str] = "learned"

    grid: int = 24
    item: int = 6
    images: str = "test"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("probe.item", self.item, least=3, most=self.grid // 2, integer=True)
        check_choice("probe.images", self.images, ("train", "val", "test"))

    def at(self, split: Split) -> Probe:
        return replace(self, images=self.images if split == "test" else split)

    @property
    def corners(self) -> Array:
        """Upper left corners (N, 2) of squares that do not overlap the readout square."""
        last = self.grid - self.item
        rows, columns = np.indices((last + 1, last + 1)).reshape(2, -1)
        free = np.minimum(rows, columns) <= last - self.item
        return np.stack([rows, columns], axis=1)[free]

    def draw(self, rng: np.random.Generator) -> Sample:
        known = resized(self.images, self.item)
        places = self.place(rng)
        chosen = known[rng.choice(len(known), len(places), replace=False)]
        planes, label = self.compose(rng, chosen, places)
        target = np.zeros((self.outputs, self.grid, self.grid), np.float32)
        target[:, -self.item :, -self.item :] = label
        return Sample(planes, target, self._readout)

    @abstractmethod
    def place(self, rng: np.random.Generator) -> list[Corner]:
        """Upper left corners of the images, the target's first."""

    @abstractmethod
    def compose(self, rng: np.random.Generator, chosen: Images, places: list[Corner]) -> tuple[Array, Array]:
        """The input (C, grid, grid) and the label (V, item, item) of images (N, item, item) at their places."""

    @abstractmethod
    def answer(self, planes: Array) -> Array:
        """The oracle's label (V, item, item), in float64, of one input (C, grid, grid)."""

    def solve(self, samples: Samples) -> Array:
        answers = np.zeros((len(samples.input), self.outputs, self.grid, self.grid))
        answers[..., -self.item :, -self.item :] = np.stack([self.answer(planes) for planes in samples.input])
        return answers

    def constant(self, train: Samples) -> Array:
        return train.target.mean(axis=0, dtype=np.float64)

    @property
    def _readout(self) -> Array:
        readout = np.zeros((self.grid, self.grid), bool)
        readout[-self.item :, -self.item :] = True
        return readout

    def square(self, corner: Corner) -> tuple[slice, slice]:
        """The cells of the image at a corner."""
        row, column = corner
        return slice(row, row + self.item), slice(column, column + self.item)

    def scattered(self, rng: np.random.Generator, number: int) -> list[Corner]:
        """Random corners of at most `number` squares that do not overlap, the first anywhere."""
        places: list[Corner] = []
        free = self.corners
        for _ in range(number):
            for row, column in free[rng.integers(len(free), size=MOST_TRIES)].tolist():
                if all(max(abs(row - i), abs(column - j)) >= self.item for i, j in places):
                    places.append((row, column))
                    break
        return places


def corner_of(cells: Array) -> Corner:
    """The upper left corner of what is true in `cells` (H, W)."""
    return int(cells.any(axis=1).argmax()), int(cells.any(axis=0).argmax())
