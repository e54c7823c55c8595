"""Gradients with respect to the field, every coefficient and time: against finite differences, and among methods."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from operators.pde import propagate
from operators.testing.checks import assert_close
from tests.operators.pde.cases import COEFFICIENTS, METHODS, coefficients, noise, serves, tensors
from tests.operators.pde.test_propagate_options import OPTIONS, allowed
from tests.pairwise import full_product, grouped, pairwise, row_name

GRIDS = {"odd": (3, 5), "even": (4, 2), "mixed": (3, 2), "row": (1, 4), "column": (3, 1)}


def differentiable(row, grid):
    """Names and values of what a gradient may be asked for, and the operator as a function of those values.

    A full tensor enters through its symmetric part, so that no finite difference leaves the symmetric tensors.
    """
    chosen = tensors(
        coefficients(
            grid, tensor=row["tensor"], convection=row["convection"], reaction=row["reaction"], units=row["units"]
        )
    )
    if row["reaction"]:
        chosen["reaction"] -= 1  # a short steady response: the reference sums over fewer wave numbers
    inputs = {"field": torch.as_tensor(noise(1, 2, *grid)), **chosen, "time": torch.tensor(0.8, dtype=torch.float64)}
    options = {name: row[name] for name in ("boundary", "forcing", "units")}

    def operator(*values, method=row["method"]):
        given = dict(zip(inputs, values, strict=True))
        if row["tensor"] == "full":
            given["diffusion"] = (given["diffusion"] + given["diffusion"].mT) / 2
        return propagate(given.pop("field"), **given, **options, method=method)

    return list(inputs), [value.requires_grad_() for value in inputs.values()], operator


@pytest.mark.parametrize("row", pairwise(OPTIONS, allowed), ids=row_name)
def test_every_pair_of_options(row):
    _, values, operator = differentiable(row, GRIDS[row["grid"]])
    assert gradcheck(operator, values, eps=1e-6, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("boundary", ["periodic", "neumann", "absorbing"])
@pytest.mark.parametrize("method", ["separable", "fft", "reference"])
@pytest.mark.parametrize("grid", ["mixed", *(pytest.param(name, marks=pytest.mark.slow) for name in ("odd", "even"))])
def test_second_derivatives(grid, method, boundary):
    row = {
        "tensor": "diagonal", "convection": True, "reaction": True, "units": "pixel",
        "boundary": boundary, "forcing": "initial", "method": method,
    }  # fmt: skip
    _, values, operator = differentiable(row, GRIDS[grid])
    assert gradgradcheck(operator, values, eps=1e-6, atol=1e-5, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("rows", **grouped(full_product(OPTIONS, allowed), "boundary", "tensor", "forcing"))
def test_every_combination_of_options(rows):
    for row in rows:
        try:
            test_every_pair_of_options(row)
        except Exception as error:
            error.add_note(row_name(row))
            raise


WITHOUT_METHOD = {name: values for name, values in OPTIONS.items() if name != "method"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("row", pairwise(WITHOUT_METHOD, lambda row: allowed({**row, "method": "auto"})), ids=row_name)
def test_every_method_has_the_gradients_of_the_reference(row, dtype):
    names, values, operator = differentiable({**row, "method": "auto"}, GRIDS[row["grid"]])
    cotangent = torch.as_tensor(noise(*values[0].shape, seed=5))
    wanted = gradients(operator, values, cotangent, "reference")
    tolerance = 1e-8 if dtype == torch.float64 else 1e-4
    for method in METHODS:
        if serves(method, tensor=row["tensor"], forcing=row["forcing"]):
            cast = [value.detach().to(dtype).requires_grad_() for value in values]
            got = gradients(operator, cast, cotangent.to(dtype), method)
            for name, actual, expected in zip(names, got, wanted, strict=True):
                assert (actual is None) == (expected is None) or not (expected if actual is None else actual).any()
                if actual is not None and expected is not None and expected.abs().max() > 1e-9:
                    assert_close(actual.double(), expected, tolerance, f"d{name} of {method}")


def gradients(operator, values, cotangent, method):
    return torch.autograd.grad(operator(*values, method=method), values, cotangent, allow_unused=True)


@pytest.mark.parametrize("method", METHODS)
def test_only_what_is_asked_for(method):
    """A gradient for each coefficient alone, the others being constants."""
    given = tensors(coefficients((4, 5), tensor="diagonal"))
    for name in COEFFICIENTS:
        leaf = given[name].clone().requires_grad_()
        out = propagate(torch.as_tensor(noise(2, 4, 5)), **{**given, name: leaf}, method=method)
        (gradient,) = torch.autograd.grad(out.square().sum(), leaf)
        assert gradient.shape == leaf.shape
        assert (gradient != 0).all(), name


@pytest.mark.parametrize("boundary", ["periodic", "absorbing"])
@pytest.mark.parametrize("forcing", ["initial", "constant"])
def test_gradients_are_finite_where_the_symbol_vanishes(forcing, boundary):
    """φ₁ at 0: zero coefficients, and the mode k = 0 without reaction."""
    for size in (0.0, 1e-9, 1e-5):
        given = {
            name: torch.full(shape, size, dtype=torch.float64, requires_grad=True)
            for name, shape in {"diffusion": (2,), "velocity": (2, 2), "reaction": (2,)}.items()
        }
        field = torch.as_tensor(noise(2, 4, 5))
        out = propagate(field, **given, forcing=forcing, boundary=boundary)
        got = torch.autograd.grad((out * field).sum(), list(given.values()))
        # d/dr of the mean over modes: τ for exp(τ r), τ²/2 for τ φ₁(τ r), times ‖f‖².
        slope = {"initial": 1.0, "constant": 0.5}[forcing] * field.square().sum((-2, -1))
        assert_close(got[2], slope, 1e-3, f"dreaction at {size}")
        assert all(torch.isfinite(gradient).all() for gradient in got)
