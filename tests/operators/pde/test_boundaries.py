"""Boundaries of their own along each axis: against the definition, with all gradients, and against the single words."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import operators
from operators import BARE, InputError
from operators.pde import propagate
from operators.pde.boundary import BOUNDARIES, Boundary, by_axis, check_boundary, extended
from operators.pde.choice import Call, choose
from operators.testing.checks import assert_close, assert_differs
from tests.operators.pde import definition
from tests.operators.pde.cases import coefficients, noise, run, spot, tensors

PAIRS = list(permutations(BOUNDARIES, 2))
CLOSED = [pair for pair in PAIRS if "absorbing" not in pair]
METHODS = ("separable", "compiled", "fft", "compiled_fft", "reference")
GRID = (5, 6)

pairs = pytest.mark.parametrize("pair", PAIRS, ids="-".join)
closed = pytest.mark.parametrize("pair", CLOSED, ids="-".join)


def leaves(grid: tuple[int, int], tensor: str) -> dict[str, Tensor]:
    made = {"field": noise(2, 2, *grid), **coefficients(grid, tensor=tensor)}
    return {name: tensor.requires_grad_() for name, tensor in tensors(made).items() if isinstance(tensor, Tensor)} | {
        "field": torch.as_tensor(made["field"]).requires_grad_()
    }


def results(y: Tensor, given: dict[str, Tensor]) -> dict[str, Tensor]:
    gradient = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(3))
    gradients = torch.autograd.grad(y, list(given.values()), gradient)
    return {"output": y.detach()} | {f"d {name}": g for name, g in zip(given, gradients, strict=True)}


@pairs
@pytest.mark.parametrize("method", METHODS)
def test_each_axis_has_its_own(method: str, pair: tuple[str, str]) -> None:
    """Terms of one axis leave the other alone: with a diagonal tensor the axes act one after the other."""
    given = leaves(GRID, "diagonal")
    rows, columns = (torch.tensor(mask, dtype=torch.float64) for mask in ([1.0, 0.0], [0.0, 1.0]))
    diffusion, velocity = given["diffusion"], given["velocity"]
    y = given["field"]
    y = propagate(y, diffusion=diffusion * rows, velocity=velocity * rows, boundary=pair[0], method="separable")
    y = propagate(
        y, diffusion=diffusion * columns, velocity=velocity * columns, reaction=given["reaction"], boundary=pair[1],
        method="separable",
    )  # fmt: skip
    expected = results(y, given)
    found = results(propagate(**given, boundary=pair, method=method), given)
    for name, value in expected.items():
        assert_close(found[name], value, 1e-10, name)


@closed
@pytest.mark.parametrize("method", ["fft", "compiled_fft", "reference"])
@pytest.mark.parametrize("forcing", ["initial", "constant", "steady"])
def test_is_the_free_propagator_of_the_extension(forcing: str, method: str, pair: tuple[str, str]) -> None:
    given = leaves(GRID, "full")
    wide = given["field"]
    for axis, word in zip((-2, -1), pair, strict=True):
        if word != "periodic":
            wide = torch.cat([wide, (1 if word == "neumann" else -1) * wide.flip(axis)], axis)
    free = {name: value for name, value in given.items() if name != "field"}
    whole = propagate(wide, **free, forcing=forcing, method="fft")
    expected = results(whole[..., : GRID[0], : GRID[1]], given)
    found = results(propagate(**given, forcing=forcing, boundary=list(pair), method=method), given)
    for name, value in expected.items():
        assert_close(found[name], value, 1e-10, name)


@pytest.mark.parametrize(
    ("pair", "tensor", "forcing"),
    [*((pair, "diagonal", "initial") for pair in PAIRS), *((pair, "full", "constant") for pair in CLOSED)],
    ids=str,
)
def test_equals_the_definition(pair: tuple[str, str], tensor: str, forcing: str) -> None:
    for grid in [(4, 7), (5, 1)]:
        given = {**coefficients(grid, tensor=tensor), "boundary": pair, "forcing": forcing, "time": 0.8}
        expected = definition.propagate(noise(2, *grid), **given)
        assert_close(run(noise(2, *grid), **given), expected, 1e-9, f"{pair} on {grid}")


@pytest.mark.parametrize("word", BOUNDARIES)
@pytest.mark.parametrize("method", METHODS)
def test_a_pair_of_equal_words_is_that_word(method: str, word: str) -> None:
    given = leaves(GRID, "diagonal")
    single = results(propagate(**given, boundary=word, method=method), given)
    for name, value in results(propagate(**given, boundary=[word, word], method=method), given).items():
        assert torch.equal(value, single[name]), name


def test_a_cylinder_wraps_one_way_alone() -> None:
    moved = run(spot(6, 8), velocity=np.array([[3.0, 4.0]]), boundary=("absorbing", "periodic"))
    assert np.abs(moved).max() < 1e-9, "what leaves below is gone"
    moved = run(spot(6, 8), velocity=np.array([[2.0, 4.0]]), boundary=("absorbing", "periodic"))
    assert moved[0, 5, 0] == pytest.approx(1, rel=1e-9), "what leaves to the right comes back"


@pytest.mark.parametrize("pair", [("neumann", "periodic"), ("absorbing", "dirichlet")], ids="-".join)
def test_the_mixer_on_every_route(pair: tuple[str, str]) -> None:
    x, found = torch.randn(2, *GRID, 4, dtype=torch.float64), {}
    for method in METHODS:
        torch.manual_seed(0)
        mixer = operators.create("pde_ssm", 4, grid=GRID, shell=BARE, boundary=list(pair), method=method).double()
        assert mixer.backend == method
        field = x.clone().requires_grad_()
        found[method] = results(mixer(field), {"field": field, **dict(mixer.named_parameters())})
    for method in METHODS:
        for name, value in found["reference"].items():
            assert_close(found[method][name], value, 1e-9, f"{name} of {method}")


def test_cost_grows_with_the_axis_that_is_extended() -> None:
    costs = [operators.create("pde_ssm", 4, grid=(8, 8), boundary=b).cost(8, 8).mixing_macs for b in PAIRS[:1]]
    words = [
        operators.create("pde_ssm", 4, grid=(8, 8), boundary=word).cost(8, 8).mixing_macs
        for word in ("periodic", "neumann")
    ]
    assert words[0] < costs[0] < words[1]
    assert extended((3, 5), ("periodic", "neumann")) == (3, 10)
    assert extended((3, 5), ("absorbing", "periodic")) == (6, 5)


@pytest.mark.parametrize(
    ("boundary", "message"),
    [
        (
            ["periodic"],
            r"boundary=\['periodic'\] must be one of periodic, .*, or two of them: \[row axis, column axis\]",
        ),
        (["periodic", "neuman"], "boundary='neuman' is not known: .*did you mean 'neumann'"),
        (3, "boundary=3 must be one of"),
        (["neumann", ["periodic"]], r"boundary=\['periodic'\] is not known"),
    ],
    ids=str,
)
def test_what_is_no_boundary(boundary: Any, message: str) -> None:
    for make in (
        lambda: propagate(torch.ones(1, 2, 2), boundary=boundary),
        lambda: operators.create("pde_ssm", 4, boundary=boundary),
    ):
        with pytest.raises(InputError, match=message) as caught:
            make()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"forcing": "constant"}, {"tensor": "full"}], ids=str)
def test_an_open_axis_beside_a_closed_one_needs_a_product(options: dict[str, str]) -> None:
    message = r"pde.boundary=\[absorbing, periodic\] needs forcing='initial' and a diagonal or isotropic tensor; use"
    with pytest.raises(InputError, match=message):
        operators.create("pde_ssm", 4, boundary=["absorbing", "periodic"], **options)
    one = torch.ones(1)
    with pytest.raises(InputError, match=r"boundary=\[periodic, absorbing\] needs forcing='initial'"):
        propagate(torch.ones(1, 2, 2), diffusion=one, forcing="constant", boundary=["periodic", "absorbing"])
    alone = propagate(torch.ones(1, 2, 2), reaction=-one, forcing="constant", boundary=["periodic", "absorbing"])
    assert_close(alone, torch.full((1, 2, 2), 1 - np.exp(-1)).float(), 1e-6, "pointwise, whatever the boundary")


@pairs
def test_auto_serves_every_pair(pair: Boundary) -> None:
    pair = check_boundary("boundary", pair)
    call = Call(boundary=pair, forcing="initial", spatial=True, full=False, grid=(8, 9))
    assert choose("auto", call, "method") == "compiled"
    assert by_axis(pair) == pair
    mixers = [operators.create("pde_ssm", 4, grid=(4, 5), boundary=b, shell=BARE) for b in (pair, by_axis(pair)[0])]
    mixers[1].load_state_dict(mixers[0].state_dict())
    x = torch.randn(1, 4, 5, 4)
    assert_differs(mixers[0](x), mixers[1](x), 1e-3, "output of another boundary along the columns")
