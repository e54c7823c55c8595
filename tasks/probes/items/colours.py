"""Copying the one of several framed images whose frame has the colour of the readout square's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from operators.errors import check_number
from tasks.probes.items.canvas import Corner, ItemProbe, corner_of
from tasks.probes.items.images import Images, border, completed, completion
from tasks.probes.probe import Array

PALETTE = np.array(
    [(1, 0, 0), (0, 0.6, 0.2), (0, 0, 1), (1, 1, 0), (0, 0.75, 1), (1, 0, 1), (1, 0.5, 0), (0.58, 0, 0.83)], np.float32
)
"""The source's eight colours (8, 3); none is grey, as all pixels of images are."""


@dataclass(frozen=True, kw_only=True)
class ColourSelection(ItemProbe):
    """Frames of distinct colours are drawn over the borders of several grey images; one has the readout's colour.

    That image is to appear in the readout square, in grey and without its frame. The border under a frame can only be
    guessed: the oracle copies the inner pixels and completes the border by linear regression on them, fitted to the
    training images. Its expected error is the conditional variance of the border.

    Attributes:
        items: images on the canvas, if all find a place.
    """

    name: ClassVar[str] = "colour_selection"
    isolates: ClassVar[str] = "selection by content: one far place is compared with others"
    difficulties: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"grid": 16, "item": 4, "items": 2},
        {"grid": 24, "item": 6},
        {"grid": 32, "item": 8},
        {"grid": 64, "item": 16},
    )

    items: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("probe.items", self.items, least=1, most=len(PALETTE), integer=True)

    @property
    def channels(self) -> int:
        return 3

    @property
    def exact(self) -> bool:
        return False

    @property
    def expected_error(self) -> float:
        """Of the oracle on the training images: the share of border pixels times their conditional variance."""
        return float(border(self.item).mean() * completion(self.item).variance)

    def place(self, rng: np.random.Generator) -> list[Corner]:
        return self.scattered(rng, self.items)

    def compose(self, rng: np.random.Generator, chosen: Images, places: list[Corner]) -> tuple[Array, Array]:
        planes = np.zeros((3, self.grid, self.grid), np.float32)
        colours = PALETTE[rng.choice(len(PALETTE), len(places), replace=False)]
        last = self.grid - self.item
        frame = border(self.item)
        for image, corner, colour in zip(chosen, places, colours, strict=True):
            square = planes[:, *self.square(corner)]
            square[:] = image
            square[:, frame] = colour[:, None]
        planes[:, *self.square((last, last))][:, frame] = colours[0][:, None]
        return planes, self.label(chosen[0], colours[0])

    def label(self, image: Array, colour: Array) -> Array:
        """What is to appear, (V, item, item), for an image (item, item) whose frame has a colour (3,)."""
        return image[None]

    def answer(self, planes: Array) -> Array:
        colour = planes[:, -1, -1]
        alike = (planes == colour[:, None, None]).all(axis=0)
        alike[-self.item :, -self.item :] = False
        framed = planes[0][self.square(corner_of(alike))].astype(np.float64)
        return self.label(completed(framed[None])[0], colour)


@dataclass(frozen=True, kw_only=True)
class ColourConditioning(ColourSelection):
    """As `ColourSelection`, but the image is to appear in the colour of its frame: times its red, green and blue.

    The expected error of the oracle is that of `ColourSelection` times the mean square of the palette.
    """

    name: ClassVar[str] = "colour_conditioning"
    isolates: ClassVar[str] = "selection by content, and a product with what selects"

    @property
    def outputs(self) -> int:
        return 3

    @property
    def expected_error(self) -> float:
        return super().expected_error * float(np.square(PALETTE).mean())

    def label(self, image: Array, colour: Array) -> Array:
        return image * colour[:, None, None]
