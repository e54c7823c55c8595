"""Linear operators on fields (…, H, W) of numpy, in float64: what the linear probes are made and solved with.

A reflective boundary extends a field evenly about the pixels' outer edges to 2H × 2W, filters, and crops: the discrete
cosine transform's own boundary condition.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float64]
Symbol = Callable[[Field, Field], Field]
"""Squared wave numbers of rows (n, 1) and columns (1, m), in (radians a pixel)², to the factors of the waves (n, m)."""

BOUNDARIES = ("periodic", "reflective")
BAND = 0.25
"""Band-limited noise has waves below this many cycles a pixel, along each axis: half of what a grid can hold."""


def filtered(field: Field, symbol: Symbol, boundary: str = "periodic") -> Field:
    """The waves of a field (…, H, W), each multiplied by its factor."""
    height, width = field.shape[-2:]
    if boundary == "reflective":
        field = np.concatenate((field, field[..., ::-1, :]), axis=-2)
        field = np.concatenate((field, field[..., ::-1]), axis=-1)
    rows, columns = (_waves(length) for length in field.shape[-2:])
    spectrum = np.fft.fft2(field) * symbol(rows[:, None], columns[None])
    solved: Field = np.fft.ifft2(spectrum).real[..., :height, :width]
    return solved


@cache
def _waves(length: int) -> Field:
    """Squared wave numbers of an axis."""
    squares: Field = np.square(2 * np.pi * np.fft.fftfreq(length))
    return squares


def mean_factor(symbol: Symbol, side: int) -> float:
    """Mean of the factors of all waves on a torus of side × side pixels."""
    waves = _waves(side)
    return float(np.broadcast_to(symbol(waves[:, None], waves[None]), (side, side)).mean())


def in_band(rows: Field, columns: Field) -> Field:
    """The symbol that keeps the waves below `BAND` and nothing else."""
    limit = (2 * np.pi * BAND) ** 2
    return np.where((rows < limit) & (columns < limit), 1.0, 0.0)


def gaussian(rows: float, columns: float) -> Symbol:
    """The symbol of a Gaussian blur with these standard deviations, in pixels."""
    return lambda along_rows, along_columns: np.exp(-(rows**2 * along_rows + columns**2 * along_columns) / 2)


def noise(rng: np.random.Generator, side: int, boundary: str = "periodic") -> Field:
    """Band-limited Gaussian noise (side, side); its variance is 1, on average over a reflective grid."""
    kept = filtered(rng.standard_normal((side, side)), in_band, boundary)
    return kept / np.sqrt(band_share(side, boundary))


@cache
def band_share(side: int, boundary: str = "periodic") -> float:
    """The share of independent waves that band-limited noise keeps."""
    if boundary == "periodic":
        return mean_factor(in_band, side)
    return (np.count_nonzero(np.arange(side) / (2 * side) < BAND) / side) ** 2


def shifted(field: Field, rows: float, columns: float) -> Field:
    """Content moved by (rows, columns) pixels on a torus; trigonometric interpolation between the pixels.

    On even lengths the Nyquist wave is a cosine, so that real fields stay real.
    """
    height, width = field.shape[-2:]
    spectrum = np.fft.fft2(field) * _delay(height, rows)[:, None] * _delay(width, columns)
    return np.fft.ifft2(spectrum).real


def _delay(length: int, distance: float) -> npt.NDArray[np.complex128]:
    waves = np.exp(-2j * np.pi * np.fft.fftfreq(length) * distance)
    if length % 2 == 0:
        waves[length // 2] = waves[length // 2].real
    return waves
