"""Waves: the closed form against Runge-Kutta steps, its limits, and the routes against one another."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from torch import Tensor

from operators.errors import InputError
from operators.pde import propagate
from operators.pde.flows.telegraph import telegraph_response
from operators.testing.checks import assert_close, assert_differs
from tests.operators.pde.cases import coefficients, noise, tensors

ROUTES = ("fft", "compiled_fft", "reference")


def waves(field: np.ndarray | Tensor, dtype: torch.dtype = torch.float64, **given: Any) -> Tensor:
    made = {name: torch.as_tensor(v, dtype=dtype) if isinstance(v, np.ndarray) else v for name, v in given.items()}
    return propagate(torch.as_tensor(field, dtype=dtype), order=2, **made)


def stepped(s: Tensor, damping: Tensor, rate: Tensor, steps: int = 2000) -> Tensor:
    """u'' + a u' = s u from u = 1, u' = g by Runge-Kutta's fourth-order steps."""
    u, slope, h = torch.ones_like(s), rate * torch.ones_like(s), 1 / steps

    def rates(u: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        return slope, s * u - damping * slope

    for _ in range(steps):
        a = rates(u, slope)
        b = rates(u + h / 2 * a[0], slope + h / 2 * a[1])
        c = rates(u + h / 2 * b[0], slope + h / 2 * b[1])
        d = rates(u + h * c[0], slope + h * c[1])
        u, slope = (
            x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4) for x, k1, k2, k3, k4 in zip((u, slope), a, b, c, d, strict=True)
        )
    return u


REGIMES = {
    "undamped": (-3.0, 0.0, 0.0),
    "nothing happens": (0.0, 0.0, 0.0),
    "under": (-100.0, 1.0, 0.3),
    "critical": (-1.0, 0.0, 2.0),
    "beside critical": (-1.0 + 1e-9, 1e-10, 2.0),
    "over": (-0.5, 0.1, 20.0),
    "at the edge of the series": (0.0, 0.0, 2.0),
}
"""Real and imaginary part of s, and a."""


def leaves() -> tuple[Tensor, Tensor, Tensor]:
    real, imaginary, damping = torch.tensor(list(REGIMES.values()), dtype=torch.float64).unbind(1)
    return torch.complex(real, imaginary), damping, torch.linspace(-1, 1, len(real), dtype=torch.float64)


def test_the_closed_form_is_the_solution_at_every_damping() -> None:
    s, damping, rate = leaves()
    found, expected = telegraph_response(s, damping, rate), stepped(s, damping, rate)
    for name, value, other in zip(REGIMES, found, expected, strict=True):
        assert abs(value - other) < 1e-9, name


def test_its_derivatives_are_smooth_across_critical_damping() -> None:
    given = tuple(leaf.requires_grad_() for leaf in leaves())
    assert torch.autograd.gradcheck(telegraph_response, given)
    assert torch.autograd.gradgradcheck(telegraph_response, given)


def test_the_series_and_the_closed_form_meet() -> None:
    z = torch.polar(torch.tensor([[1 - 1e-12], [1 + 1e-12]], dtype=torch.float64), torch.linspace(0, 6, 9).double())
    inside, outside = telegraph_response(z - 1, torch.tensor(2.0).double(), torch.tensor(0.7).double())
    assert_close(inside, outside, 1e-11, "response on either side")


def test_single_precision_from_no_damping_to_a_strong_one() -> None:
    damping = torch.cat([torch.zeros(1), torch.logspace(-3, 6, 40)]).double()[:, None]
    s = torch.complex(-(torch.linspace(0, 30, 200).double() ** 2), torch.zeros(200, dtype=torch.float64)).expand(
        41, 200
    )
    exact = telegraph_response(s, damping, None)
    single = telegraph_response(s.to(torch.complex64), damping.float(), None)
    assert (single.to(exact) - exact).abs().max() < 1e-5
    assert exact.abs().max() <= 1 + 1e-12


# ---------------------------------------------------------------- what waves do


@pytest.mark.parametrize("grid", [(3, 8), (2, 9)], ids=str)
@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
def test_an_undamped_wave_in_one_dimension_is_the_mean_of_two_shifts(boundary: str, grid: tuple[int, int]) -> None:
    """D'Alembert's solution; between edges that reflect, of the even extension."""
    line = np.broadcast_to(noise(1, 1, grid[1]), (1, *grid)).copy()
    y = waves(line, diffusion=np.array([9.0]), boundary=boundary)
    wide = line if boundary == "periodic" else np.concatenate([line, line[..., ::-1]], -1)
    expected = (np.roll(wide, 3, -1) + np.roll(wide, -3, -1))[..., : grid[1]] / 2
    assert_close(y, expected, 1e-11, "two shifts")


