"""Coefficients and fields for the tests of the PDE operator, and the operator as a NumPy function."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from operators.pde import propagate

Array = NDArray[np.float64]
COEFFICIENTS = ("diffusion", "velocity", "reaction")

BOUNDARIES = ("periodic", "neumann", "dirichlet", "absorbing")
TENSORS = ("isotropic", "diagonal", "full")
FORCINGS = ("initial", "constant", "steady")
UNITS = ("pixel", "image")
METHODS = ("auto", "fft", "separable", "reference")
GRIDS = {"odd": (5, 7), "even": (6, 6), "mixed": (4, 7), "row": (1, 6), "column": (5, 1)}


def serves(method: str, *, tensor: str, forcing: str) -> bool:
    """Whether `method` may serve these options: the row and column matrices need a diagonal tensor and no source."""
    return method != "separable" or (tensor != "full" and forcing == "initial")


def spot(height: int, width: int, channels: int = 1) -> Array:
    """A unit impulse at the middle of each channel."""
    field = np.zeros((channels, height, width))
    field[:, height // 2, width // 2] = 1
    return field


def noise(*shape: int, seed: int = 0) -> Array:
    """White noise of `shape`; it has every Fourier mode, the Nyquist ones too."""
    return np.random.default_rng(seed).standard_normal(shape)


def coefficients(
    grid: tuple[int, int],
    *,
    tensor: str = "isotropic",
    convection: bool = True,
    reaction: bool = True,
    units: str = "pixel",
    channels: int = 2,
    seed: int = 0,
) -> dict[str, Array]:
    """Coefficients of a pixel or so, different in each channel; `tensor` may be `none`. Reaction is a decay."""
    rng = np.random.default_rng(seed)
    area = grid[0] * grid[1] if units == "image" else 1
    spread = rng.uniform(0.1, 0.6, (channels, 2))
    cross = 0.7 * np.sqrt(spread.prod(-1)) * np.where(np.arange(channels) % 2, -1, 1)
    drift = rng.uniform(0.3, 1.8, (channels, 2)) * rng.choice([-1, 1], (channels, 2))
    decay = rng.uniform(-0.9, -0.3, channels)
    full = np.stack([spread[:, 0], cross, cross, spread[:, 1]], -1).reshape(channels, 2, 2)
    chosen: dict[str, Array] = {}
    if tensor != "none":
        chosen["diffusion"] = {"isotropic": spread[:, 0], "diagonal": spread, "full": full}[tensor] / area
    if convection:
        chosen["velocity"] = drift / np.sqrt(area)
    if reaction:
        chosen["reaction"] = decay
    return chosen


def tensors(arguments: dict[str, Any], dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """`arguments` with its coefficients as tensors of `dtype`."""
    return {
        name: torch.as_tensor(value, dtype=dtype) if name in COEFFICIENTS and value is not None else value
        for name, value in arguments.items()
    }


def run(field: Array, dtype: torch.dtype = torch.float64, **arguments: Any) -> Array:
    """`operators.pde.propagate` on arrays, computed in `dtype`, returned in float64."""
    given = torch.as_tensor(field, dtype=dtype)
    result = propagate(given, **tensors(arguments, dtype))
    assert result.shape == given.shape
    assert result.dtype == dtype
    return result.numpy().astype(np.float64)
