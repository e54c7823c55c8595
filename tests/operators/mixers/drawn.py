"""Mixers far from their first symmetries, images for them, and functions of an image that should be the same."""

import torch

import operators
from operators.testing.cases import noise
from operators.testing.checks import assert_close


def make(name, width=6, *, seed=0, shell=operators.BARE, **params):
    """A mixer in float64 with 0.3 randn added to each of its parameters."""
    torch.manual_seed(seed)
    mixer = operators.create(name, width, shell=shell, **params).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return mixer.eval()


def image(*grid, width=6, batch=2, seed=1):
    return noise(batch, *grid, width, dtype=torch.float64, seed=seed)


def set_to(value, *tensors):
    """Fill parameters with a number or a tensor that broadcasts to their shapes."""
    with torch.no_grad():
        for tensor in tensors:
            tensor.copy_(torch.as_tensor(value, dtype=tensor.dtype).expand_as(tensor))


def assert_same_function(actual, expected, x, tolerance=1e-12):
    """Fail unless both functions have the same output at x, and pass the same gradient back to x."""
    outputs, gradients = [], []
    for function in (actual, expected):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        outputs.append(y.detach())
        gradients += torch.autograd.grad(y, leaf, noise(*y.shape, dtype=y.dtype, seed=4))
    assert_close(*outputs, tolerance, "y")
    assert_close(*gradients, tolerance, "gradient of the input")
