"""The table of routes: every row equals the reference, `auto` takes none that refuses, and refusals say what serves."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import operators
from operators import BARE, InputError
from operators.pde import propagate
from operators.pde.boundary import BOUNDARIES
from operators.pde.choice import FORCINGS, METHODS, NAMED, REFUSALS, Call, choose, named
from operators.pde.routes import ROUTES
from operators.pde.symbols import Coefficients
from operators.testing.checks import assert_close

CHANNELS, STATES, GROUPS = 4, 2, 2
GRID = (3, 4)
CALLS = st.builds(
    Call,
    boundary=st.sampled_from(BOUNDARIES),
    forcing=st.sampled_from(FORCINGS),
    spatial=st.booleans(),
    full=st.booleans(),
    states=st.integers(1, 8),
    conditioned=st.booleans(),
    channels_last=st.booleans(),
    device=st.sampled_from(["cpu", "cuda", "meta"]),
    grid=st.tuples(st.integers(1, 130), st.integers(1, 130)),
    differentiated=st.booleans(),
)


def test_every_route_has_a_row_in_both_tables() -> None:
    assert list(ROUTES) == list(REFUSALS)
    assert {name: route.refusal for name, route in ROUTES.items()} == REFUSALS
    assert set(NAMED) == set(operators.describe("pde_ssm").backends) == set(ROUTES) - {"pointwise"}


def problem(call: Call) -> dict[str, Tensor]:
    """Leaves of a call: coefficients, weight, skip and a field, in float64."""
    torch.manual_seed(0)
    images = (2,) if call.conditioned else ()
    groups = GROUPS if call.conditioned else CHANNELS
    shape = (*images, groups, STATES if call.channels_last else 1)
    made = {"r": -0.2 - torch.rand(shape)}
    if call.spatial:
        made |= {name: 0.2 + torch.rand(shape) for name in ("kyy", "kxx")}
        made |= {name: torch.randn(shape) for name in ("vy", "vx")}
    if call.full:
        made["kxy"] = 0.3 * (made["kyy"] * made["kxx"]).sqrt()
    made["weight"] = torch.randn(groups, CHANNELS // groups, shape[-1]) if call.channels_last else torch.ones(4, 1, 1)
    made["skip"] = torch.randn(CHANNELS)
    made["field"] = torch.randn(2, *GRID, CHANNELS) if call.channels_last else torch.randn(2, CHANNELS, *GRID)
    return {name: value.double().requires_grad_() for name, value in made.items()}


def solved(name: str, call: Call) -> dict[str, Tensor]:
    """Output and every gradient of a route."""
    leaves = problem(call)
    wanted = [key for key in leaves if call.channels_last or key not in ("skip", "weight")]
    coefficients = Coefficients(**{key: leaves[key] for key in leaves if key not in ("weight", "skip", "field")})
    skip = leaves["skip"] if call.channels_last else None
    prepared = ROUTES[name].prepare(call, coefficients, leaves["weight"], skip)
    y = ROUTES[name].solve(call, prepared, leaves["field"])
    gradients = torch.autograd.grad(y, [leaves[key] for key in wanted], torch.randn(y.shape, dtype=y.dtype))
    return {"output": y.detach()} | {f"d {key}": value for key, value in zip(wanted, gradients, strict=True)}


@pytest.mark.parametrize("name", [name for name in ROUTES if name != "reference"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_every_route_equals_the_reference_wherever_it_serves(name: str, boundary: str) -> None:
    served = 0
    for full, conditioned, channels_last, forcing in itertools.product(*[[False, True]] * 3, FORCINGS):
        call = Call(
            boundary=boundary, forcing=forcing, spatial=name != "pointwise", full=full and name != "pointwise",
            states=STATES if channels_last else 1, conditioned=conditioned, channels_last=channels_last, grid=GRID,
        )  # fmt: skip
        # Fields with channels first have coefficients for all images.
        if ROUTES[name].refusal(call) is None and (channels_last or not conditioned):
            served += 1
            expected = solved("reference", call)
            for quantity, value in solved(name, call).items():
                assert_close(value, expected[quantity], 1e-9, f"{quantity} of {name} for {call}")
    assert served >= 2, f"{name} serves next to nothing"


@given(CALLS)
@settings(deadline=None)
def test_auto_takes_no_route_that_refuses(call: Call) -> None:
    assert REFUSALS[choose("auto", call, "method")](call) is None


@given(CALLS, st.sampled_from(NAMED))
@settings(deadline=None)
def test_a_route_that_is_named_serves_or_is_refused_with_those_that_do(call: Call, name: str) -> None:
    reason = REFUSALS[name](call)
    if not call.spatial:
        assert choose(name, call, "pde.method") == "pointwise"
    elif reason is None:
        assert choose(name, call, "pde.method") == name
    else:
        with pytest.raises(InputError) as caught:
            choose(name, call, "pde.method")
        message = str(caught.value)
        assert message.startswith(f"pde.method={name} {reason}; use pde.method=")
        offered = message.partition("; use pde.method=")[2].removesuffix(" or auto").split(", ")
        assert offered == [other for other in NAMED if REFUSALS[other](call) is None]
        assert "\n" not in message


@given(
    boundary=st.sampled_from(BOUNDARIES),
    forcing=st.sampled_from(FORCINGS),
    tensor=st.sampled_from(["isotropic", "diagonal", "full"]),
    condition=st.sampled_from(["none", "input"]),
    state=st.integers(1, 5),
    grid=st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
@settings(deadline=None, max_examples=30)
def test_the_mixer_reports_what_auto_takes(grid: tuple[int, int], **options: Any) -> None:
    mixer = operators.create("pde_ssm", 2, grid=grid, groups=1, **options)
    core: Any = mixer.core
    name, call = core.route_on(*grid)
    assert mixer.backend == name
    assert REFUSALS[name](call) is None
    same = operators.create("pde_ssm", 2, grid=grid, groups=1, backend=name, **options)
    assert same.backend == name


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", METHODS)
def test_method_and_backend_are_one_choice(method: str, backend: str) -> None:
    if "auto" in (method, backend) or method == backend:
        mixer = operators.create("pde_ssm", 4, grid=(4, 4), method=method, backend=backend)
        meant = {method, backend} - {"auto"} or {"auto"}
        assert {mixer.core.requested_backend} == {named(method, backend)} == meant
        assert mixer.backend == (meant - {"auto"} or {"compiled"}).pop()
    else:
        with pytest.raises(InputError, match=rf"pde.method='{method}' and backend='{backend}' contradict each other"):
            operators.create("pde_ssm", 4, grid=(4, 4), method=method, backend=backend)


def test_without_a_compiler_torch_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operators.cpu.availability._REFUSAL", "needs numba, which is not installed")
    assert operators.create("pde_ssm", 4, grid=(4, 4)).backend == "separable"
    assert operators.create("pde_ssm", 4, grid=(4, 4), forcing="constant").backend == "fft"
    with pytest.raises(
        InputError, match=r"method=compiled needs numba, which is not installed; use pde.method=separable"
    ):
        operators.create("pde_ssm", 4, grid=(4, 4), method="compiled")


@pytest.mark.parametrize("terms", [[], ["reaction"]], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_where_no_term_mixes_every_method_is_pointwise(method: str, terms: list[str]) -> None:
    mixer = operators.create("pde_ssm", 4, grid=(4, 4), shell=BARE, terms=terms, method=method, forcing="constant")
    assert mixer.backend == "pointwise"


@pytest.mark.parametrize("shape", [(2, 6, 6), (3, 2, 6, 6), (2, 3, 2, 6, 6)], ids=str)
@pytest.mark.parametrize("method", ["compiled", "compiled_fft"])
def test_propagate_by_compiled_code(method: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    field = torch.randn(shape, dtype=torch.float64)
    given = {"diffusion": torch.rand(2, 2).double(), "velocity": torch.randn(2, 2).double()}
    found, expected = [], []
    for results, name in ((found, method), (expected, "reference")):
        leaves = [tensor.clone().requires_grad_() for tensor in (field, *given.values())]
        y = propagate(leaves[0], **dict(zip(given, leaves[1:], strict=True)), boundary="neumann", method=name)
        torch.manual_seed(1)
        results += [y.detach(), *torch.autograd.grad(y, leaves, torch.randn(shape, dtype=torch.float64))]
    for value, other in zip(found, expected, strict=True):
        assert value.shape == other.shape
        assert_close(value, other, 1e-10, method)
