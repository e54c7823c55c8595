"""The PDE operator written down from its definition, in NumPy and float64, with no regard for speed.

    ∂u/∂t = ∇·(K ∇u) − v·∇u + r u   (+ f)        s(k) = −kᵀKk − i v·k + r,   k in radians per pixel

    forcing     transfer function T(k)
    initial     exp(τ s)
    constant    τ φ₁(τ s),  φ₁(z) = (eᶻ − 1)/z
    steady      −1/s

A boundary extends the field along each axis, T acts on the extension, the result is cropped. On an even length the mode
at π stands for +π and −π alike, so T is averaged over the two, for each axis by itself. `absorbing` convolves with the
inverse discrete-time Fourier transform of T over [−π, π]², by Gauss–Legendre quadrature: the integrand is analytic in
the open square, so that converges geometrically, while a zero-padded FFT of length L errs like 1/L (T jumps from π to
−π).
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Boundary = str | tuple[str, str]
"""One word, or those of the row axis and of the column axis."""
Terms = tuple[Array, Array, Array]
"""Diffusion tensors (M, 2, 2), velocities (M, 2), reactions (M,); zeros where a term is off."""


def terms(channels: int, diffusion: Array | None, velocity: Array | None, reaction: Array | None) -> Terms:
    """All three coefficients in their fullest form, for `channels` channels."""
    tensor = np.zeros((channels, 2, 2))
    if diffusion is not None:
        tensor[:] = diffusion if diffusion.ndim == 3 else [np.diag(np.broadcast_to(d, 2)) for d in diffusion]
    return (
        tensor,
        np.zeros((channels, 2)) if velocity is None else velocity,
        np.zeros(channels) if reaction is None else reaction,
    )


def in_pixels(coefficients: Terms, height: int, width: int, units: str) -> Terms:
    """Coefficients for a grid of spacing 1, from ones for spacing 1/√(H W) if `units` is `image`."""
    tensor, velocity, reaction = coefficients
    if units == "image":
        area = height * width
        return tensor * area, velocity * math.sqrt(area), reaction
    return coefficients


def symbol(coefficients: Terms, rows: Array, columns: Array) -> Array:
    """s(k) for every channel on the product of wave numbers `rows` × `columns`: (M, rows, columns)."""
    tensor, velocity, reaction = (c[..., None, None] for c in coefficients)
    y, x = rows[:, None], columns[None, :]
    spread = tensor[:, 0, 0] * y * y + (tensor[:, 0, 1] + tensor[:, 1, 0]) * y * x + tensor[:, 1, 1] * x * x
    return -spread - 1j * (velocity[:, 0] * y + velocity[:, 1] * x) + reaction


def transfer(s: Array, time: float, forcing: str) -> Array:
    """T as a function of the symbol."""
    if forcing == "initial":
        return np.exp(time * s)
    if forcing == "steady":
        return -1 / s
    z = time * s
    zero = z == 0
    return time * np.where(zero, 1, np.expm1(z) / np.where(zero, 1, z))


def wave_numbers(length: int) -> tuple[Array, Array]:
    """Wave numbers of a DFT, radians per pixel, with the Nyquist mode of an even length taken as −π and as +π."""
    numbers = 2 * np.pi * np.fft.fftfreq(length)
    other = numbers.copy()
    if length % 2 == 0:
        other[length // 2] = np.pi
    return numbers, other


def by_axis(boundary: Boundary) -> tuple[str, str]:
    return (boundary, boundary) if isinstance(boundary, str) else boundary


def extend(field: Array, boundary: Boundary) -> Array:
    """Even (`neumann`) or odd (`dirichlet`) extension about the pixels' outer edges, to twice the length of an axis."""
    for axis, word in zip((-2, -1), by_axis(boundary), strict=True):
        if word in ("neumann", "dirichlet"):
            field = np.concatenate([field, (1 if word == "neumann" else -1) * np.flip(field, axis)], axis)
    return field


