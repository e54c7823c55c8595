"""The operator as it is defined, written out plainly: slow, and the measure of every fast path.

The transfer function is summed over all wave numbers of the extended grid (of a fine quadrature for an unbounded
plane), which gives the response to a point; the extended input is then convolved with it offset by offset.
"""

from __future__ import annotations

import itertools
import math
from functools import partial

import torch
from torch import Tensor

from operators.pde.boundary import Boundary, by_axis
from operators.pde.symbols import Coefficients, plane_nodes, quadrature, transfer


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
    coefficients: Coefficients, height: int, width: int, boundary: Boundary, forcing: str, like: Tensor
) -> Tensor:
    """Response (..., 2P - 1, 2Q - 1) to a point at all offsets on the extended P × Q grid.

    An axis of P × Q is as long as that of H × W for `periodic` and `absorbing`, twice as long for `neumann` and
    `dirichlet`.
    """
    c = coefficients
    row_axis, column_axis = by_axis(boundary)
    rows, columns = _period(height, row_axis), _period(width, column_axis)
    offsets_y = torch.arange(1 - rows, rows, dtype=like.dtype, device=like.device)
    offsets_x = torch.arange(1 - columns, columns, dtype=like.dtype, device=like.device)
    axes = ((rows, row_axis, c.kyy, c.vy), (columns, column_axis, c.kxx, c.vx))
    numbers, weights, total = [], [], 1.0
    for length, word, diffusion, velocity in axes:
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
    signs = list(itertools.product(numbers[0], numbers[1]))
    ky, kx = signs[0]
    response = torch.stack([transfer(c, *pair, forcing) for pair in signs]).mean(0)
    if "absorbing" in (row_axis, column_axis):
        response = weights[0][:, None] * weights[1] / total * response
    else:
        response = response / total
    return torch.einsum("...yx,ya,xb->...ab", response, _waves(ky, offsets_y), _waves(kx, offsets_x)).real


def propagate_reference(field: Tensor, coefficients: Coefficients, boundary: Boundary, forcing: str) -> Tensor:
    """Output (..., M, H, W) for a field (..., M, H, W) and coefficients (M,) in pixels."""
    height, width = field.shape[-2:]
    row_axis, column_axis = by_axis(boundary)
    for axis, word in ((-1, column_axis), (-2, row_axis)):
        if word in ("neumann", "dirichlet"):
            field = torch.cat([field, (1 if word == "neumann" else -1) * field.flip(axis)], dim=axis)
    rows, columns = field.shape[-2:]
    # One channel at a time: the plane's quadrature is large.
    channels = field.shape[-3]
    each = [coefficients.map(partial(torch.narrow, dim=0, start=m, length=1)) for m in range(channels)]
    response = torch.cat([point_response(part, height, width, boundary, forcing, field) for part in each])
    output = torch.zeros_like(field[..., :height, :width])
    for i, j in itertools.product(range(rows), range(columns)):
        below, right = rows - 1 - i, columns - 1 - j
        # Row a of the output lies a - i below the input pixel (i, j).
        window = response[..., below : below + height, right : right + width]
        output = output + field[..., i, j, None, None] * window
    return output
