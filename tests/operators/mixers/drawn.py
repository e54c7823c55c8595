"""Mixers far from their first symmetries, and images for them."""

import torch

import operators
from operators.testing.cases import noise


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