@lru_cache
def quadrature(nodes: int, levels: int) -> tuple[Array, Array]:
    """Nodes and weights on [−π, π]: Gauss–Legendre on panels that halve towards 0, where small decay shows."""
    edges = np.concatenate([[0.0], np.pi * 0.5 ** np.arange(levels, -1, -1)])
    place, weight = np.polynomial.legendre.leggauss(nodes)
    half = np.diff(edges)[:, None] / 2
    places = (edges[:-1, None] + half * (1 + place)).ravel()
    weights = (half * weight).ravel()
    return np.concatenate([-places[::-1], places]), np.concatenate([weights[::-1], weights])


def plane_kernel(coefficients: Terms, height: int, width: int, time: float, forcing: str, extra: int = 0) -> Array:
    """The kernel on the infinite lattice, (M, 2H−1, 2W−1), offset zero at (H−1, W−1); `extra` nodes for each panel."""
    # The widest panel is π/2 long, so exp(i k n) turns by π/4 n to either side of its middle.
    reach = max(height, width) + (0 if forcing == "steady" else time * np.abs(coefficients[1]).max())
    k, weight = quadrature(28 + math.ceil(math.pi / 4 * reach) + extra, levels=8 if forcing == "steady" else 5)
    waves = [np.exp(1j * np.outer(np.arange(1 - n, n), k)) * weight / (2 * np.pi) for n in (height, width)]
    return (waves[0] @ transfer(symbol(coefficients, k, k), time, forcing) @ waves[1].T).real


def half_plane_kernel(coefficients: Terms, rows: int, columns: int, time: float, forcing: str, open_axis: int) -> Array:
    """The kernel at offsets 1−rows … rows−1 and 1−columns … columns−1, periodic along the axis that is not open."""
    lengths = (rows, columns)
    reach = lengths[open_axis] + time * np.abs(coefficients[1]).max()
    free = quadrature(28 + math.ceil(math.pi / 4 * reach), levels=8 if forcing == "steady" else 5)
    variants = [
        [(free[0], free[1] / (2 * np.pi))] if axis == open_axis else [(k, np.full(n, 1 / n)) for k in wave_numbers(n)]
        for axis, n in enumerate(lengths)
    ]
    total = 0
    for (y, weight_y), (x, weight_x) in product(*variants):
        across = np.exp(1j * np.outer(np.arange(1 - rows, rows), y)) * weight_y
        along = np.exp(1j * np.outer(np.arange(1 - columns, columns), x)) * weight_x
        total = total + (across @ transfer(symbol(coefficients, y, x), time, forcing) @ along.T).real / 2
    return np.asarray(total)


def convolve(field: Array, kernel: Array) -> Array:
    """out[i] = Σⱼ kernel[i − j] field[j], with nothing outside the field."""
    height, width = field.shape[-2:]
    out = np.zeros((*np.broadcast_shapes(field.shape[:-2], kernel.shape[:-2]), height, width))
    for i, j in product(range(height), range(width)):
        window = kernel[..., height - 1 - i : 2 * height - 1 - i, width - 1 - j : 2 * width - 1 - j]
        out += field[..., i, j, None, None] * window
    return out


def propagate(
    field: Array,
    *,
    diffusion: Array | None = None,
    velocity: Array | None = None,
    reaction: Array | None = None,
    time: float = 1.0,
    boundary: Boundary = "periodic",
    forcing: str = "initial",
    units: str = "pixel",
) -> Array:
    """The operator on field (..., M, H, W); arguments as `operators.pde.propagate`."""
    channels, height, width = field.shape[-3:]
    coefficients = in_pixels(terms(channels, diffusion, velocity, reaction), height, width, units)
    if boundary == "absorbing":
        return convolve(field, plane_kernel(coefficients, height, width, time, forcing))
    extended = extend(field, boundary)
    if "absorbing" in boundary:
        open_axis = boundary.index("absorbing")
        kernel = half_plane_kernel(coefficients, *extended.shape[-2:], time, forcing, open_axis)
        return convolve(extended, kernel)[..., :height, :width]
    signs = product(*(wave_numbers(n) for n in extended.shape[-2:]))
    mean = sum(transfer(symbol(coefficients, y, x), time, forcing) for y, x in signs) / 4
    result = np.fft.ifft2(mean * np.fft.fft2(extended))
    if np.abs(result.imag).max() > 1e-9 * max(1.0, np.abs(result.real).max()):
        raise ArithmeticError("the averaged transfer function is not Hermitian")
    return result.real[..., :height, :width]
