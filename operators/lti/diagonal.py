"""Diagonal systems: their kernels by products with Vandermonde matrices, beside the recurrence that defines them.

x_t = w x_{t-1} + b u_t,   y_t = 2 Re Σ_n C_n x_t[n],   hence   k[l] = 2 Re Σ_n C_n b_n w_n^l
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from operators.lti.discretisation import Discrete, powers


def kernel(system: Discrete, readout: Tensor, length: int) -> Tensor:
    """The kernels (R, D, L) of systems (D, S) with R readouts C (R, D, S, 2), real and imaginary part.

    A lag is m a + b with m about √L: products of a table of coarse and one of fine powers make all of them.
    """
    step = math.isqrt(length - 1) + 1
    blocks = -(-length // step)
    log_size, angle, real, imag = system
    lags = torch.arange(step, device=real.device, dtype=real.dtype)
    fine, fine_turned = powers(log_size, angle, lags)
    coarse, coarse_turned = powers(log_size * step, angle * step, lags[:blocks])
    c, d = readout.unbind(-1)
    # 2 C b, which every power is multiplied with, then the real part of the product of both tables.
    gain, turned = 2 * (c * real - d * imag), 2 * (c * imag + d * real)
    first = gain[..., None] * coarse - turned[..., None] * coarse_turned
    second = gain[..., None] * coarse_turned + turned[..., None] * coarse
    left = torch.cat([first, -second], dim=-2)  # (R, D, 2S, blocks)
    right = torch.cat([fine, fine_turned], dim=-2)  # (D, 2S, step)
    return (left.mT @ right).flatten(-2)[..., :length]


def run(system: Discrete, readout: Tensor, u: Tensor) -> Tensor:
    """The definition: the outputs (B, N, D) of one readout (D, S, 2) for u (B, N, D), token by token."""
    log_size, angle, b, e = system
    w, v = powers(log_size, angle, torch.ones(1, device=b.device, dtype=b.dtype))
    w, v = w[..., 0], v[..., 0]
    c, d = readout.unbind(-1)
    x = y = u.new_zeros(len(u), *b.shape)
    outputs = []
    for token in u.unbind(1):
        x, y = w * x - v * y + b * token[..., None], v * x + w * y + e * token[..., None]
        outputs.append(2 * (c * x - d * y).sum(-1))
    return torch.stack(outputs, dim=1)
