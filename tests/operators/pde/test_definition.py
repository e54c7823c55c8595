"""The NumPy definition against facts known without it: the ruler is measured first."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.fft import dctn, dstn, idctn, idstn

from tests.operators.pde import definition
from tests.operators.pde.cases import BOUNDARIES, GRIDS, coefficients, noise, spot
from tests.operators.pde.definition import plane_kernel, propagate, quadrature, symbol, terms, transfer


def close(actual, expected, tolerance=1e-12):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max()))


def test_one_mode_decays_and_moves():
    y, x = np.mgrid[:9, :10]
    ky, kx = 2 * np.pi * 2 / 9, 2 * np.pi * 3 / 10
    tensor, velocity, reaction = np.array([[0.3, 0.1], [0.1, 0.2]]), np.array([0.4, -0.7]), -0.25
    field = np.cos(ky * y + kx * x)[None]
    out = propagate(field, diffusion=tensor[None], velocity=velocity[None], reaction=np.array([reaction]), time=1.3)
    k = np.array([ky, kx])
    factor = np.exp(1.3 * (reaction - k @ tensor @ k))
    close(out[0], factor * np.cos(ky * (y - 1.3 * 0.4) + kx * (x + 1.3 * 0.7)))


def test_velocity_moves_content_forward():
    field = noise(1, 5, 6)
    close(propagate(field, velocity=np.array([[1.0, 2.0]])), np.roll(field, (1, 2), (1, 2)))


def test_nyquist_is_the_mean_of_both_signs():
    field = np.array([[[1.0, -1.0, 1.0, -1.0]]])
    close(propagate(field, velocity=np.array([[0.0, 0.3]])), np.cos(0.3 * np.pi) * field)
    both = np.array([[1.0, -1.0], [-1.0, 1.0]])[None]
    cross = np.array([[[0.2, 0.1], [0.1, 0.2]]])
    close(propagate(both, diffusion=cross), np.exp(-0.4 * np.pi**2) * np.cosh(0.2 * np.pi**2) * both)


@pytest.mark.parametrize(
    ("boundary", "ahead", "back", "first"),
    [
        ("neumann", dctn, idctn, 0),
        ("dirichlet", dstn, idstn, 1),
    ],
)
def test_reflections_are_cosine_and_sine_series(boundary, ahead, back, first):
    field, spread = noise(2, 5, 8), np.array([[0.3, 0.1], [0.05, 0.6]])
    y, x = (np.pi * (np.arange(n) + first) / n for n in (5, 8))
    decay = np.exp(-0.7 * (spread[:, 0, None, None] * y[:, None] ** 2 + spread[:, 1, None, None] * x**2))
    expected = back(decay * ahead(field, type=2, axes=(1, 2)), type=2, axes=(1, 2))
    close(propagate(field, diffusion=spread, time=0.7, boundary=boundary), expected)


def test_quadrature_integrates_and_its_panels_meet():
    k, weight = quadrature(32, 8)
    close(weight.sum(), 2 * np.pi)
    close(weight @ np.cos(7.3 * k), 2 * np.sin(7.3 * np.pi) / 7.3)


@pytest.mark.parametrize("time", [1.5, 150.7])
def test_plane_convection_is_a_sinc(time):
    kernel = plane_kernel(terms(1, None, np.array([[0.4, -1.3]]), None), 4, 6, time, "initial")
    y, x = np.arange(-3, 4), np.arange(-5, 6)
    exact = np.sinc(y - 0.4 * time)[:, None] * np.sinc(x + 1.3 * time)
    close(kernel[0] / np.abs(exact).max(), exact / np.abs(exact).max(), 1e-9)


def test_plane_diffusion_is_a_gaussian_when_well_resolved():
    tensor = np.array([[[4.0, 1.5], [1.5, 3.0]]])
    kernel = plane_kernel(terms(1, tensor, None, None), 9, 9, 1.2, "initial")
    place = np.stack(np.mgrid[-8:9, -8:9], -1)
    exponent = np.einsum("yxi,ij,yxj->yx", place, np.linalg.inv(4 * 1.2 * tensor[0]), place)
    gaussian = np.exp(-exponent) / (4 * np.pi * 1.2 * np.sqrt(np.linalg.det(tensor[0])))
    close(kernel[0], gaussian, 1e-12)


@pytest.mark.parametrize("forcing", ["initial", "constant", "steady"])
@pytest.mark.parametrize("tensor", ["none", "full"])
def test_plane_quadrature_has_converged(tensor, forcing):
    chosen = coefficients((7, 6), tensor=tensor)
    free = terms(2, chosen.get("diffusion"), chosen["velocity"], chosen["reaction"])
    coarse, fine = (plane_kernel(free, 7, 6, 0.9, forcing, extra) for extra in (0, 16))
    close(coarse, fine, 1e-9)


def test_plane_steady_convection_is_the_integral_of_sincs():
    velocity, reaction = np.array([[0.7, -1.2]]), np.array([-0.4])
    kernel = plane_kernel(terms(1, None, velocity, reaction), 5, 4, 1.0, "steady")
    place, weight = np.polynomial.legendre.leggauss(600)
    moment, weight = 40 * (1 + place), 40 * weight
    rows = np.sinc(np.arange(-4, 5)[:, None] - 0.7 * moment) * weight * np.exp(-0.4 * moment)
    close(kernel[0], rows @ np.sinc(np.arange(-3, 4)[:, None] + 1.2 * moment).T, 1e-9)


@pytest.mark.parametrize("reaction", [-1e-3, -0.3])
def test_plane_steady_kernel_with_little_decay_has_converged(reaction):
    free = terms(1, np.array([0.8]), None, np.array([reaction]))
    coarse, fine = (plane_kernel(free, 7, 6, 1.0, "steady", extra) for extra in (0, 16))
    close(coarse, fine, 1e-8)


def padded(field, free, time, forcing, side):
    """The periodic operator on a zero-padded side × side grid, cropped."""
    k = 2 * np.pi * np.fft.fftfreq(side)
    grid = np.zeros((*field.shape[:-2], side, side))
    height, width = field.shape[-2:]
    grid[..., :height, :width] = field
    return np.fft.ifft2(np.fft.fft2(grid) * transfer(symbol(free, k, k), time, forcing)).real[..., :height, :width]


def test_plane_is_the_limit_of_padding_where_tails_are_short():
    free = terms(1, np.array([1.2]), np.array([[0.8, -0.5]]), np.array([-0.5]))
    field = noise(1, 5, 6)
    given = {"diffusion": np.array([1.2]), "velocity": np.array([[0.8, -0.5]]), "reaction": np.array([-0.5])}
    for time, side in [(1.5, 63), (0.9, 513)]:
        exact = propagate(field, **given, time=time, boundary="absorbing")
        close(padded(field, free, time, "initial", side), exact, 1e-6)


def test_padding_converges_slowly_where_the_kernel_rings():
    free = terms(1, None, np.array([[0.5, 0.0]]), None)
    field = noise(1, 4, 4)
    exact = propagate(field, velocity=np.array([[0.5, 0.0]]), boundary="absorbing")
    errors = [np.abs(padded(field, free, 1.0, "initial", side) - exact).max() for side in (65, 129, 257)]
    assert errors[0] > 1e-5
    assert all(before / after > 1.8 for before, after in pairwise(errors))


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_constant_forcing_is_the_integral_of_free_motion(grid, boundary):
    field, chosen = noise(2, *grid), coefficients(grid, tensor="full")
    place, weight = np.polynomial.legendre.leggauss(14)
    moments = 0.8 * (1 + place) / 2
    integral = sum(
        0.4 * w * propagate(field, **chosen, time=t, boundary=boundary) for t, w in zip(moments, weight, strict=True)
    )
    close(propagate(field, **chosen, time=0.8, boundary=boundary, forcing="constant"), integral, 1e-10)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_steady_is_constant_forcing_for_ever(boundary):
    field, chosen = noise(2, 4, 5), coefficients((4, 5), tensor="full")
    chosen["reaction"] -= 2
    steady = propagate(field, **chosen, forcing="steady", boundary=boundary)
    close(propagate(field, **chosen, time=12.0, forcing="constant", boundary=boundary), steady, 1e-10)


def test_constant_forcing_at_zero_symbol():
    field = noise(1, 3, 4)
    close(propagate(field, time=2.5, forcing="constant"), 2.5 * field)


def test_absorbing_by_padding_a_large_periodic_grid():
    field, velocity = spot(5, 6), np.array([[1.0, 0.0]])
    wide = np.pad(field, ((0, 0), (20, 20), (20, 20)))
    given = {"diffusion": np.array([2.0]), "velocity": velocity}
    close(propagate(field, **given, boundary="absorbing"), propagate(wide, **given)[:, 20:25, 20:26], 1e-8)


def test_image_units_scale_with_the_grid():
    field = noise(2, 4, 9)
    chosen = coefficients((4, 9), tensor="full", units="image")
    pixels = definition.in_pixels(terms(2, **chosen), 4, 9, "image")
    close(pixels[0], chosen["diffusion"] * 36)
    close(pixels[1], chosen["velocity"] * 6)
    direct = propagate(field, diffusion=pixels[0], velocity=pixels[1], reaction=pixels[2])
    close(propagate(field, **chosen, units="image"), direct)
