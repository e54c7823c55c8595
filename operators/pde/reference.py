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

from operators.pde.symbols import Coefficients, plane_nodes, quadrature, respond, symbol


def _wave_numbers(length: int, like: Tensor) -> list[Tensor]:
    """Wave numbers of a period; twice on even lengths, with the Nyquist one as +pi and as -pi."""
    n = torch.arange(length, dtype=like.dtype, device=like.device)
    k = 2 * math.pi * torch.where(n > length / 2, n - length, n) / length
    return [k, torch.where(n == length / 2, -k, k)] if length % 2 == 0 else [k]


def _waves(k: Tensor, offsets: Tensor) -> Tensor:
    phase = k[:, None] * offsets
    return torch.complex(phase.cos(), phase.sin())


def point_response(
    coefficients: Coefficients, height: int, width: int, boundary: str, forcing: str, like: Tensor
) -> Tensor:
    """Response (..., 2P - 1, 2Q - 1) to a point at all offsets on the extended P × Q grid.

    P × Q is H × W for `periodic` and `absorbing`, 2H × 2W for `neumann` and `dirichlet`.
    """
    scale = 2 if boundary in ("neumann", "dirichlet") else 1
    rows, columns = scale * height, scale * width
    offsets_y = torch.arange(1 - rows, rows, dtype=like.dtype, device=like.device)
    offsets_x = torch.arange(1 - columns, columns, dtype=like.dtype, device=like.device)
    if boundary == "absorbing":
        nodes = plane_nodes(coefficients, height, width, forcing, like)
        ky, weight_y = quadrature(2 * nodes[0], -math.pi, math.pi, like)
        kx, weight_x = quadrature(2 * nodes[1], -math.pi, math.pi, like)
        weight = weight_y[:, None] * weight_x / (2 * math.pi) ** 2
        response = weight * respond(symbol(coefficients, ky, kx), forcing)
    else:
        signs = list(itertools.product(_wave_numbers(rows, like), _wave_numbers(columns, like)))
        ky, kx = signs[0]
        terms = [respond(symbol(coefficients, *pair), forcing) for pair in signs]
        response = torch.stack(terms).mean(0) / (rows * columns)
    return torch.einsum("...yx,ya,xb->...ab", response, _waves(ky, offsets_y), _waves(kx, offsets_x)).real


def propagate_reference(field: Tensor, coefficients: Coefficients, boundary: str, forcing: str) -> Tensor:
    """Output (..., M, H, W) for a field (..., M, H, W) and coefficients (M,) in pixels."""
    height, width = field.shape[-2:]
    if boundary in ("neumann", "dirichlet"):
        sign = 1 if boundary == "neumann" else -1
        field = torch.cat([field, sign * field.flip(-1)], dim=-1)
        field = torch.cat([field, sign * field.flip(-2)], dim=-2)
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
