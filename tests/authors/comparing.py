"""Copying an author's weights, and how far outputs and gradients are apart."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from operators.testing.checks import relative_error

TOLERANCE = 1e-10
"""Relative RMS, in float64."""
_LOG = logging.getLogger("authors")


def fill(ours: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give all parameters of our module values, by their names; each must be there, in its shape."""
    parameters = dict(ours.named_parameters())
    assert parameters.keys() == weights.keys(), {
        "left out": sorted(parameters.keys() - weights.keys()),
        "unknown": sorted(weights.keys() - parameters.keys()),
    }
    for name, parameter in parameters.items():
        assert parameter.shape == weights[name].shape, (name, parameter.shape, weights[name].shape)
        parameter.data.copy_(weights[name].detach())


def compare(
    name: str,
    ours: Callable[..., Tensor],
    theirs: Callable[..., Tensor],
    *inputs: Tensor,
    same: Sequence[tuple[Tensor, Tensor]] = (),
    tolerance: float = TOLERANCE,
) -> None:
    """Outputs, gradients of all inputs, and of parameters that are the `same` in both (ours first) are equal.

    Both take `inputs` and give outputs of one shape. The loss weighs each output by a random number.
    """
    results = []
    for place, function in enumerate((ours, theirs)):
        given = [each.clone().requires_grad_(each.is_floating_point()) for each in inputs]
        wanted = [each for each in given if each.requires_grad] + [pair[place] for pair in same]
        with warnings.catch_warnings():
            if place:
                warnings.simplefilter("ignore")
            output = function(*given)
            weight = torch.rand(output.shape, dtype=output.dtype, generator=torch.Generator().manual_seed(1)) + 0.5
            results.append([output, *torch.autograd.grad((weight * output).sum(), wanted)])
    assert results[0][0].shape == results[1][0].shape, (results[0][0].shape, results[1][0].shape)
    what = ["outputs", *(f"gradient of input {place}" for place in range(len(results[0]) - 1 - len(same)))]
    what += [f"gradient of parameter {place}" for place in range(len(same))]
    errors = {label: relative_error(a, b) for label, a, b in zip(what, *results, strict=True)}
    _LOG.info("%s: %s", name, ", ".join(f"{label} {error:.1e}" for label, error in errors.items()))
    wrong = {label: error for label, error in errors.items() if not error <= tolerance}
    assert not wrong, f"{name}: relative errors {wrong}, and {tolerance:.0e} is allowed"
