"""State spaces whose matrix is a companion matrix: kernels as quotients of power series, beside the recurrence.

A has ones below its diagonal and a in its last column, so that with x_t = A x_{t-1} + b u_t and y_t = c · x_t

    Σ_l k[l] z^l = Σ_m (c ⋆ b)_m z^m + z Σ_m (c ⋆ a)_m z^m · β(z) / (1 − α(z)),   (c ⋆ b)_m = Σ_k c_{k+m} b_k
    α(z) = Σ_k a_k z^{S−k},   β(z) = Σ_k b_k z^{S−1−k}

by Woodbury's identity for a shift plus rank one, k = 0 … S − 1 (arXiv 2303.09489 evaluates it at roots of unity, which
takes the power A^L). Nothing is cut off or wraps: 1 / (1 − α) is found by Newton's iteration on power series.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def kernel(a: Tensor, b: Tensor, c: Tensor, length: int) -> Tensor:
    """The kernels (R, D, L) of a and b (D, S) with R readouts c (R, D, S)."""
    last = F.pad(a.flip(-1), (1, 0))  # α
    inverse = reciprocal(-last, length)
    carried = multiply(b.flip(-1), inverse, length)
    tail = multiply(correlate(c, a), carried, length - 1) if length > 1 else c.new_zeros(*c.shape[:-1], 0)
    head = correlate(c, b)[..., :length]
    return F.pad(head, (0, length - head.shape[-1])) + F.pad(tail, (1, 0))


def reciprocal(series: Tensor, length: int) -> Tensor:
    """The first L coefficients of 1 / (1 + series), for series (…, S) without a constant term."""
    known = torch.ones_like(series[..., :1])
    while known.shape[-1] < length:
        count = min(2 * known.shape[-1], length)
        excess = multiply(series[..., :count], known, count)
        excess = excess + F.pad(known, (0, count - known.shape[-1]))  # (1 + series) known − 1, up to its constant term
        new = multiply(known, excess[..., known.shape[-1] :], count - known.shape[-1])
        known = torch.cat([known, -new], dim=-1)
    return known


def multiply(left: Tensor, right: Tensor, length: int) -> Tensor:
    """The first L coefficients of a product of power series (…, S) and (…, T)."""
    left, right = left[..., :length], right[..., :length]
    size = left.shape[-1] + right.shape[-1]
    product = torch.fft.irfft(torch.fft.rfft(left, n=size) * torch.fft.rfft(right, n=size), n=size)
    return F.pad(product, (0, max(0, length - size)))[..., :length]


def correlate(c: Tensor, b: Tensor) -> Tensor:
    """Σ_k c_{k+m} b_k for m = 0 … S − 1, along the last axis."""
    size = 2 * c.shape[-1]
    spectrum = torch.fft.rfft(c, n=size) * torch.fft.rfft(b, n=size).conj()
    return torch.fft.irfft(spectrum, n=size)[..., : c.shape[-1]]


def run(a: Tensor, b: Tensor, c: Tensor, u: Tensor) -> Tensor:
    """The definition: the outputs (B, N, D) of one readout c (D, S) for u (B, N, D), token by token."""
    x, outputs = u.new_zeros(len(u), *b.shape), []
    for token in u.unbind(1):
        x = F.pad(x[..., :-1], (1, 0)) + a * x[..., -1:] + b * token[..., None]
        outputs.append((c * x).sum(-1))
    return torch.stack(outputs, dim=1)
