"""Linear operators on fields (…, H, W) of numpy, in float64: what oracles solve with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float64]


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
