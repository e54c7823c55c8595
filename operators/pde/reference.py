"""The operator as it is defined, written out plainly: slow, and the measure of every fast path.

The transfer function is summed over all wave numbers of the extended grid (of a fine quadrature for an unbounded
plane), which gives the response to a point; the extended input is then convolved with it offset by offset.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from operators.pde.boundary import Boundary, by_axis
from operators.pde.symbols import AXES, Coefficients, plane_nodes, quadrature, transfer


def _wave_numbers(length: int, like: Tensor) -> list[Tensor]:
    """Wave numbers of a period; twice on even lengths, with the Nyquist one as +pi and as -pi."""
    n = torch.arange(length, dtype=like.dtype, device=like.device)
    k = 2 * math.pi * torch.where(n > length / 2, n - length, n) / length
    return [k, torch.where(n == length / 2, -k, k)] if length % 2 == 0 else [k]


def _waves(k: Tensor, offsets: Tensor) -> Tensor:
    phase = k[:, None] * offsets
    return torch.complex(phase.cos(), phase.sin())


def _period(length: int, boundary: str) -> int:
    return 2 * length if boundary in ("neumann", "dirichlet") else length


def point_response(
    coefficients: Coefficients, grid: Sequence[int], boundary: Boundary, forcing: str, like: Tensor
) -> Tensor:
    """Response (..., 2P - 1, 2Q - 1) to a point at all offsets on the extended P × Q grid.

    An axis of P × Q is as long as that of the grid for `periodic` and `absorbing`, twice as long for `neumann` and
    `dirichlet`.
    """
    c, axes = coefficients, len(grid)
    words = by_axis(boundary, axes)
    lengths = [_period(length, word) for length, word in zip(grid, words, strict=True)]
    offsets = [torch.arange(1 - length, length, dtype=like.dtype, device=like.device) for length in lengths]
    numbers, weights, total = [], [], 1.0
    for length, word, (diffusion, velocity) in zip(lengths, words, c.along(axes), strict=True):
        if word == "absorbing":
            nodes = plane_nodes(length, diffusion, velocity, c.r, forcing, like)
            k, weight = quadrature(2 * nodes, -math.pi, math.pi, like)
            numbers.append([k])
            total *= 2 * math.pi
        else:
            weight = torch.ones(1, dtype=like.dtype, device=like.device)
            numbers.append(_wave_numbers(length, like))
            total *= length
        weights.append(weight)
    signs = list(itertools.product(*numbers))
    response = torch.stack([transfer(c, waves, forcing) for waves in signs]).mean(0)
    if "absorbing" in words:
        share = weights[0]
        for weight in weights[1:]:
            share = share[..., None] * weight
        response = share / total * response
    else:
        response = response / total
    waves = [_waves(k, offset) for k, offset in zip(signs[0], offsets, strict=True)]
    summed, kept = AXES[-axes:], "abc"[:axes]
    terms = ",".join(map("".join, zip(summed, kept, strict=True)))
    return torch.einsum(f"...{summed},{terms}->...{kept}", response, *waves).real


def propagate_reference(
    field: Tensor, coefficients: Coefficients, boundary: Boundary, forcing: str, axes: int = 2
) -> Tensor:
    """Output (..., M, H, W) for a field (..., M, H, W) and coefficients (M,) in pixels; of videos with `axes` 3."""
    grid, words = field.shape[-axes:], by_axis(boundary, axes)
    for axis, word in enumerate(reversed(words), 1):
        if word in ("neumann", "dirichlet"):
            field = torch.cat([field, (1 if word == "neumann" else -1) * field.flip(-axis)], dim=-axis)
    sides = field.shape[-axes:]
    # One channel at a time: the plane's quadrature is large.
    channels = field.shape[-axes - 1]
    each = [coefficients.map(partial(torch.narrow, dim=0, start=m, length=1)) for m in range(channels)]
    response = torch.cat([point_response(part, grid, boundary, forcing, field) for part in each])
    output = field.new_zeros(*field.shape[:-axes], *grid)
    for pixel in itertools.product(*map(range, sides)):
        # Place a of the output along an axis lies a - i beyond the input pixel's place i.
        first = [side - 1 - i for side, i in zip(sides, pixel, strict=True)]
        output = output + _window(field, pixel, [1] * axes) * _window(response, first, grid)
    return output


def _window(field: Tensor, first: Sequence[int], lengths: Sequence[int]) -> Tensor:
    for axis, (start, length) in enumerate(zip(first, lengths, strict=True), -len(lengths)):
        field = field.narrow(axis, start, length)
    return field
