"""Every option against the NumPy definition, and every method against every other."""

import numpy as np
import pytest
import torch

from operators.pde import propagate
from operators.testing.checks import assert_close
from tests.operators.pde import definition
from tests.operators.pde.cases import (
    BOUNDARIES,
    FORCINGS,
    GRIDS,
    METHODS,
    TENSORS,
    UNITS,
    coefficients,
    noise,
    run,
    serves,
    tensors,
)
from tests.pairwise import full_product, grouped, pairwise, row_name

TIME = 0.8
OPTIONS = {
    "boundary": BOUNDARIES,
    "tensor": ("none", *TENSORS),
    "forcing": FORCINGS,
    "convection": (True, False),
    "reaction": (True, False),
    "units": UNITS,
    "method": METHODS,
    "grid": tuple(GRIDS),
}
TERMS = {name: OPTIONS[name] for name in ("boundary", "tensor", "forcing", "convection")}


def allowed(row):
    decays = row["reaction"] or row["forcing"] != "steady"
    return decays and serves(row["method"], tensor=row["tensor"], forcing=row["forcing"])


def arguments(row, grid):
    """Coefficients and options of `row`, its method apart."""
    chosen = coefficients(
        grid,
        tensor=row["tensor"],
        convection=row["convection"],
        reaction=row.get("reaction", True),
        units=row.get("units", "pixel"),
    )
    options = {name: row[name] for name in ("boundary", "forcing", "units") if name in row}
    return {**chosen, **options, "time": TIME}


def rows_and_grids():
    """Every row of `TERMS` on the mixed grid, which has an even and an odd side, and on one of the others in turn.

    Each value of a row is met on each grid; `test_every_combination_of_options` has the whole product.
    """
    others = [name for name in GRIDS if name != "mixed"]
    for row in full_product(TERMS):
        turn = sum(OPTIONS[name].index(value) for name, value in row.items())
        for name in ("mixed", others[turn % len(others)]):
            yield pytest.param(row, GRIDS[name], id=f"{row_name(row)}-{name}")


@pytest.mark.parametrize(("row", "grid"), list(rows_and_grids()))
def test_every_boundary_tensor_forcing_and_convection(row, grid):
    field, given = noise(2, *grid), arguments(row, grid)
    expected = definition.propagate(field, **given)
    for method in METHODS:
        if serves(method, tensor=row["tensor"], forcing=row["forcing"]):
            assert_close(run(field, **given, method=method), expected, 1e-9, method)


@pytest.mark.parametrize("row", pairwise(OPTIONS, allowed), ids=row_name)
def test_every_pair_of_options(row):
    grid = GRIDS[row["grid"]]
    field, given = noise(3, 2, *grid), arguments(row, grid)
    expected = definition.propagate(field, **given)
    assert_close(run(field, **given, method=row["method"]), expected, 1e-9, "double")
    assert_close(run(field, torch.float32, **given, method=row["method"]), expected, 1e-5, "single")


@pytest.mark.slow
@pytest.mark.parametrize("rows", **grouped(full_product(OPTIONS, allowed), "boundary", "tensor", "forcing"))
def test_every_combination_of_options(rows):
    for row in rows:
        try:
            test_every_pair_of_options(row)
        except Exception as error:
            error.add_note(row_name(row))
            raise


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("grid", [(16, 16), (15, 20)], ids=str)
def test_methods_agree_on_larger_grids_and_spreads(grid, boundary):
    """From a third of a pixel to half the image, in both precisions."""
    length = np.geomspace(1 / 3, 8, 4)
    chosen = {
        "diffusion": np.stack([length, length[::-1]], -1) ** 2 / 2,
        "velocity": noise(4, 2) * (1 + length[:, None] / 2),
    }
    field = noise(4, *grid)
    expected = run(field, **chosen, boundary=boundary, method="reference")
    for method in METHODS:
        assert_close(run(field, **chosen, boundary=boundary, method=method), expected, 1e-9, method)
        single = run(field, torch.float32, **chosen, boundary=boundary, method=method)
        assert_close(single, expected, 1e-5, f"{method} in single precision")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_diagonal_tensor_in_any_of_its_forms(boundary, method):
    field, given = noise(2, 4, 5), {"velocity": noise(2, 2), "boundary": boundary}
    spread = np.array([0.3, 0.6])
    both = run(field, diffusion=spread, method=method, **given)
    assert_close(run(field, diffusion=np.stack([spread, spread], -1), method=method, **given), both, 1e-12, "diagonal")
    if method != "separable":
        full = spread[:, None, None] * np.eye(2)
        assert_close(run(field, diffusion=full, method=method, **given), both, 1e-9, "full")


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)], ids=str)
def test_any_leading_dimensions(shape):
    field, chosen = noise(*shape, 2, 4, 5), coefficients((4, 5), tensor="diagonal")
    for method in METHODS:
        out = run(field, **chosen, method=method)
        if out.size:
            assert_close(out, definition.propagate(field, **chosen), 1e-10, method)


