"""HiPPO's matrix for scaled Legendre polynomials, its normal part, and the diagonal systems that start from it.

The state x' = A x + B u of LegS holds the coefficients of the past of u in Legendre polynomials (arXiv 2008.07669):

    A[n, k] = −√((2n + 1)(2k + 1)) for n > k, −(n + 1) for n = k, 0 for n < k;   B[n] = √(2n + 1)

A + P Pᵀ with P = B / √2 is −1/2 plus a skew-symmetric matrix, hence normal (arXiv 2111.00396, theorem 1). Its
eigenvalues −1/2 ± iω come in conjugate pairs; S complex states stand for N = 2S numbers.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from operators.errors import InputError
from operators.runtime.tensors import ordinary_tensors

STARTS = ("lin", "inv", "legs", "real", "ptd")
"""Names of the diagonal systems of `start`."""
PERTURBATION = 0.2
"""Spectral norm of the perturbation of `ptd`. The eigenvectors of 64 numbers then have a condition number of 3e4."""
LEAST_PTD = 4
DRAWS = 1000


class Normal(NamedTuple):
    """The normal part of LegS in its eigenvectors, of one of each conjugate pair.

    Attributes:
        frequency: ω (S,), positive and ascending; the eigenvalues are −1/2 + iω.
        weight: V*B (S,), positive by the choice of phases; V*P is this over √2.
        vectors: V (N, S), complex and orthonormal.
    """

    frequency: Tensor
    weight: Tensor
    vectors: Tensor


class DiagonalStart(NamedTuple):
    """A diagonal system A_n = −decay + i frequency, with the input map B.

    Attributes:
        decay: (S,), positive.
        frequency: (S,), not negative.
        weight: B (S,), complex.
        vectors: eigenvectors (N, S), which carry a readout of the N states of HiPPO over; None: they are orthonormal,
            and a complex normal readout stays one.
    """

    decay: Tensor
    frequency: Tensor
    weight: Tensor
    vectors: Tensor | None = None


def legs(size: int) -> tuple[Tensor, Tensor]:
    """A (N, N) and B (N,) of LegS, float64, for N = `size`."""
    n = torch.arange(size, dtype=torch.float64)
    root = (2 * n + 1).sqrt()
    return -(root[:, None] * root).tril(-1) - torch.diag(n + 1), root


@lru_cache(maxsize=32)
def normal_legs(states: int) -> Normal:
    """The normal part of LegS of 2 `states` numbers, in float64 on the CPU. Cached: not to be written to."""
    with ordinary_tensors():
        A, B = legs(2 * states)
        skew = A + torch.outer(B, B) / 2 + torch.eye(2 * states, dtype=A.dtype) / 2
        values, vectors = torch.linalg.eigh(-1j * skew)
        weight = vectors[:, states:].mH @ B.to(vectors.dtype)
        turned = vectors[:, states:] * (weight / weight.abs())
        return Normal(values[states:].clone(), weight.abs(), turned)


@lru_cache(maxsize=32)
def start(name: str, states: int) -> DiagonalStart:
    """A diagonal system of so many complex states, in float64 on the CPU. Cached: not to be written to.

    `lin`, `inv`, `real` and `legs` are S4D-Lin, -Inv, -Real and -LegS (arXiv 2206.11893; N = 2S in `inv`), the last
    with HiPPO's B as in state-spaces/s4. `ptd` perturbs A of LegS and diagonalises the sum (arXiv 2310.01698): by the
    first of a fixed row of normal matrices, of spectral norm `PERTURBATION`, that leaves no eigenvalue real. The paper
    minimises the condition number of V and the perturbation instead.

    Raises:
        InputError: fewer states than `ptd` needs.
    """
    with ordinary_tensors():
        n = torch.arange(states, dtype=torch.float64)
        half, ones = torch.full_like(n, 0.5), torch.ones(states, dtype=torch.complex128)
        if name == "lin":
            return DiagonalStart(half, math.pi * n, ones)
        if name == "inv":
            size = 2 * states
            return DiagonalStart(half, size / math.pi * (size / (2 * n + 1) - 1), ones)
        if name == "real":
            return DiagonalStart(n + 1, torch.zeros_like(n), ones)
        if name == "legs":
            normal = normal_legs(states)
            return DiagonalStart(half, normal.frequency, normal.weight.to(ones.dtype))
        return _perturbed(states)


def _perturbed(states: int) -> DiagonalStart:
    if states < LEAST_PTD:
        raise InputError(f"mixer.start=ptd needs mixer.state_dim of {LEAST_PTD} and more, not {states}")
    A, B = legs(2 * states)
    generator = torch.Generator().manual_seed(0)
    for _ in range(DRAWS):
        noise = torch.randn(A.shape, generator=generator, dtype=A.dtype)
        values, vectors = torch.linalg.eig(A + PERTURBATION / torch.linalg.matrix_norm(noise, 2) * noise)
        upper = values.imag > 0
        if int(upper.sum()) == states:
            weight = torch.linalg.solve(vectors, B.to(vectors.dtype))
            return DiagonalStart(-values.real[upper], values.imag[upper], weight[upper], vectors[:, upper])
    raise InputError(f"mixer.start=ptd finds no perturbation for mixer.state_dim={states}; take another state_dim")
