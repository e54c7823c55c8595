"""VRMSE, the error of a forecast in standard deviations of the truth (The Well, arXiv 2412.00568, section 4)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FLOOR = 1e-7
"""Added to the variance of the truth, as The Well does."""


def vrmse(predicted: npt.NDArray[Any], true: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """sqrt(⟨(u − û)²⟩ / (⟨(u − ⟨u⟩)²⟩ + 1e-7)) over the pixels of each field, and the mean of that over fields.

    A field's own mean scores 1. An error that leaves the numbers is an infinite one.

    Args:
        predicted: û (…, C, H, W), for example of all times.
        true: u, of that shape.

    Returns:
        float64 (…).
    """
    u = true.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.square(u - predicted.astype(np.float64)).mean(axis=(-2, -1))
    ratio = np.sqrt(np.where(np.isnan(squares), np.inf, squares) / (u.var(axis=(-2, -1)) + FLOOR))
    means: npt.NDArray[np.float64] = ratio.mean(axis=-1)
    return means
