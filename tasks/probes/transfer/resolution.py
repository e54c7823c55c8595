"""Resolution transfer: a filter that is learned on one grid and tested on a larger one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from scipy import ndimage

from operators.errors import InputError, check_choice, check_number
from tasks.probes.linear.spectra import Field, Symbol, filtered, gaussian, mean_factor, shifted
from tasks.probes.probe import MOST_SIDE, Array, Kind, Probe, Sample, Samples, Split


@dataclass(frozen=True, kw_only=True)
class ResolutionTransfer(Probe):
    """A band-limited field on a torus moves and blurs: convection and diffusion. Tests have `ratio` times the cells.

    In units of the image, tests show finer samples of such fields: waves, distance and blur keep their size over the
    image's. In units of a pixel, they show larger fields at the same spacing, and all keep their size in cells. The
    oracle is the equation in these units: no error. Chance is the variance of the target. Tests also tell
    `upsampled_error`, that of the oracle's answers on the training grid, enlarged bilinearly: a model that transfers
    stays below it.

    Attributes:
        units: `image` or `pixel`.
        ratio: cells along a side in testing, over those in training.
        waves: along each axis, the band holds fewer waves than this across the training grid.
        distance: what content moves by along rows and columns, in cells of the training grid.
        sigma: standard deviation of the blur, in cells of the training grid.
        coarse: cells along a side of the grid that `upsampled_error` starts from; None: in tests, that of training.
    """

    name: ClassVar[str] = "resolution_transfer"
    kind: ClassVar[Kind] = "cell_values"
    isolates: ClassVar[str] = "whether parameters live in pixels or in the image"
    difficulties: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"units": "image"},
        {"units": "pixel"},
        {"units": "image", "grid": 8, "ratio": 4, "waves": 3},
        {"units": "pixel", "grid": 8, "ratio": 4, "waves": 3},
    )

    units: str = "image"
    ratio: int = 2
    waves: int = 4
    distance: float = 2.0
    sigma: float = 1.0
    coarse: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("probe.units", self.units, ("image", "pixel"))
        check_number("probe.ratio", self.ratio, least=1, most=MOST_SIDE // self.grid, integer=True)
        check_number("probe.waves", self.waves, least=2, most=self.grid // 2, integer=True)
        check_number("probe.distance", self.distance, least=0, most=self.grid / 2)
        check_number("probe.sigma", self.sigma, least=0, most=self.grid / 2)
        if self.distance == self.sigma == 0:
            raise InputError("probe.distance=0 and probe.sigma=0 leave the field as it is: one must be positive")
        if self.coarse is not None:
            check_number("probe.coarse", self.coarse, least=1, most=self.grid, integer=True)
            if self.grid % self.coarse:
                raise InputError(f"probe.coarse={self.coarse} must divide probe.grid={self.grid}")

    def at(self, split: Split) -> Probe:
        return self if split != "test" else replace(self._on(self.ratio * self.grid), coarse=self.coarse or self.grid)

    def _on(self, side: int) -> ResolutionTransfer:
        """The probe that draws on a grid of another side, and stays on it."""
        times = side // self.grid
        if self.units == "pixel":
            return replace(self, grid=side, ratio=1, waves=times * (self.waves - 1) + 1)
        return replace(self, grid=side, ratio=1, distance=times * self.distance, sigma=times * self.sigma)

    def draw(self, rng: np.random.Generator) -> Sample:
        band = self._band()
        noise = filtered(rng.standard_normal((self.grid, self.grid)), band)
        field = noise / np.sqrt(mean_factor(band, self.grid))
        target = _moved(field, self.distance, self.sigma)
        return Sample(field[None].astype(np.float32), target[None].astype(np.float32))

    def solve(self, samples: Samples) -> Array:
        drawn = self._on(samples.input.shape[-1])
        return _moved(samples.input.astype(np.float64), drawn.distance, drawn.sigma)

    def measures(self, answers: Array, samples: Samples) -> dict[str, float]:
        """The error of answers on the coarse grid, see the class, as `upsampled_error`."""
        return {} if self.coarse is None else {"upsampled_error": self.error(self._upsampled(samples), samples)}

    def _upsampled(self, samples: Samples) -> Array:
        """The oracle's answers to those cells that the coarse grid has, enlarged bilinearly."""
        assert self.coarse is not None
        every = self.grid // self.coarse
        units = (self.distance / every, self.sigma / every) if self.units == "image" else (self.distance, self.sigma)
        answers = _moved(samples.input[..., ::every, ::every].astype(np.float64), *units)
        at = np.indices((self.grid, self.grid)) / every
        large = [ndimage.map_coordinates(field[0], at, order=1, mode="grid-wrap") for field in answers]
        return np.stack(large)[:, None]

    def _band(self) -> Symbol:
        limit = (2 * np.pi * (self.waves - 0.5) / self.grid) ** 2
        return lambda rows, columns: ((rows < limit) & (columns < limit)).astype(np.float64)


def _moved(field: Field, distance: float, sigma: float) -> Field:
    return shifted(filtered(field, gaussian(sigma, sigma)), distance, distance)
