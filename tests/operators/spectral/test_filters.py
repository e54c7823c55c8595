"""The convolution theorem: transforms against sums over offsets written out, outputs and gradients."""

import pytest
import torch

from operators import InputError
from operators.spectral.choice import BACKENDS, choose, refusal
from operators.spectral.filters import apply_filter, kernel_of, respond, respond_centred
from operators.testing.cases import noise
from operators.testing.checks import assert_close

GRIDS = [(3, 5), (2, 4), (1, 5), (1, 1)]
WIDTH = 3


def circular(u, kernel):
    """y[i, j] = sum of kernel[(i - k) mod H, (j - l) mod W] u[k, l]."""
    height, width = u.shape[1:3]
    rows = []
    for i in range(height):
        for j in range(width):
            terms = [
                kernel[(i - k) % height, (j - m) % width] * u[:, k, m] for k in range(height) for m in range(width)
            ]
            rows.append(torch.stack(terms).sum(0))
    return torch.stack(rows, 1).view(u.shape)


def open_ended(u, kernel):
    """y[i, j] = sum of kernel[i - k, j - l] u[k, l], of a kernel at the offsets 1 - H … H - 1 and 1 - W … W - 1."""
    height, width = u.shape[1:3]
    rows = []
    for i in range(height):
        for j in range(width):
            terms = [
                kernel[i - k + height - 1, j - m + width - 1] * u[:, k, m] for k in range(height) for m in range(width)
            ]
            rows.append(torch.stack(terms).sum(0))
    return torch.stack(rows, 1).view(u.shape)


def served(boundary, grid):
    return [name for name in BACKENDS if refusal(name, boundary, grid=grid, device="cpu", differentiated=False) is None]


def compare(value, definition, *leaves):
    """Outputs, and gradients of all leaves against a dense gradient of the output."""
    leaves = [leaf.requires_grad_() for leaf in leaves]
    y, expected = value(*leaves), definition(*leaves)
    assert_close(y, expected, 1e-12, "output")
    gradient = noise(*y.shape, dtype=y.dtype, seed=5)
    made, wanted = (torch.autograd.grad(out, leaves, gradient) for out in (y, expected))
    for number, (a, b) in enumerate(zip(made, wanted, strict=True)):
        assert_close(a, b, 1e-12, f"gradient {number}")


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_product_of_waves_is_a_circular_convolution(grid):
    height, width = grid
    u, kernel = noise(2, *grid, WIDTH, dtype=torch.float64), noise(*grid, WIDTH, dtype=torch.float64, seed=3)
    for backend in served("periodic", grid):
        compare(
            lambda u, kernel, backend=backend: apply_filter(u, respond(kernel, height, width), "periodic", backend),
            circular, u, kernel,
        )  # fmt: skip


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_with_zeros_outside_it_is_a_convolution_without_wrapping(grid):
    u = noise(2, *grid, WIDTH, dtype=torch.float64)
    kernel = noise(2 * grid[0] - 1, 2 * grid[1] - 1, WIDTH, dtype=torch.float64, seed=3)
    for backend in served("absorbing", grid):
        compare(
            lambda u, kernel, backend=backend: apply_filter(u, respond_centred(kernel, *grid), "absorbing", backend),
            open_ended, u, kernel,
        )  # fmt: skip


@pytest.mark.parametrize("grid", [(3, 5), (4, 2), (4, 1)], ids=str)
def test_any_response_acts_as_the_kernel_that_its_inverse_transform_has(grid):
    """Also one that is the transform of no real kernel: the same part of it acts in all backends, gradients included.

    The other part gets no gradient.
    """
    height, width = grid
    u = noise(2, *grid, WIDTH, dtype=torch.float64)
    response = noise(2, height, width // 2 + 1, WIDTH, dtype=torch.float64, seed=3)
    inverse = torch.fft.irfft2(torch.complex(*response), s=grid, dim=(0, 1))
    assert_close(kernel_of(response, width), inverse, 1e-13, "kernel")
    for backend in served("periodic", grid):
        compare(
            lambda u, r, backend=backend: apply_filter(u, r, "periodic", backend),
            lambda u, r: circular(u, torch.fft.irfft2(torch.complex(*r), s=grid, dim=(0, 1))),
            u, response,
        )  # fmt: skip


def test_transforms_stay_in_float32_under_autocast():
    u, response = noise(1, 8, 8, WIDTH).bfloat16(), noise(2, 8, 5, WIDTH, seed=3)
    expected = apply_filter(u.float(), response, "periodic", "fft").bfloat16()
    for backend in served("periodic", (8, 8)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = apply_filter(u, response, "periodic", backend)
        assert y.dtype == torch.bfloat16
        assert_close(y.float(), expected.float(), 1e-3, backend)


def test_a_backend_that_cannot_serve_says_why():
    with pytest.raises(InputError, match=r"mixer\.backend=compiled_fft needs sides .* not 11x4; use auto or fft"):
        choose("compiled_fft", "periodic", grid=(11, 4), device="cpu", differentiated=False)
    assert choose("auto", "periodic", grid=(11, 4), device="cpu", differentiated=False) == "fft"
    assert choose("auto", "absorbing", grid=(8, 8), device="cuda", differentiated=False) == "fft"