def test_with_strong_damping_it_is_the_equation_of_first_order() -> None:
    field, chosen = noise(2, 5, 6), coefficients((5, 6), tensor="full")
    expected = propagate(torch.as_tensor(field), **tensors(chosen))
    errors = []
    for damping in (1e3, 1e4):
        scaled = {name: value * damping for name, value in chosen.items()}
        y = waves(field, **scaled, damping=np.full(2, damping))
        errors.append((y - expected).abs().max().item())
    assert errors[1] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)


def test_without_distortion_the_wave_only_fades() -> None:
    """r = -a²/4 and a start at the rate -a/2 (Heaviside)."""
    field, damping = noise(2, 5, 6), np.array([0.8, 3.0])
    given = {"diffusion": np.array([0.4, 2.0])}
    y = waves(field, **given, damping=damping, reaction=-(damping**2) / 4, initial_velocity=-damping / 2)
    assert_close(y, np.exp(-damping / 2)[:, None, None] * waves(field, **given).numpy(), 1e-12, "faded wave")


def test_energy_falls_and_stays_without_damping() -> None:
    """½ Σ |u_t|² + (k·K k − r) |u|² over modes, with u_t by differences in time; the grid is odd."""
    field, h = noise(1, 5, 7), 1e-4
    chosen = {"diffusion": np.array([0.7]), "reaction": np.array([-0.3]), "initial_velocity": np.array([0.5])}
    ky, kx = (2 * np.pi * np.fft.fftfreq(n) for n in (5, 7))
    stiffness = 0.7 * (ky[:, None] ** 2 + kx**2) + 0.3

    def energy(time: float, damping: float) -> float:
        later, now, earlier = (
            np.fft.fft2(waves(field, **chosen, damping=np.array([damping]), time=time + s).numpy()) for s in (h, 0, -h)
        )
        return float((np.abs((later - earlier) / (2 * h)) ** 2 + stiffness * np.abs(now) ** 2).sum())

    damped = [energy(time, 0.6) for time in (0.5, 1.0, 2.0, 4.0)]
    assert all(after < before for before, after in pairwise(damped))
    assert energy(0.5, 0.0) == pytest.approx(energy(3.0, 0.0), rel=1e-6)


@pytest.mark.parametrize(("share", "grows"), [(0.99, False), (1.2, True)])
def test_a_drift_faster_than_the_waves_makes_them_grow(share: float, grows: bool) -> None:
    """The bound is |v| = a c."""
    damping, speed = 2.0, 0.5
    given = {"diffusion": np.array([speed**2]), "velocity": np.array([[0.0, share * damping * speed]])}
    late = waves(noise(1, 5, 9), **given, damping=np.array([damping]), time=400.0)
    assert (late.std().item() > 1) == grows


def test_insulated_waves_are_a_cosine_series() -> None:
    field = noise(2, 5, 6)
    spread, damping = np.array([[0.3, 0.1], [4.0, 9.0]]), np.array([0.5, 30.0])
    y, x = (np.pi * np.arange(n) / n for n in (5, 6))
    symbol = -(spread[:, 0, None, None] * y[:, None] ** 2 + spread[:, 1, None, None] * x**2)
    s = torch.as_tensor(symbol).to(torch.complex128)
    gain = stepped(s, torch.as_tensor(damping)[:, None, None], torch.zeros(1).double()).real.numpy()
    expected = idctn(gain * dctn(field, type=2, axes=(1, 2)), type=2, axes=(1, 2))
    found = waves(field, diffusion=spread, damping=damping, boundary="neumann")
    assert_close(found, expected, 1e-9, "cosine series")


def test_mass_moves_as_a_damped_point() -> None:
    field, damping, rate = noise(1, 5, 6), 1.7, 0.4
    y = waves(field, diffusion=np.array([0.6]), damping=np.array([damping]), initial_velocity=np.array([rate]))
    assert y.sum().item() == pytest.approx(field.sum() * (1 + rate * (1 - np.exp(-damping)) / damping), rel=1e-12)


@pytest.mark.parametrize("grid", [(5, 7), (4, 6)], ids=str)
def test_the_adjoint_turns_the_velocity(grid: tuple[int, int]) -> None:
    chosen = coefficients(grid, tensor="full") | {"damping": np.array([0.7, 2.0])}
    f, g = noise(2, *grid, seed=1), noise(2, *grid, seed=2)
    ahead = (waves(f, **chosen) * torch.as_tensor(g)).sum((-2, -1))
    back = (torch.as_tensor(f) * waves(g, **chosen | {"velocity": -chosen["velocity"]})).sum((-2, -1))
    assert_close(ahead, back, 1e-11, "adjoint")


@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
def test_waves_of_equal_speed_know_no_direction(boundary: str) -> None:
    field, given = noise(1, 5, 5), {"diffusion": np.array([0.9]), "damping": np.array([0.4]), "boundary": boundary}
    y = waves(field, **given).numpy()
    for turn in (lambda f: np.flip(f, -1), lambda f: np.swapaxes(f, -2, -1), lambda f: np.rot90(f, axes=(-2, -1))):
        assert_close(waves(turn(field).copy(), **given), turn(y).copy(), 1e-12, "turned")