@pytest.mark.parametrize("method", METHODS)
def test_strided_fields(method):
    """Channels last in memory, as a mixer hands them over."""
    field, chosen = torch.as_tensor(noise(3, 4, 5, 2)).movedim(-1, 1), tensors(coefficients((4, 5), tensor="diagonal"))
    out = propagate(field, **chosen, method=method)
    assert_close(out, propagate(field.contiguous(), **chosen, method=method), 1e-12, "strided")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_time_is_a_number_or_a_tensor_without_dimensions(boundary, method):
    field, chosen = noise(2, 4, 5), coefficients((4, 5), tensor="diagonal")
    given = {**chosen, "boundary": boundary, "method": method}
    as_float = run(field, **given, time=0.7)
    as_tensor = run(field, **given, time=torch.tensor(0.7, dtype=torch.float64))
    assert_close(as_tensor, as_float, 1e-13, "time as a tensor")


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("forcing", FORCINGS)
def test_one_pixel(forcing, boundary):
    field, given = noise(2, 1, 1), {**coefficients((1, 1), tensor="full"), "boundary": boundary, "forcing": forcing}
    expected = definition.propagate(field, **given)
    for method in ("fft", "reference"):
        assert_close(run(field, **given, method=method), expected, 1e-9, method)


FAR = {
    "wide spread": {"diffusion": np.array([30.0]), "time": 1.0},
    "far drift": {"velocity": np.array([[100.3, -20.7]]), "time": 1.0},
    "little decay": {"diffusion": np.array([1.0]), "reaction": np.array([-0.01]), "forcing": "steady"},
    "little decay, drift": {
        "diffusion": np.array([[[1.0, 0.4], [0.4, 0.5]]]),
        "velocity": np.array([[0.5, -0.3]]),
        "reaction": np.array([-0.05]),
        "forcing": "steady",
    },
    "line": {"diffusion": np.ones((1, 2, 2)), "reaction": np.array([-0.2]), "forcing": "steady"},
    "long source": {
        "diffusion": np.array([1.0]),
        "velocity": np.array([[0.2, 0.15]]),
        "forcing": "constant",
        "time": 20.0,
    },
}


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("given", FAR.values(), ids=FAR)
def test_responses_far_wider_than_the_grid(given, boundary):
    field = noise(1, 6, 7)
    expected = definition.propagate(field, **given, boundary=boundary)
    assert_close(run(field, **given, boundary=boundary, method="fft"), expected, 1e-9, "double")
    # An angle of v k is only known to 6e-8 of itself in single precision.
    assert_close(run(field, torch.float32, **given, boundary=boundary, method="fft"), expected, 1e-4, "single")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_half_precision_is_rounded_only_at_the_end(boundary, dtype):
    field = torch.as_tensor(noise(2, 5, 6)).to(dtype)
    chosen = tensors(coefficients((5, 6), tensor="full"), torch.float32)
    out = propagate(field, **chosen, boundary=boundary)
    exact = propagate(field.float(), **chosen, boundary=boundary).to(dtype)
    assert_close(out, exact, 1e-6, "half precision")


@pytest.mark.parametrize("method", METHODS)
def test_autocast_does_not_reach_inside(method):
    field = torch.as_tensor(noise(2, 5, 6)).float()
    chosen = tensors(coefficients((5, 6), tensor="diagonal"), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = propagate(field, **chosen, method=method)
    assert_close(inside, propagate(field, **chosen, method=method), 0, "under autocast")


def test_the_arguments_are_left_alone():
    field = torch.as_tensor(noise(2, 4, 5))
    for boundary in BOUNDARIES:
        chosen = tensors(coefficients((4, 5), tensor="full"))
        kept = {name: value.clone() for name, value in chosen.items()} | {"field": field.clone()}
        propagate(field, **chosen, boundary=boundary)
        assert all(torch.equal(value, kept[name]) for name, value in {**chosen, "field": field}.items())
