"""The square that fields live on: its pixels, its walls, and Fourier series on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.errors import check_choice, check_number

Real = npt.NDArray[np.floating[Any]]
Complex = npt.NDArray[np.complexfloating[Any, Any]]
Parity = tuple[int, int]
"""What reflection at the walls across rows and across columns does to a field: 1 keeps its sign, -1 turns it."""

BOUNDARIES = ("periodic", "reflecting")
SCALAR: Parity = (1, 1)
VECTOR: tuple[Parity, Parity] = ((-1, 1), (1, -1))
"""Components along rows and columns: the one across a wall vanishes at it."""


@dataclass(frozen=True)
class Box:
    """Describes a square of `grid` × `grid` pixels, whose centres are (i + 1/2) · side / grid.

    Periodic walls make a torus. Reflecting walls are those of the doubled torus on which every field is continued with
    its parity, so that scalars have no gradient across them and vectors no component. Waves of which an axis counts
    more than a third of its points are cut off, so that products of two fields hold no aliases (the 2/3 rule: Orszag
    1971, J. Atmos. Sci. 28, 1074).

    Args:
        grid: pixels along a side.
        boundary: periodic | reflecting.
        side: its length.

    Raises:
        InputError: an unknown boundary, a grid below 4, or a side that is not positive.
    """

    grid: int
    boundary: str = "periodic"
    side: float = 1.0

    def __post_init__(self) -> None:
        check_number("grid", self.grid, least=4, integer=True)
        check_choice("boundary", self.boundary, BOUNDARIES)
        check_number("side", self.side, least=1e-6)

    @property
    def points(self) -> int:
        """Points along a side of the torus."""
        return self.grid if self.boundary == "periodic" else 2 * self.grid

    @cached_property
    def centres(self) -> Real:
        """Positions (points,) of the torus's points along a side."""
        return (np.arange(self.points) + 0.5) * (self.side / self.grid)

    @cached_property
    def waves(self) -> tuple[Real, Real]:
        """Wavenumbers in radians per length along rows (points, 1) and columns (1, points // 2 + 1)."""
        spacing = self.side / self.grid / (2 * np.pi)
        return np.fft.fftfreq(self.points, spacing)[:, None], np.fft.rfftfreq(self.points, spacing)[None]

    @cached_property
    def laplacian(self) -> Real:
        """Symbol −|k|² of the Laplacian (points, points // 2 + 1)."""
        rows, columns = self.waves
        return -(rows**2 + columns**2)

    @cached_property
    def kept(self) -> npt.NDArray[np.bool_]:
        """Which waves are not cut off (points, points // 2 + 1)."""
        rows, columns = self.waves
        return (abs(rows) <= self.highest) & (columns <= self.highest)

    @property
    def highest(self) -> float:
        """Largest wavenumber that is kept along an axis."""
        return (self.points - 1) // 3 * 2 * np.pi / (self.side / self.grid * self.points)

    def extend(self, state: Real, parities: Sequence[Parity]) -> Real:
        """Continue fields (C, grid, grid) with their parities over the torus: (C, points, points)."""
        if self.boundary == "periodic":
            return state
        signs = np.array(parities, dtype=np.float64)[:, :, None, None]
        rows = np.concatenate([state, signs[:, 0] * state[:, ::-1]], axis=1)
        return np.concatenate([rows, signs[:, 1] * rows[:, :, ::-1]], axis=2)

    def crop(self, values: Real) -> Real:
        """The square's part (C, grid, grid) of fields on the torus."""
        return values[:, : self.grid, : self.grid]

    def spectrum(self, values: Real) -> Complex:
        """Fourier coefficients (…, points, points // 2 + 1), cut off, of fields (…, points, points) on the torus."""
        return np.fft.rfft2(values) * self.kept

    def values(self, spectrum: Complex) -> Real:
        """Fields (…, points, points) on the torus with these coefficients."""
        return np.fft.irfft2(spectrum, (self.points, self.points))

    def gradient(self, spectrum: Complex) -> Complex:
        """Coefficients (…, 2, points, points // 2 + 1) of the derivatives along rows and columns."""
        rows, columns = self.waves
        return np.stack([1j * rows * spectrum, 1j * columns * spectrum], axis=-3)

    def divergence(self, flux: Complex) -> Complex:
        """Coefficients (…, points, points // 2 + 1) of the divergence of a flux (…, 2, points, points // 2 + 1)."""
        rows, columns = self.waves
        return 1j * (rows * flux[..., 0, :, :] + columns * flux[..., 1, :, :])
