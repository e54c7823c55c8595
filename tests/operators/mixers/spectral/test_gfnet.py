import pytest
import torch

import operators
from operators import InputError
from operators.testing.cases import noise
from operators.testing.checks import assert_close, assert_differs

WIDTH = 6


def make(*grid, seed=0, **params):
    torch.manual_seed(seed)
    return operators.create("gfnet", WIDTH, grid=grid, shell="published", **params).double()


def image(*grid, batch=2, seed=1):
    return noise(batch, *grid, WIDTH, dtype=torch.float64, seed=seed)


@pytest.mark.parametrize("grid", [(5, 7), (4, 6), (6, 3)], ids=str)
def test_it_is_a_circular_convolution_by_the_transform_of_its_factors(grid):
    """The definition by loops over all pairs of pixels; the picture of the kernel has the offset 0 in its centre."""
    mixer, x = make(*grid), image(*grid)
    height, width = grid
    kernel = torch.fft.irfft2(torch.complex(*mixer.core.filter), s=grid, dim=(0, 1))
    expected = torch.zeros_like(x)
    for i in range(height):
        for j in range(width):
            for k in range(height):
                for m in range(width):
                    expected[:, i, j] += kernel[(i - k) % height, (j - m) % width] * x[:, k, m]
    assert_close(mixer(x), expected, 1e-12, "y")
    shown = kernel.roll((height // 2, width // 2), (0, 1)).movedim(-1, 0)
    assert_close(mixer.inspect(x)["kernel"], shown, 1e-12, "kernel")


@pytest.mark.parametrize("grid", [(5, 7), (4, 6), (1, 1)], ids=str)
def test_factors_of_one_change_nothing(grid):
    mixer, x = make(*grid), image(*grid)
    with torch.no_grad():
        mixer.core.filter.zero_()
        mixer.core.filter[0] = 1
    assert_close(mixer(x), x, 1e-13, "y")


def test_the_part_that_no_real_filter_has_is_dead():
    """In the columns 0 and W / 2; elsewhere every number acts."""
    mixer, x = make(4, 6), image(4, 6)
    (gradient,) = torch.autograd.grad(mixer(x).square().sum(), mixer.core.filter)
    real, imaginary = gradient
    for column in (0, 3):
        assert_close(real[1, column], real[3, column], 1e-10, "of a wave and its conjugate")
        assert_close(imaginary[1, column], -imaginary[3, column], 1e-10, "of a wave and its conjugate")
        assert imaginary[[0, 2], column].abs().max() < 1e-10 * imaginary.abs().max()
    assert gradient[:, :, 1:3].count_nonzero() == gradient[:, :, 1:3].numel()


def test_starts_as_published_and_asks_for_no_decay():
    mixer = make(14, 14)
    assert mixer.core.filter.shape == (2, 14, 8, WIDTH)
    assert mixer.core.filter.std().item() == pytest.approx(0.02, rel=0.05)
    assert mixer.no_weight_decay() == {"core.filter"}
    assert mixer.cost(14, 14).parameters == 2 * 14 * 8 * WIDTH


def test_channels_do_not_mix():
    mixer, x = make(5, 7), image(5, 7)
    other = x.clone()
    other[..., 0] += 1
    assert_close(mixer(other)[..., 1:], mixer(x)[..., 1:], 1e-13, "other channels")
    assert_differs(mixer(other)[..., 0], mixer(x)[..., 0], 1e-3, "the channel")


def test_another_grid_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"mixer gfnet was made for a \(5, 7\) grid and cannot serve \(7, 5\)"):
        make(5, 7)(image(7, 5))
    with pytest.raises(InputError, match="mixer gfnet depends on the grid: give grid"):
        operators.create("gfnet", WIDTH)
