import math

import pytest
import torch

from operators.lti import hippo, low_rank
from operators.testing.cases import noise
from operators.testing.checks import assert_close

WIDTH, STATES = 2, 3


def drawn(width=WIDTH, states=STATES):
    decay, frequency = noise(width, states, dtype=torch.float64).exp(), 3 * noise(width, states, dtype=torch.float64)
    P, B = (noise(width, states, 2, dtype=torch.float64, seed=seed) for seed in (5, 6))
    return low_rank.LowRank(decay, frequency, P, B, noise(width, 1, dtype=torch.float64, seed=7).exp() / 3)


def full(system):
    """Λ − P P* (D, 2S, 2S) and B on the states and their conjugates."""
    both = [torch.cat([part, part.conj()], -1) for part in map(torch.view_as_complex, (system.low_rank, system.weight))]
    diagonal = torch.complex(-system.decay, system.frequency)
    P, B = both
    return torch.diag_embed(torch.cat([diagonal, diagonal.conj()], -1)) - P[..., None] * P.conj()[..., None, :], B


def powers(A, B, C, step, length):
    """C Ā^l B̄ by the bilinear rule, complex and dense."""
    half, eye = A * (step[..., None] / 2), torch.eye(A.shape[-1], dtype=A.dtype)
    left = torch.linalg.inv(eye - half)
    x, lags = (left @ (step * B)[..., None])[..., 0], []
    for _ in range(length):
        lags.append((C * x).sum(-1))
        x = (left @ (eye + half) @ x[..., None])[..., 0]
    return torch.stack(lags, -1)


@pytest.mark.parametrize("length", [1, 2, 5, 8, 21])
def test_kernels_by_cauchy_and_woodbury_are_powers_of_the_dense_matrix(length):
    system, C = drawn(), noise(2, WIDTH, STATES, 2, dtype=torch.float64)
    A, B = full(system)
    both = torch.view_as_complex(C)
    expected = powers(A, B, torch.cat([both, both.conj()], -1), system.step, length)
    assert expected.imag.abs().max() < 1e-12
    made = low_rank.kernel(system, low_rank.attuned(system, C, length), length)
    assert_close(made, expected.real, 1e-11, "kernel")


def test_what_is_attuned_is_released_and_lengthened():
    system, C = drawn(), noise(2, WIDTH, STATES, 2, dtype=torch.float64)
    short = low_rank.attuned(system, C, 5)
    assert_close(low_rank.released(system, short, 5), C, 1e-11, "released")
    for least, expected in ((5, 5), (4, 5), (6, 10), (10, 10), (11, 20), (31, 40)):
        longer, length = low_rank.lengthened(system, short, 5, least)
        assert length == expected
        assert_close(longer, low_rank.attuned(system, C, length), 1e-11, f"for {length} tokens")


def test_the_recurrence_has_the_kernel_as_its_response():
    system, C = drawn(), noise(2, WIDTH, STATES, 2, dtype=torch.float64)
    made = low_rank.kernel(system, low_rank.attuned(system, C, 9), 9)
    unit = torch.zeros(1, 9, WIDTH, dtype=torch.float64)
    unit[:, 0] = 1
    for number in range(2):
        assert_close(low_rank.run(system, C[number], unit)[0].mT, made[number], 1e-11, "response")


def test_it_is_hippo_in_other_coordinates():
    """A readout of the Legendre coefficients is V times it in the eigenvectors of the normal part."""
    A, B = hippo.legs(2 * STATES)
    frequency, weight, vectors = hippo.normal_legs(STATES)
    row, step = noise(2 * STATES, dtype=torch.float64), torch.tensor([[0.07]]).double()
    expected = powers(A[None], B[None], row, step, 12)
    real = torch.stack([weight, torch.zeros_like(weight)], -1)[None]
    system = low_rank.LowRank(torch.full((1, STATES), 0.5).double(), frequency[None], real / math.sqrt(2), real, step)
    C = torch.view_as_real(row.to(vectors.dtype) @ vectors)[None, None]
    made = low_rank.kernel(system, low_rank.attuned(system, C, 12), 12)
    assert_close(made[0], expected, 1e-11, "kernel")
