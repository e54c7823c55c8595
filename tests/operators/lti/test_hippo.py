import math

import pytest
import torch

from operators import InputError
from operators.lti import hippo
from operators.testing.checks import assert_close, assert_differs


def whole(half):
    """Both of each conjugate pair, along the last axis."""
    return torch.cat([half, half.conj()], -1)


def transfer(A, B, C, frequencies):
    """C (iω − A)⁻¹ B."""
    eye = torch.eye(len(A), dtype=torch.complex128)
    solved = torch.linalg.solve(1j * frequencies[:, None, None] * eye - A, B.to(eye.dtype))
    return solved @ C.to(eye.dtype)


def test_the_matrix_is_that_of_scaled_legendre_polynomials():
    A, B = hippo.legs(3)
    expected = [[-1, 0, 0], [-math.sqrt(3), -2, 0], [-math.sqrt(5), -math.sqrt(15), -3]]
    assert_close(A, torch.tensor(expected, dtype=A.dtype), 1e-15, "A")
    assert_close(B, torch.tensor([1, math.sqrt(3), math.sqrt(5)], dtype=B.dtype), 1e-15, "B")


@pytest.mark.parametrize("states", [1, 2, 7, 32])
def test_it_is_normal_up_to_rank_one(states):
    """V (Λ − P P*) V* = A with V*B and V*P real, eigenvalues on one line."""
    A, B = hippo.legs(2 * states)
    frequency, weight, vectors = hippo.normal_legs(states)
    V, P = whole(vectors), whole(weight / math.sqrt(2))
    assert_close(V.mH @ V, torch.eye(2 * states, dtype=V.dtype), 1e-12, "V*V")
    low_rank = torch.diag(whole(-0.5 + 1j * frequency)) - torch.outer(P, P).to(V.dtype)
    assert_close(V @ low_rank @ V.mH, A.to(V.dtype), 1e-12, "A")
    assert_close(V @ whole(weight).to(V.dtype), B.to(V.dtype), 1e-12, "B")
    assert (frequency > 0).all()
    assert (frequency.diff() > 0).all()
    assert (weight > 0).all()


def test_diagonal_starts_are_those_of_the_paper():
    n = torch.arange(4, dtype=torch.float64)
    assert_close(hippo.start("lin", 4).frequency, math.pi * n, 1e-15, "lin")
    inverse = torch.tensor([8 / math.pi * (8 / (2 * k + 1) - 1) for k in range(4)], dtype=n.dtype)
    assert_close(hippo.start("inv", 4).frequency, inverse, 1e-15, "inv")
    assert_close(hippo.start("real", 4).decay, n + 1, 1e-15, "real")
    assert hippo.start("real", 4).frequency.count_nonzero() == 0
    for name in ("lin", "inv", "legs"):
        assert (hippo.start(name, 4).decay == 0.5).all()
    assert_close(hippo.start("legs", 4).weight.real, hippo.normal_legs(4).weight, 1e-15, "B of legs")


def test_perturb_then_diagonalise():
    """A + E = V Λ V⁻¹ with E of the norm that was asked for, and V far better conditioned than that of A."""
    states = 16
    A, B = hippo.legs(2 * states)
    decay, frequency, weight, vectors = hippo.start("ptd", states)
    V = whole(vectors)
    perturbed = V @ torch.diag(whole(-decay + 1j * frequency)) @ torch.linalg.inv(V)
    assert_close(torch.linalg.matrix_norm(perturbed - A, 2), torch.tensor(hippo.PERTURBATION).double(), 1e-6, "size")
    assert perturbed.imag.abs().max() < 1e-8
    assert_close(V @ whole(weight), B.to(V.dtype), 1e-8, "B")
    assert (decay > 0).all()
    condition = torch.linalg.cond(torch.linalg.eig(A).eigenvectors)
    assert condition > 1e6 * torch.linalg.cond(V)


def test_a_smaller_perturbation_is_nearer_to_hippo_where_the_normal_part_alone_is_not(monkeypatch):
    states, frequencies = 4, torch.linspace(0, 40, 50, dtype=torch.float64)
    A, B = hippo.legs(2 * states)
    C = torch.linspace(-1, 1, 2 * states, dtype=torch.float64)
    exact, errors = transfer(A, B, C, frequencies), []

    def response(start, vectors):
        poles = 1j * frequencies[:, None] - whole(-start.decay + 1j * start.frequency)
        return ((C.to(poles.dtype) @ vectors) * whole(start.weight) / poles).sum(-1)

    for size in (1e-1, 1e-3):
        monkeypatch.setattr(hippo, "PERTURBATION", size)
        start = hippo._perturbed(states) if size == 1e-1 else None
        if start is None:  # so small a one leaves eigenvalues real: diagonalised whole
            noise = torch.randn(A.shape, generator=torch.Generator().manual_seed(1), dtype=A.dtype)
            values, vectors = torch.linalg.eig(A + size / torch.linalg.matrix_norm(noise, 2) * noise)
            weight = torch.linalg.solve(vectors, B.to(vectors.dtype))
            made = ((C.to(weight.dtype) @ vectors) * weight / (1j * frequencies[:, None] - values)).sum(-1)
        else:
            made = response(start, whole(start.vectors))
        errors.append((made - exact).abs().max() / exact.abs().max())
    assert errors[1] < 2e-2 * errors[0]
    normal = response(hippo.start("legs", states), whole(hippo.normal_legs(states).vectors))
    assert_differs(normal, exact, 0.3, "of the normal part")
    assert errors[0] < 0.3


@pytest.mark.parametrize("states", [1, 3])
def test_few_states_cannot_be_perturbed(states):
    with pytest.raises(InputError, match=r"mixer\.start=ptd needs mixer\.state_dim of 4 and more"):
        hippo.start("ptd", states)
