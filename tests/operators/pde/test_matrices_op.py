"""Matrices of the compiled products: against torch's operations in float64, which other tests hold to the equation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import InputError
from operators.cpu import sharing
from operators.pde import matrices_op as module
from operators.pde.boundary import BOUNDARIES, SIGNS, Boundary, by_axis
from operators.pde.matrices_op import matrices
from operators.pde.propagators import axis_matrices
from operators.pde.symbols import Coefficients
from operators.testing.checks import assert_close
from operators.testing.counter import count_macs

NAMES = ("kyy", "kxx", "vy", "vx", "r")
OWN = tuple(SIGNS)
MIXED = (("neumann", "periodic"), ("periodic", "dirichlet"))
# Even and odd sides, one pixel, and the longest; channels around the chunks of 64.
SHAPES = [(1, 1, 3, 1), (2, 5, 1, 3), (7, 8, 16, 2), (16, 16, 65, 1), (64, 33, 70, 2)]


def drawn(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, names: tuple[str, ...] = NAMES) -> list[Tensor]:
    """Coefficients (D, S) and the gain."""
    size = shape[2:]
    values = {name: torch.rand(size) * 2 if name[0] == "k" else torch.randn(size) * 3 for name in names}
    if "r" in values:
        values["r"] = -values["r"].abs()
    return [value.to(dtype).requires_grad_() for value in (*values.values(), torch.randn(size))]


def plain(
    coefficients: Coefficients, gain: Tensor, height: int, width: int, boundary: Boundary
) -> tuple[Tensor, Tensor]:
    rows, columns = axis_matrices(coefficients, height, width, boundary, gain)
    return rows.permute(1, 2, 3, 0), columns.permute(1, 2, 3, 0)


def results(
    make, inputs: list[Tensor], shape: tuple[int, ...], boundary: Boundary, names: tuple[str, ...] = NAMES
) -> dict[str, Tensor]:
    """Both matrices and all gradients."""
    made = make(Coefficients(**dict(zip(names, inputs, strict=False))), inputs[-1], *shape[:2], boundary)
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(one.shape, generator=generator, dtype=torch.float64).to(one.dtype) for one in made]
    gradients = torch.autograd.grad(made, inputs, given)
    labels = ("rows", "columns", *(f"d {name}" for name in names), "d gain")
    return dict(zip(labels, (*(one.detach() for one in made), *gradients), strict=True))


@pytest.mark.parametrize("boundary", [*OWN, *MIXED], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 4e-6)], ids=str)
def test_equal_those_of_torch(shape: tuple[int, ...], boundary: Boundary, dtype: torch.dtype, tolerance: float) -> None:
    inputs = drawn(shape, dtype)
    found = results(matrices, inputs, shape, boundary)
    wide = [one.detach().double().requires_grad_() for one in inputs]
    scale = inputs[-1].abs().max().item()
    for name, expected in results(plain, wide, shape, boundary).items():
        assert found[name].dtype == dtype
        if expected.abs().max() < 1e-12 * scale:  # gradients that are zero, as of everything on one periodic pixel
            assert found[name].abs().max() < tolerance * scale
        else:
            assert_close(found[name].double(), expected, tolerance, f"{name} of {shape}, {boundary}")


@pytest.mark.parametrize("names", [("kyy", "kxx"), ("vy", "vx"), ("kyy", "kxx", "r")], ids=str)
def test_terms_that_are_off(names: tuple[str, ...]) -> None:
    shape = (5, 6, 3, 2)
    inputs = drawn(shape, names=names)
    found = results(matrices, inputs, shape, "neumann", names)
    for name, expected in results(plain, inputs, shape, "neumann", names).items():
        assert_close(found[name], expected, 1e-13, name)


def test_waves_that_have_decayed_keep_their_digits() -> None:
    """Between odd images everything decays, and what is left must not drown in the rounding of what cancels."""
    for length in (1, 4):
        values, gain = (
            dict(zip(NAMES, torch.tensor([8.0, 8.0, 0.3, 0.3]).view(4, 1, 1), strict=False)),
            torch.ones(1, 1),
        )
        wide = Coefficients(**{name: value.double() for name, value in values.items()})
        made = matrices(Coefficients(**values), gain, length, 2, "dirichlet")
        expected = plain(wide, gain.double(), length, 2, "dirichlet")
        for one, other in zip(made, expected, strict=True):
            assert_close(one.double(), other, 2e-5, f"{length} pixels")


@pytest.mark.parametrize(
    ("boundary", "side"), [("absorbing", 6), (("absorbing", "neumann"), 6), ("periodic", 65), ("neumann", 65)]
)
def test_where_it_does_not_serve_torchs_operations_do(boundary: Boundary, side: int) -> None:
    shape = (side, 4, 2, 1)
    inputs = drawn(shape)
    made = matrices(Coefficients(**dict(zip(NAMES, inputs, strict=False))), inputs[-1], side, 4, boundary)
    assert "operator_zoo" not in type(made[0].grad_fn).__name__
    expected = results(plain, inputs, shape, boundary)
    for name, value in results(matrices, inputs, shape, boundary).items():
        assert torch.equal(value, expected[name])
    assert set(OWN) | {"absorbing"} == set(BOUNDARIES)


def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.OP, "thread_least", 1)
    asked: list[int] = []
    run = sharing.run

    def counted(*given) -> None:
        asked.append(given[-1])
        run(*given)

    monkeypatch.setattr("operators.cpu.kernel.run", counted)
    shape, found = (6, 7, 130, 2), []
    inputs = drawn(shape, torch.float32)
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(results(matrices, inputs, shape, "neumann"))
    assert asked == [1, 1, 2, 2, 5, 5]
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name])
        assert torch.equal(value, found[2][name])


@pytest.mark.parametrize("boundary", [*OWN, MIXED[0]], ids=str)
def test_compiled_code_equals_the_same_code_as_plain_python(
    boundary: Boundary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python also checks that no index leaves its array, which compiled code does not."""
    from operators.cpu import axis_matrices as kernels

    shape = height, width, channels, states = 3, 4, 5, 2
    inputs = drawn(shape, names=("kyy", "kxx", "vy", "vx"))
    made = matrices(Coefficients(*inputs[:2], None, *inputs[2:4]), inputs[-1], height, width, boundary)
    given = [torch.randn_like(one) for one in made]
    names = [name for name, value in vars(kernels).items() if hasattr(value, "py_func") and name[0] == "_"]
    assert {"_amplitudes", "_transform", "_collect", "_part"} <= set(names)
    for name in names:
        monkeypatch.setattr(kernels, name, getattr(kernels, name).py_func)
    numbers = torch.stack([*inputs, torch.ones_like(inputs[0])]).mT.detach().contiguous().view(-1).numpy()
    words = by_axis(boundary)
    waves = [module._waves(n, word, torch.float64).numpy() for n, word in zip((height, width), words, strict=True)]
    common = {
        "numbers": numbers, "row_waves": waves[0], "column_waves": waves[1], "height": height, "width": width,
        "row_sign": SIGNS[words[0]], "column_sign": SIGNS[words[1]], "states": states, "channels": channels, "chunk": 4,
    }  # fmt: skip
    written = [np.full(matrix.numel(), np.nan) for matrix in made]
    grad_numbers = np.full_like(numbers, np.nan)
    kernels.forward.py_func(kernels.MatricesForward(**common, rows=written[0], columns=written[1]), 0, 4 * states)
    grad_rows, grad_columns = (gradient.contiguous().view(-1).numpy() for gradient in given)
    record = kernels.MatricesBackward(
        **common, grad_rows=grad_rows, grad_columns=grad_columns, grad_numbers=grad_numbers
    )
    kernels.backward.py_func(record, 0, 4 * states)
    for values, matrix in zip(written, made, strict=True):
        assert_close(torch.from_numpy(values).view_as(matrix), matrix.detach(), 1e-13, "matrix")
    found = torch.from_numpy(grad_numbers).view(6, states, channels).mT
    for value, expected in zip(found[:5], torch.autograd.grad(made, inputs, given), strict=True):
        assert_close(value, expected, 1e-13, "gradient")


def test_are_an_operator_of_torch() -> None:
    torch.library.opcheck(module._matrices, (torch.rand(6, 2, 5).requires_grad_(), 3, 4, "neumann", "periodic"))


def test_cost_their_sums_over_waves() -> None:
    assert count_macs(module._matrices, torch.rand(6, 2, 5), 4, 7, "periodic", "periodic") == 2 * 5 * 2 * (3**2 + 4**2)
    assert count_macs(module._matrices, torch.rand(6, 1, 5), 4, 7, "neumann", "periodic") == 5 * 2 * (5**2 + 4**2)


def test_no_second_derivatives() -> None:
    inputs = drawn((2, 3, 4, 1))
    rows, _ = matrices(Coefficients(**dict(zip(NAMES, inputs, strict=False))), inputs[-1], 2, 3, "periodic")
    (first,) = torch.autograd.grad(rows.square().sum(), inputs[0], create_graph=True)
    with pytest.raises(InputError, match=r"no second derivatives.*separable or fft"):
        torch.autograd.grad(first.sum(), inputs[2])
