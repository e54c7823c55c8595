"""Modules in half precision, and batches without images: every mixer, forwards and backwards."""

import pytest
import torch

from operators.pde import filter_op, matrices_op
from operators.pde.separable_op import separable
from operators.testing.cases import CHANNELS, Case, noise, run, run_with_gradients, tokens
from operators.testing.checks import assert_close, assert_finite
from tests.operators.options import CASES

GRID = (4, 6)
TOLERANCE = 0.03  # measured: 0.2 to 1 % with 8 bits, a tenth of it with 11


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_module_in_half_precision_is_near_the_one_in_float32(case, dtype):
    half, x = case.build(GRID, dtype=dtype), tokens(GRID, dtype=dtype)
    single = case.build(GRID)
    single.load_state_dict(half.state_dict())
    y, gradients = run_with_gradients(half, x)
    assert y.dtype == dtype
    assert_close(y.float(), run(single, x.float()), TOLERANCE, "output in half precision")
    for name, gradient in gradients.items():
        assert gradient is not None, name
        assert_finite(gradient, f"gradient of {name}")


@pytest.mark.parametrize("name", ["hydra", "log_linear", "ssd"])
def test_convolutions_of_maps_are_served_in_half_precision(name):
    """The maps of a recurrence are of float32, the filters of the module's type."""
    case = Case(name, params={"conv": 3})
    half, single = case.build(GRID, dtype=torch.bfloat16), case.build(GRID)
    single.load_state_dict(half.state_dict())
    x = tokens(GRID, dtype=torch.bfloat16)
    assert_close(run(half, x).float(), run(single, x.float()), TOLERANCE, "output in half precision")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_empty_batch_has_an_empty_output_and_gradients_of_zero(case):
    mixer, x = case.build(GRID), tokens(GRID, batch=0)
    assert run(mixer, x).shape == x.shape
    y, gradients = run_with_gradients(mixer, x)
    assert y.shape == x.shape
    for name, gradient in gradients.items():
        assert gradient is not None, f"{name} has no gradient"
        assert gradient.count_nonzero() == 0, name


def test_compiled_operators_take_empty_batches():
    u = torch.zeros(0, 4, 6, CHANNELS, requires_grad=True)
    given = [noise(2, 4, 4, CHANNELS), noise(2, 6, 6, CHANNELS), noise(CHANNELS)]
    response = noise(2, 4, 4, CHANNELS).requires_grad_()
    given = [tensor.requires_grad_() for tensor in given]
    for y, leaves in (
        (separable(u, *given), given),
        (filter_op.filtered(u, response, "periodic", "periodic"), [response]),
    ):
        assert y.shape == u.shape
        for gradient, tensor in zip(torch.autograd.grad(y, leaves, y.detach()), leaves, strict=True):
            assert gradient.shape == tensor.shape
            assert gradient.count_nonzero() == 0


@pytest.mark.parametrize("change", ["size", "type"])
def test_compiled_operators_refuse_other_sizes_and_types(change):
    """With tables for another grid they read and write beyond the ends of arrays."""
    from operators import InputError
    from operators.scan import ops
    from operators.shell.gated_norm import _gated_norm

    def wrong(tensor):
        return tensor.double() if change == "type" else tensor.repeat(*[1] * (tensor.ndim - 1), 2)

    def refused(operator, tensors, *others):
        operator(*tensors, *others)
        for i in range(1, len(tensors)):
            given = [wrong(tensor) if i == j else tensor for j, tensor in enumerate(tensors)]
            with pytest.raises(InputError, match="takes"):
                operator(*given, *others)

    u = noise(2, 4, 6, CHANNELS)
    refused(separable, [u, noise(2, 4, 4, CHANNELS), noise(2, 6, 6, CHANNELS), noise(CHANNELS)])
    refused(filter_op.filtered, [u, noise(2, 4, 4, CHANNELS)], "periodic", "periodic")
    refused(filter_op.filtered_backward, [u, noise(2, 4, 4, CHANNELS), u], "periodic", "periodic")
    refused(_gated_norm, [u, u, noise(CHANNELS)], 1e-6)
    made = matrices_op._matrices(noise(6, 2, CHANNELS), 4, 6, "periodic", "periodic")
    refused(matrices_op._matrices_backward, [noise(6, 2, CHANNELS), *made], 4, 6, "periodic", "periodic")
    sequence, shared = noise(2, 8, 5), noise(2, 2, 3, 5)
    refused(ops.scan, [sequence, sequence, noise(8, 3), shared, shared, noise(2, 8, 3)], False, "cpu")
