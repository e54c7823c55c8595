"""The mixer `pde_ssm` of second order in time, and with reactions that are not linear."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import operators
from operators import BARE, InputError
from operators.mixers.equations.coefficients import MOST_RATE, reaction_rate
from operators.mixers.equations.pde_ssm import PdeSsm
from operators.pde import propagate
from operators.pde.flows.reaction import react, strang
from operators.testing.cases import COND, noise, run, run_with_gradients
from operators.testing.checks import assert_close, assert_finite
from operators.testing.counter import count_macs

GRID = (3, 5)


def make(seed: int = 0, kick: float = 0.3, **params: Any) -> operators.Mixer:
    torch.manual_seed(seed)
    mixer = operators.create(
        "pde_ssm", 4, grid=GRID, cond_dim=COND, shell=BARE, groups=2, **{"state": 2, **params}
    ).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(kick * torch.randn_like(parameter))
    return mixer


def core(mixer: operators.Mixer) -> PdeSsm:
    assert isinstance(mixer.core, PdeSsm)
    return mixer.core


def tensor_of(coefficients: Any, state: int) -> Tensor:
    c = coefficients
    kxy = torch.zeros_like(c.kyy) if c.kxy is None else c.kxy
    return torch.stack([torch.stack([c.kyy, kxy], -1), torch.stack([kxy, c.kxx], -1)], -2)[:, state]


def agree(options: dict[str, Any], methods: list[str]) -> None:
    x, results = noise(2, *GRID, 4, dtype=torch.float64), {}
    for method in methods:
        mixer = make(method=method, **options)
        results[method] = run_with_gradients(mixer, x)
        assert mixer.backend == method
    y, gradients = results["reference"]
    for method in methods:
        assert_close(results[method][0], y, 1e-9, f"output of {method} with {options}")
        for name, gradient in gradients.items():
            found = results[method][1][name]
            assert gradient is not None
            assert found is not None
            assert_close(found, gradient, 1e-8, f"gradient of {name} of {method} with {options}")


# ---------------------------------------------------------------- waves


@pytest.mark.parametrize(
    "options",
    [
        {"initial_velocity": "learned", "tensor": "full", "boundary": "neumann"},
        {"initial_velocity": "decay", "terms": ["diffusion"], "tensor": "isotropic"},
        {"condition": "cond", "initial_velocity": "learned"},
    ],
    ids=str,
)
def test_waves_are_the_same_on_every_route(options: dict[str, Any]) -> None:
    agree({"order": 2, **options}, ["fft", "reference", *(["compiled_fft"] if "condition" not in options else [])])


def test_waves_are_a_weighted_sum_of_propagated_states() -> None:
    mixer, x = make(order=2, initial_velocity="learned", tensor="full"), noise(2, *GRID, 4, dtype=torch.float64)
    own, field = core(mixer), noise(2, *GRID, 4, dtype=torch.float64).permute(0, 3, 1, 2)
    c = own.solve_coefficients(x, None)
    assert c.vy is not None
    assert c.r is not None
    assert c.damping is not None
    assert c.initial_velocity is not None
    expected = own.skip * x
    for s in range(2):
        y = propagate(
            field, diffusion=tensor_of(c, s), velocity=torch.stack([c.vy, c.vx], -1)[:, s], reaction=c.r[:, s],
            damping=c.damping[:, s], initial_velocity=c.initial_velocity[:, s], order=2, units="image",
        )  # fmt: skip
        expected = expected + own.readout[:, s] * y.permute(0, 2, 3, 1)
    assert_close(run(mixer, x), expected.detach(), 1e-11, "weighted sum of states")


@pytest.mark.parametrize("tensor", ["isotropic", "diagonal", "full"])
def test_no_parameters_make_a_wave_grow(tensor: str) -> None:
    """v·K⁻¹v <= a², whatever the raw numbers are."""
    c = core(make(order=2, tensor=tensor, kick=2.0)).solve_coefficients(torch.zeros(1, *GRID, 4).double(), None)
    assert c.damping is not None
    for s in range(2):
        v = torch.stack([c.vy, c.vx], -1)[:, s, :, None]  # type: ignore[list-item]
        reach = (v.mT @ torch.linalg.solve(tensor_of(c, s), v)).flatten()
        assert (reach < c.damping[:, s] ** 2).all()
        assert (reach > 1e-4 * c.damping[:, s] ** 2).any()


def test_waves_start_between_a_pixel_and_half_the_image() -> None:
    torch.manual_seed(0)
    own = core(operators.create("pde_ssm", 256, grid=(16, 16), order=2, tensor="isotropic"))
    c = own.solve_coefficients(torch.zeros(1, 16, 16, 256), None)
    assert c.kyy is not None
    assert c.damping is not None
    pixels = c.kyy.detach().sqrt() * 16
    assert 1 <= pixels.min() < 1.01
    assert 7.9 < pixels.max() <= 8.0001
    assert 0.1 <= c.damping.min() < 0.11
    assert 9 < c.damping.max() <= 10
    assert c.vy is not None
    assert not c.vy.any()


# ---------------------------------------------------------------- reactions that are not linear


@pytest.mark.parametrize(
    "options",
    [
        {"nonlinearity": "allen_cahn", "steps": 2},
        {"nonlinearity": "logistic", "boundary": ["neumann", "periodic"]},
        {"nonlinearity": "allen_cahn", "condition": "cond", "steps": 2},
    ],
    ids=str,
)
def test_reactions_are_the_same_on_every_route(options: dict[str, Any]) -> None:
    compiled = [] if "condition" in options else ["compiled", "compiled_fft"]
    agree(options, ["fft", "separable", "reference", *compiled])


@pytest.mark.parametrize("nonlinearity", ["logistic", "allen_cahn"])
def test_reactions_are_a_weighted_sum_of_split_states(nonlinearity: str) -> None:
    mixer, x = make(nonlinearity=nonlinearity, steps=3), noise(2, *GRID, 4, dtype=torch.float64)
    own, field = core(mixer), x.permute(0, 3, 1, 2)
    raw = own.raw_coefficients(x, None)
    c, rate = own.solve_coefficients(x, None), reaction_rate(raw)
    assert c.vy is not None
    assert c.r is not None
    expected = own.skip * x
    for s in range(2):
        given = {
            "diffusion": tensor_of(c, s), "velocity": torch.stack([c.vy, c.vx], -1)[:, s], "reaction": c.r[:, s],
            "units": "image",
        }  # fmt: skip
        half, whole = (partial(propagate, **given, time=1 / (parts * 3)) for parts in (2, 1))
        flow = partial(react, rate=rate[:, s, None, None] / 3, nonlinearity=nonlinearity)
        begin = field.sigmoid() if nonlinearity == "logistic" else field
        expected = expected + own.readout[:, s] * strang(begin, 3, half, whole, flow).permute(0, 2, 3, 1)
    assert_close(run(mixer, x), expected.detach(), 1e-11, "weighted sum of states")


def test_without_spatial_terms_it_is_the_flow_of_each_token() -> None:
    mixer, x = make(nonlinearity="allen_cahn", terms=[], steps=2), noise(2, *GRID, 4, dtype=torch.float64)
    own = core(mixer)
    rate = reaction_rate(own.raw_coefficients(x, None))
    expected = own.skip * x + sum(own.readout[:, s] * react(x, rate[:, s], "allen_cahn") for s in range(2))
    assert mixer.backend == "pointwise"
    assert_close(run(mixer, x), expected.detach(), 1e-12, "flow")


@pytest.mark.parametrize("nonlinearity", ["logistic", "allen_cahn"])
def test_no_input_makes_a_reaction_overflow(nonlinearity: str) -> None:
    mixer = make(nonlinearity=nonlinearity, steps=2).float()
    x = noise(2, *GRID, 4)
    for size in (0.0, 1e-20, 1e4, 1e15):
        y, gradients = run_with_gradients(mixer, size * x)
        assert_finite(y, f"output for {size:g}")
        for name, gradient in gradients.items():
            assert gradient is not None
            assert_finite(gradient, f"gradient of {name} for {size:g}")
    with torch.no_grad():
        core(mixer).rate_logit.fill_(1e4)
    assert reaction_rate(core(mixer).raw_coefficients(x, None)).max() <= MOST_RATE


@pytest.mark.parametrize("condition", ["none", "input"])
def test_what_is_kept_and_what_it_costs(condition: str) -> None:
    mixer = make(nonlinearity="allen_cahn", steps=2, method="fft", condition=condition)
    x = noise(8, *GRID, 4, dtype=torch.float64)
    first = run(mixer, x)
    assert torch.equal(run(mixer, x), first)
    assert_close(mixer(x).detach(), first, 1e-13, "with gradients")
    more, fewer = (
        count_macs(run, make(nonlinearity="allen_cahn", steps=2, method="fft", condition=condition), x[:batch])
        for batch in (3, 2)
    )
    assert mixer.cost(*GRID).macs == pytest.approx(more - fewer, abs=1)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"order": 3}, "pde.order=3 is not known: allowed are 1, 2"),
        ({"order": 2, "initial_velocity": "free"}, "pde.initial_velocity='free' is not known"),
        ({"initial_velocity": "decay"}, "pde.initial_velocity=decay needs pde.order=2"),
        ({"order": 2, "forcing": "steady"}, "pde.order=2 needs pde.forcing=initial, not steady"),
        ({"order": 2, "terms": ["reaction"]}, "pde.order=2 has nothing that waves travel by: add diffusion"),
        ({"order": 2, "boundary": "absorbing"}, "pde.boundary=absorbing needs order=1"),
        ({"order": 2, "method": "compiled"}, "pde.method=compiled needs order=1"),
        ({"order": 2, "nonlinearity": "logistic"}, "pde.nonlinearity=logistic needs pde.order=1"),
        ({"nonlinearity": "alen_cahn"}, "did you mean 'allen_cahn'"),
        ({"nonlinearity": "logistic", "forcing": "constant"}, "pde.nonlinearity=logistic needs pde.forcing=initial"),
        ({"steps": 2}, "pde.steps=2 splits no reaction off: set pde.nonlinearity"),
        ({"nonlinearity": "logistic", "steps": 0}, "pde.steps=0 must be an integer >= 1"),
        ({"coefficients": {"damping": "fixed"}}, "no 'damping'"),
    ],
    ids=str,
)
def test_refusals(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        operators.create("pde_ssm", 4, grid=GRID, **params)
    assert "\n" not in str(caught.value)


def test_damping_and_rate_are_fixed_by_name() -> None:
    waves = make(order=2, coefficients={"damping": "fixed"}, initial_velocity="learned")
    assert {name for name, _ in waves.core.named_buffers()} == {"log_damping"}
    assert waves.inspect(noise(1, *GRID, 4, dtype=torch.float64))["damping"].shape == (4, 2, 1)
    reacting = make(nonlinearity="logistic", coefficients={"nonlinearity": "fixed"})
    assert {name for name, _ in reacting.core.named_buffers()} == {"rate_logit"}
