"""Copying one image to the readout square: the only one, or the one under a mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from operators.errors import check_choice, check_number
from tasks.probes.items.canvas import Corner, ItemProbe, corner_of
from tasks.probes.items.images import Images
from tasks.probes.probe import Array

MOST_ITEMS = 64


@dataclass(frozen=True, kw_only=True)
class Copy(ItemProbe):
    """The one image of the canvas is to appear in the readout square. The oracle finds it: no error.

    Attributes:
        target: where the image is: `corner`, always the upper left one, or `random`.
    """

    name: ClassVar[str] = "copy"
    isolates: ClassVar[str] = "routing over a distance that does not depend on content"
    difficulties: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"grid": 16, "item": 4},
        {"grid": 24, "item": 6, "target": "random"},
        {"grid": 64, "item": 16},
        {"grid": 64, "item": 16, "target": "random"},
    )

    target: str = "corner"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("probe.target", self.target, ("corner", "random"))

    def place(self, rng: np.random.Generator) -> list[Corner]:
        return [(0, 0)] if self.target == "corner" else self.scattered(rng, 1)

    def compose(self, rng: np.random.Generator, chosen: Images, places: list[Corner]) -> tuple[Array, Array]:
        planes = np.zeros((1, self.grid, self.grid), np.float32)
        planes[0][self.square(places[0])] = chosen[0]
        return planes, chosen[:1]

    def answer(self, planes: Array) -> Array:
        corner = (0, 0) if self.target == "corner" else corner_of(planes[0] != 0)
        return planes[:1, *self.square(corner)].astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class MaskSelection(ItemProbe):
    """One of several images is to appear in the readout square: the one on whose square a second channel is 1.

    The oracle copies what is under the mask: no error.

    Attributes:
        items: images on the canvas, if all find a place.
    """

    name: ClassVar[str] = "mask_selection"
    isolates: ClassVar[str] = "selection by content: routing over a distance that a mask gives"
    difficulties: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"grid": 16, "item": 4, "items": 2},
        {"grid": 24, "item": 6},
        {"grid": 64, "item": 16},
    )

    items: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("probe.items", self.items, least=1, most=MOST_ITEMS, integer=True)

    @property
    def channels(self) -> int:
        return 2

    def place(self, rng: np.random.Generator) -> list[Corner]:
        return self.scattered(rng, self.items)

    def compose(self, rng: np.random.Generator, chosen: Images, places: list[Corner]) -> tuple[Array, Array]:
        planes = np.zeros((2, self.grid, self.grid), np.float32)
        for image, corner in zip(chosen, places, strict=True):
            planes[0][self.square(corner)] = image
        planes[1][self.square(places[0])] = 1
        return planes, chosen[:1]

    def answer(self, planes: Array) -> Array:
        return planes[:1, *self.square(corner_of(planes[1] == 1))].astype(np.float64)
