"""Reactions that are not linear: their flows against Runge-Kutta steps, and Strang's splitting against finer steps."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from operators.pde import propagate
from operators.pde.flows.reaction import react, strang
from operators.testing.checks import assert_close, assert_finite

KINDS = {"logistic": lambda u: u * (1 - u), "allen_cahn": lambda u: u - u**3}

kinds = pytest.mark.parametrize("kind", KINDS)


def start(kind: str, *shape: int) -> Tensor:
    u = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return u if kind == "logistic" else 5 * u - 2


@kinds
def test_the_flow_solves_its_equation(kind: str) -> None:
    u, rate, h = start(kind, 50), torch.linspace(0, 3, 50, dtype=torch.float64), 1 / 500
    stepped = u
    for _ in range(500):
        a = rate * KINDS[kind](stepped)
        b = rate * KINDS[kind](stepped + h / 2 * a)
        c = rate * KINDS[kind](stepped + h / 2 * b)
        d = rate * KINDS[kind](stepped + h * c)
        stepped = stepped + h / 6 * (a + 2 * b + 2 * c + d)
    assert_close(react(u, rate, kind), stepped, 1e-8, "flow")
    assert_close(react(react(u, 0.3 * rate, kind), 0.7 * rate, kind), react(u, rate, kind), 1e-13, "semigroup")
    assert_close(react(u, torch.zeros(1).double(), kind), u, 1e-15, "no time")


@kinds
def test_gradients_of_the_flow(kind: str) -> None:
    u, rate = start(kind, 6).requires_grad_(), torch.rand(6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(partial(react, nonlinearity=kind), (u, rate))


@kinds
def test_ends_stay_where_they_are_and_nothing_is_too_large(kind: str) -> None:
    rate = torch.tensor([0.0, 1e-6, 8.0])[:, None]
    u = torch.tensor([-1e30, -1.0, -1e-30, 0.0, 1e-30, 0.5, 1.0, 1e30]).expand(3, -1).clone().requires_grad_()
    y = react(u, rate, kind)
    (gradient,) = torch.autograd.grad(y.sum(), u)
    assert_finite(y, "flow")
    assert_finite(gradient, "gradient of the flow")
    assert torch.equal(y[:, [3, 6]], u.detach()[:, [3, 6]])
    if kind == "logistic":
        assert y.min() >= 0
        assert y.max() <= 1
    else:
        assert torch.equal(react(-u, rate, kind), -y)
        assert y[2, [0, -1]].abs().max() < 1.001, "drawn to 1 from afar"


def split(kind: str, u: Tensor, steps: int, rate: Tensor) -> Tensor:
    given = {"diffusion": torch.tensor([0.6]).double(), "velocity": torch.tensor([[0.4, -0.2]]).double()}
    half, whole = (partial(propagate, **given, time=1 / (parts * steps), method="fft") for parts in (2, 1))
    return strang(u, steps, half, whole, partial(react, rate=rate / steps, nonlinearity=kind))


@kinds
def test_the_splitting_errs_by_the_square_of_a_step(kind: str) -> None:
    # Smooth and well within the range, so that the band-limited propagator stays there.
    place = torch.arange(8, dtype=torch.float64) * (2 * torch.pi / 8)
    u = 0.5 + 0.3 * (place[:, None] + 0.4).cos() * (place - 0.2).sin()[None]
    u, rate = u[None], torch.tensor(2.0).double()
    exact = split(kind, u, 256, rate)
    errors = [(split(kind, u, steps, rate) - exact).abs().max().item() for steps in (2, 4, 8)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.05)
    assert 1e-6 < errors[2] < 1e-3


@kinds
def test_on_a_constant_image_and_without_a_reaction_it_is_exact(kind: str) -> None:
    u, rate = torch.full((1, 4, 5), 0.3, dtype=torch.float64), torch.tensor(1.3).double()
    for steps in (1, 3):
        assert_close(split(kind, u, steps, rate), react(u, rate, kind), 1e-13, "constant image")
    # Close to the middle of the range, so that no ringing leaves it.
    # An odd grid: what moves by parts of a pixel loses its Nyquist wave step by step.
    field = 0.5 + 0.05 * start(kind, 1, 3, 5)
    zero = torch.zeros(()).double()
    assert_close(split(kind, field, 3, zero), split(kind, field, 1, zero), 1e-13, "no reaction")


def test_halves_that_meet_are_one_whole() -> None:
    calls: list[str] = []

    def note(name: str, u: Tensor) -> Tensor:
        calls.append(name)
        return u

    strang(torch.ones(1), 3, *(partial(note, name) for name in ("half", "whole", "flow")))
    assert calls == ["half", "flow", "whole", "flow", "whole", "flow", "half"]
