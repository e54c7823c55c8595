"""Smooth random fields, the same on every grid."""

from __future__ import annotations

import numpy as np

from tasks.fields.box import SCALAR, Box, Parity, Real

REFERENCE = 64
"""Pixels along a side of the grid on which a draw is scaled, whatever grid it is then seen on."""
BAND = 2.0
"""Waves of a draw along an axis: up to so many times its typical number of waves."""


def basis(box: Box, parity: int, waves: int) -> tuple[Real, Real]:
    """Orthonormal functions along a side of `box`: the cosines and sines of its torus that have the parity.

    Returns:
        their values (m, grid) at the pixels' centres, and their numbers of waves per side (m,).
    """
    place = box.centres[: box.grid] / box.side
    if box.boundary == "periodic":
        number = np.repeat(np.arange(1.0, waves + 1), 2)
        phase = 2 * np.pi * np.outer(number, place)
        values = np.where(np.arange(len(number))[:, None] % 2, np.sin(phase), np.cos(phase))
        constant = True
    else:
        number = np.arange(1.0, 2 * waves + 1) / 2
        phase = 2 * np.pi * np.outer(number, place)
        values = np.cos(phase) if parity == 1 else np.sin(phase)
        constant = parity == 1
    values = np.sqrt(2) * values
    if not constant:
        return values, number
    return np.concatenate([np.ones((1, box.grid)), values]), np.concatenate([[0.0], number])


def smooth(rng: np.random.Generator, box: Box, waves: float, parity: Parity = SCALAR, slope: float = 0.0) -> Real:
    """A random field (grid, grid) whose largest absolute value, on a grid of 64 × 64, is 1.

    It is a sum of the waves that the boundary and the parity allow, with independent normal coefficients. At the
    typical number of waves κ, that of a wave with k = (k₁, k₂) waves per side has the standard deviation
    |k|ˢ exp(−|k|² / 2κ²), for |k₁|, |k₂| ≤ 2κ, and the constant has none. What is drawn does not depend on the grid.

    Args:
        rng: gives the coefficients.
        box: where the field is seen.
        waves: κ.
        parity: of the field.
        slope: s.
    """
    band = int(np.ceil(BAND * waves))
    rows, row_number = basis(box, parity[0], band)
    columns, column_number = basis(box, parity[1], band)
    square = row_number[:, None] ** 2 + column_number**2
    spread = np.where(square > 0, square ** (slope / 2) * np.exp(-square / (2 * waves**2)), 0.0)
    coefficients = spread * rng.standard_normal(spread.shape)
    reference = Box(REFERENCE, box.boundary, box.side)
    seen = basis(reference, parity[0], band)[0].T @ coefficients @ basis(reference, parity[1], band)[0]
    return rows.T @ (coefficients / abs(seen).max()) @ columns