@pytest.mark.parametrize("grid", [(5, 7), (4, 6)], ids=str)
def test_wrapped_shifts_and_sums_commute_with_waves(grid: tuple[int, int]) -> None:
    given = coefficients(grid, tensor="full") | {"damping": np.array([0.7, 2.0])}
    f, g = noise(2, *grid, seed=1), noise(2, *grid, seed=2)
    assert_close(waves(np.roll(f, (1, 2), (1, 2)), **given), waves(f, **given).roll((1, 2), (1, 2)), 1e-12, "shifted")
    assert_close(waves(2 * f - 3 * g, **given), 2 * waves(f, **given) - 3 * waves(g, **given), 1e-12, "sum")


def test_a_wave_goes_on_from_its_value_and_its_rate_of_change_together() -> None:
    """Over two times one after the other; its value alone is not enough."""
    field, chosen, h = noise(1, 5, 7), {"diffusion": np.array([0.7]), "damping": np.array([0.6])}, 1e-4
    at, later = 0.8, 1.1
    value, whole = waves(field, **chosen, time=at), waves(field, **chosen, time=at + later)
    rate = (waves(field, **chosen, time=at + h) - waves(field, **chosen, time=at - h)) / (2 * h)
    # A wave that starts as f at the rate g f is C f + g S f: with g = 0 it is C f, and S f is what g = 1 adds.
    still = waves(value, **chosen, time=later)
    pushed = waves(rate, **chosen, time=later, initial_velocity=np.array([1.0])) - waves(rate, **chosen, time=later)
    assert_close(still + pushed, whole, 1e-8, "value and rate")
    assert_differs(still, whole, 0.1, "value alone")


def test_time_scales_the_coefficients() -> None:
    field, chosen = noise(2, 4, 6), coefficients((4, 6), tensor="full")
    first = {"damping": np.array([0.7, 2.0]), "initial_velocity": np.array([0.2, -1.0])}
    chosen["velocity"] = chosen["velocity"] / 10
    scaled = {name: 4 * value for name, value in chosen.items()} | {name: 2 * value for name, value in first.items()}
    assert_close(waves(field, **chosen, **first, time=2.0), waves(field, **scaled), 1e-12, "two units of time")
    assert_close(waves(field, **chosen, **first, time=0), field, 1e-12, "no time")


def test_a_reaction_alone_swings() -> None:
    y = waves(noise(1, 2, 3), reaction=np.array([-4.0]))
    assert_close(y, np.cos(2.0) * noise(1, 2, 3), 1e-12, "pendulum")


# ---------------------------------------------------------------- routes and refusals


@pytest.mark.parametrize("boundary", ["periodic", "neumann", ("dirichlet", "periodic")], ids=str)
@pytest.mark.parametrize("tensor", ["diagonal", "full"])
def test_routes_agree_with_all_gradients(tensor: str, boundary: Any) -> None:
    made = tensors(coefficients((4, 5), tensor=tensor))
    made |= {"damping": torch.tensor([0.3, 6.0]).double(), "initial_velocity": torch.tensor([0.5, -1.0]).double()}
    made = {
        name: value.requires_grad_() for name, value in ({"field": torch.as_tensor(noise(2, 2, 4, 5))} | made).items()
    }
    gradient, results = torch.as_tensor(noise(2, 2, 4, 5, seed=1)), {}
    for method in ROUTES:
        y = propagate(**made, order=2, boundary=boundary, method=method)
        results[method] = [y.detach(), *torch.autograd.grad(y, list(made.values()), gradient)]
    for method in ROUTES[:2]:
        for name, value, expected in zip(["output", *made], results[method], results["reference"], strict=True):
            assert_close(value, expected, 1e-9, f"{name} of {method}")
    first = {name: value for name, value in made.items() if name not in ("damping", "initial_velocity")}
    assert_differs(results["fft"][0], propagate(**first, boundary=boundary).detach(), 0.01, "first order")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"order": 3}, "order=3 is not known: allowed are 1, 2"),
        ({"order": 2, "forcing": "constant"}, "order=2 needs forcing='initial', not 'constant'"),
        ({"order": 2, "boundary": "absorbing"}, "boundary=absorbing needs order=1; use boundary=periodic"),
        ({"order": 2, "boundary": ["neumann", "absorbing"]}, r"boundary=\[neumann, absorbing\] needs order=1"),
        ({"order": 2, "method": "separable"}, "method=separable needs order=1: waves .*; use method=fft"),
        ({"damping": torch.ones(1)}, "damping belongs to equations of second order in time: give order=2"),
        ({"initial_velocity": torch.ones(1)}, "initial_velocity belongs to equations of second order"),
        ({"order": 2, "damping": torch.ones(2)}, r"damping has shape \(2,\)"),
    ],
    ids=str,
)
def test_refusals(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        propagate(torch.ones(1, 3, 4), diffusion=torch.ones(1), **given)
    assert "\n" not in str(caught.value)
