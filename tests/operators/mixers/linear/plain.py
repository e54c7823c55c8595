"""Mixers with random weights, and linear attention by a loop over the tokens that read."""

import torch

import operators
from operators.testing.cases import run_with_gradients
from operators.testing.checks import assert_close

GRIDS = [(3, 5), (1, 3)]
"""More tokens than a head of 8 channels has features, and fewer."""


def make(name, width=16, *, seed=0, scale=0.4, shell="common", **params):
    """A mixer in float64, far from its start."""
    torch.manual_seed(seed)
    mixer = operators.create(name, width, shell=shell, **params).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return mixer


def bare(name, width=16, **params):
    return make(name, width, shell=operators.BARE, **params)


def image(*grid, width=16, batch=2, seed=1):
    return torch.randn(batch, *grid, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def elu(x):
    return torch.where(x > 0, x + 1, x.minimum(torch.zeros_like(x)).exp())


def relu(x):
    return torch.where(x > 0, x, torch.zeros_like(x))


def heads_of(linear, x, heads):
    """q and k (heads, N, d) of the tokens x (N, C) of an image, by the joint map of both."""
    q, k = (x @ linear.weight.T + linear.bias).chunk(2, dim=-1)
    return [torch.stack(part.chunk(heads, dim=-1)) for part in (q, k)]


def average(q, k, v, eps, *, rotated=None):
    """Rows Σ_j (q_i · k_j) v_j / (Σ_j q_i · k_j + N eps) for one head; the numerator of the `rotated` pair if given."""
    top_q, top_k = rotated or (q, k)
    rows = []
    for i in range(len(q)):
        above = ((top_k * top_q[i]).sum(-1, keepdim=True) * v).sum(0)
        rows.append(above / ((k * q[i]).sum() + len(k) * eps))
    return torch.stack(rows)


def turned(features, angles):
    """Features (N, d) as complex numbers of channels i and i + d/2, times e^(i angle); angles (N, d/2)."""
    first, second = features.chunk(2, dim=-1)
    product = torch.complex(first, second) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([product.real, product.imag], dim=-1)


def assert_is(mixer, x, plain, tolerance=1e-11):
    """Fail unless outputs and all gradients are those of `plain(mixer, x)`."""
    y, gradients = run_with_gradients(mixer, x)
    expected, expected_gradients = run_with_gradients(mixer, x, through=lambda x: plain(mixer, x))
    assert_close(y, expected, tolerance, "y")
    for name, gradient in gradients.items():
        assert_close(gradient, expected_gradients[name], tolerance, f"gradient of {name}")


def by_image(one):
    """A definition `one(mixer, tokens (N, D), grid)` of bare mixers, for batches of images."""

    def batched(mixer, x):
        return torch.stack([one(mixer, tokens, x.shape[1:3]).view(x.shape[1:]) for tokens in x.flatten(1, 2)])

    return batched
