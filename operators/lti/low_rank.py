"""Diagonal plus low rank (S4): kernels by Cauchy's matrix and Woodbury's identity, beside powers of the dense matrix.

    x' = (Λ − P P*) x + B u,   x_t = Ā x_{t-1} + B̄ u_t,   y_t = 2 Re C x_t,   Λ = −decay + i frequency

by the bilinear rule, Ā = (1 − Δ A / 2)⁻¹ (1 + Δ A / 2) and B̄ = (1 − Δ A / 2)⁻¹ Δ B, where complex states stand for
themselves and their conjugates. At the nodes ω = exp(−iφ), φ = 2πj / L, the kernel's transform is (arXiv 2111.00396)

    K(ω) = 2 / (1 + ω) [k_CB − k_CP k_PB / (1 + k_PP)],   k_XY = Σ_n X_n Y_n / (2 (1 − ω) / (Δ (1 + ω)) − Λ_n)

with C (1 − Ā^L) in place of C, and P conjugated on the left. With c = cos φ/2, s = sin φ/2, a = Δ decay, λ = Δ Λ, and
k_XY = c r_XY nothing is infinite where ω = −1, and the sum over a state and its conjugate takes real numbers alone:

    K = exp(iφ/2) [r_CB − c r_CP r_PB / (1 + c r_PP)],
    r_XY = Σ_n (4 i s Re v_n − 2 c Re v_n λ̄_n) / (c² |λ_n|² − 4 s² + 4 i s c a_n),   v = Δ X Y
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class LowRank(NamedTuple):
    """A system for each channel.

    Attributes:
        decay: (D, S).
        frequency: (D, S).
        low_rank: P (D, S, 2), real and imaginary part.
        weight: B (D, S, 2).
        step: Δ (D, 1).
    """

    decay: Tensor
    frequency: Tensor
    low_rank: Tensor
    weight: Tensor
    step: Tensor


def kernel(system: LowRank, readout: Tensor, length: int) -> Tensor:
    """The kernels (R, D, L) of readouts C (1 − Ā^L) (R, D, S, 2)."""
    a, y = system.decay * system.step, system.frequency * system.step
    # Nodes rounded once: a phase of single precision would move them off the roots of unity.
    half = torch.arange(length // 2 + 1, device=a.device, dtype=torch.float64) * (math.pi / length)
    c, s = half.cos().to(a.dtype), half.sin().to(a.dtype)
    across, along = (a * a + y * y)[..., None] * (c * c) - 4 * s * s, a[..., None] * (4 * s * c)
    size = across * across + along * along
    inverse = torch.cat([across / size, -along / size], dim=-1)  # (D, S, 2F): real and imaginary parts
    p, q = _numerators(system, readout, a, y)
    summed = torch.cat([p, q], dim=1) @ inverse  # (D, 2M, 2F) for the M = 2R + 2 sums
    (p_real, p_imag), (q_real, q_imag) = (part.chunk(2, dim=-1) for part in summed.chunk(2, dim=1))
    real = -4 * s * p_imag - 2 * c * q_real
    imag = 4 * s * p_real - 2 * c * q_imag
    r = torch.complex(real, imag)
    readouts = len(readout)
    plain, left, right, middle = r.split([readouts, readouts, 1, 1], dim=1)
    spectrum = torch.complex(c, s) * (plain - c * left * right / (1 + c * middle))
    return torch.fft.irfft(spectrum, n=length).movedim(1, 0)


def _numerators(system: LowRank, readout: Tensor, a: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Re v and Re v λ̄ (D, M, S), for the pairs CB and CP of each readout, PB and PP."""
    rows = readout.movedim(0, 1).unbind(-1)  # each (D, R, S)
    B, P = (tuple(part[:, None] for part in vector.unbind(-1)) for vector in (system.weight, system.low_rank))
    conjugate = P[0], -P[1]
    pairs = [_product(rows, B), _product(rows, P), _product(conjugate, B), _product(conjugate, P)]
    real, imag = (torch.cat(parts, dim=1) * system.step[:, None] for parts in zip(*pairs, strict=True))
    return real, imag * y[:, None] - real * a[:, None]


def _product(left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    return left[0] * right[0] - left[1] * right[1], left[0] * right[1] + left[1] * right[0]


def dense(system: LowRank) -> tuple[Tensor, Tensor]:
    """Ā (D, 2S, 2S) and B̄ (D, 2S), which act on real and imaginary parts of the state, one after the other."""
    decay, frequency = torch.diag_embed(system.decay), torch.diag_embed(system.frequency)
    normal = torch.cat([torch.cat([-decay, -frequency], -1), torch.cat([frequency, -decay], -1)], -2)
    P, B = (vector.mT.flatten(-2) for vector in (system.low_rank, system.weight))
    half = (normal - 2 * P[..., None] * P[..., None, :]) * (system.step[..., None] / 2)
    eye = torch.eye(P.shape[-1], device=P.device, dtype=P.dtype)
    right = torch.cat([eye + half, (system.step * B)[..., None]], dim=-1)
    solved = torch.linalg.solve(eye - half, right)
    return solved[..., :-1], solved[..., -1]


def rows(readout: Tensor) -> Tensor:
    """The readouts (R, D, S, 2) as rows (R, D, 2S) that act on real and imaginary parts of the state."""
    return torch.cat([2 * readout[..., 0], -2 * readout[..., 1]], dim=-1)


def readouts(made: Tensor) -> Tensor:
    """The inverse of `rows`."""
    real, imag = made.chunk(2, dim=-1)
    return torch.stack([real / 2, -imag / 2], dim=-1)


def attuned(system: LowRank, readout: Tensor, length: int) -> Tensor:
    """C (1 − Ā^L) (R, D, S, 2), of which `kernel` makes a kernel of L numbers, from C."""
    power = torch.linalg.matrix_power(dense(system)[0], length)
    return readouts(rows(readout) - _times(rows(readout), power))


def released(system: LowRank, readout: Tensor, length: int) -> Tensor:
    """The inverse of `attuned`: C from C (1 − Ā^L)."""
    power = torch.linalg.matrix_power(dense(system)[0], length)
    eye = torch.eye(power.shape[-1], device=power.device, dtype=power.dtype)
    return readouts(torch.linalg.solve((eye - power).mT, rows(readout)[..., None])[..., 0])


def lengthened(system: LowRank, readout: Tensor, length: int, least: int) -> tuple[Tensor, int]:
    """C (1 − Ā^M) from C (1 − Ā^L), and M: L times the least power of two that makes it no less than `least`."""
    if length >= least:
        return readout, length
    made, power = rows(readout), torch.linalg.matrix_power(dense(system)[0], length)
    while length < least:
        made, length = made + _times(made, power), 2 * length
        power = power @ power if length < least else power
    return readouts(made), length


def _times(made: Tensor, matrix: Tensor) -> Tensor:
    """Rows (R, D, 2S) times matrices (D, 2S, 2S)."""
    return (made.movedim(0, 1) @ matrix).movedim(1, 0)


def run(system: LowRank, readout: Tensor, u: Tensor) -> Tensor:
    """The definition: the outputs (B, N, D) of one readout C (D, S, 2) for u (B, N, D), token by token."""
    A, B = dense(system)
    row, outputs = rows(readout[None])[0], []
    x = u.new_zeros(len(u), *B.shape)
    for token in u.unbind(1):
        x = torch.einsum("dij,bdj->bdi", A, x) + B * token[..., None]
        outputs.append((row * x).sum(-1))
    return torch.stack(outputs, dim=1)
