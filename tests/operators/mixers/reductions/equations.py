"""Arrows from equations: `pde_ssm` of either order in time, `vheat` and `gspn`."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch

from operators import scan
from operators.pde import propagate
from operators.pde.flows.reaction import react, strang
from operators.testing.checks import relative_error
from tests.operators.mixers.drawn import assert_same_function, image, make, set_to

WIDTH = 4
EXACT = 1e-12
GRIDS = ((5, 7), (4, 6))


def equation(grid, *terms, skip=0.0, method="fft", **params):
    """One state per channel, its solution alone for output, with random coefficients of order one."""
    mixer = make("pde_ssm", WIDTH, grid=grid, terms=list(terms), state=1, method=method, **params)
    set_to(1.0, mixer.core.readout)
    set_to(skip, mixer.core.skip)
    return mixer


def with_diffusion(mixer, variance):
    """The tensor K in pixels², isotropic or by axis: K = length² / 2 in units of an image of area 1."""
    pixels = math.prod(mixer.core.grid)
    set_to((2 * torch.as_tensor(variance, dtype=torch.float64) / pixels).log() / 2, mixer.core.log_length)
    return mixer


def with_reaction(mixer, rate):
    """The rate r in (−8, 0)."""
    set_to(math.log(rate / (-8 - rate)), mixer.core.reaction_logit)
    return mixer


def channels_first(function):
    """A function of fields (B, M, H, W) as one of images."""
    return lambda x: function(x.movedim(-1, 1)).movedim(1, -1)


def coefficients(mixer, grid):
    """Diffusion (M, 2) and velocity (M, 2) in pixels, and r (M,), of a mixer with one state."""
    c = mixer.core._in_pixels(mixer.core.solve_coefficients(torch.zeros(1, *grid, WIDTH).double(), None), *grid)
    diffusion = torch.stack([c.kyy, c.kxx], -1)[:, 0]
    velocity = None if c.vy is None else torch.stack([c.vy, c.vx], -1)[:, 0]
    return diffusion, velocity, None if c.r is None else c.r[:, 0]


# ---------------------------------------------------------------- PDE-SSM


def pde_ssm_of_whole_drifts_rolls_the_image():
    for grid in GRIDS:
        mixer = equation(grid, "convection")
        set_to([2 / math.prod(grid) ** 0.5, -3 / math.prod(grid) ** 0.5], mixer.core.velocity)
        assert_same_function(mixer, lambda x: x.roll((2, -3), (1, 2)), image(*grid, width=WIDTH), 1e-11)


def pde_ssm_without_time_is_the_identity():
    """All coefficients near zero: over a short time only their products with it count."""
    for grid in GRIDS:
        mixer = equation(grid, "convection", "diffusion", "reaction")
        set_to(-20.0, mixer.core.log_length)
        set_to(2.0**-44, mixer.core.velocity)
        set_to(-32.0, mixer.core.reaction_logit)
        assert_same_function(mixer, lambda x: x, image(*grid, width=WIDTH), 1e-11)


def pde_ssm_of_diagonal_diffusion_is_a_separable_convolution():
    """A circulant matrix along rows and one along columns, whose kernels are sums of waves written out."""

    def circulant(length, diffusion, velocity):
        place = torch.arange(length)
        kernel = torch.zeros(WIDTH, length, dtype=torch.float64)
        for n in range(length):
            k = 2 * math.pi * (n if 2 * n < length else n - length) / length
            angle = k * (place - velocity[:, None])
            wave = (k * place).cos() * (k * velocity[:, None]).cos() if 2 * n == length else angle.cos()
            kernel = kernel + (-diffusion * k**2).exp()[:, None] * wave / length
        return kernel[:, (place[:, None] - place) % length]

    for grid in GRIDS:
        mixer = equation(grid, "convection", "diffusion", "reaction")
        diffusion, velocity, r = coefficients(mixer, grid)
        rows, columns = (circulant(grid[axis], diffusion[:, axis], velocity[:, axis]) for axis in (0, 1))

        def separable(x, rows=rows, columns=columns, r=r):
            return torch.einsum("cik,cjl,bklc->bijc", rows, columns, x) * r.exp()

        assert_same_function(mixer, separable, image(*grid, width=WIDTH), 1e-11)


def pde_ssm_on_the_even_extension_is_vheat():
    """Isotropic and without drift, on a periodic grid of twice the sides, for a k that all frequencies share."""
    grid, k = (5, 6), torch.tensor([0.0, 0.1, 1.0, 3.0], dtype=torch.float64)
    vheat = make("vheat", WIDTH, grid=grid)
    set_to(0.0, vheat.core.to_k.weight)
    set_to(k, vheat.core.to_k.bias)
    mixer = equation((10, 12), "diffusion", tensor="isotropic")
    with_diffusion(mixer, k.clamp(min=1e-300)[:, None, None])

    def extended(x):
        x = torch.cat([x, x.flip(1)], 1)
        return mixer(torch.cat([x, x.flip(2)], 2))[:, :5, :6]

    assert_same_function(extended, vheat, image(*grid, width=WIDTH))


# ---------------------------------------------------------------- vHeat


def vheat_of(grid, k):
    mixer = make("vheat", WIDTH, grid=grid)
    set_to(0.0, mixer.core.to_k.weight)
    set_to(k, mixer.core.to_k.bias)
    return mixer


def vheat_with_one_diffusivity_is_neumann_diffusion():
    k = torch.tensor([0.0, 0.1, 1.0, 3.0], dtype=torch.float64)
    solve = partial(propagate, diffusion=k, boundary="neumann")
    assert_same_function(vheat_of((5, 6), k), channels_first(solve), image(5, 6, width=WIDTH))


def vheat_without_diffusion_is_the_identity():
    assert_same_function(vheat_of((5, 6), 0.0), lambda x: x, image(5, 6, width=WIDTH))


def vheat_of_endless_diffusion_is_the_mean():
    def mean(x):
        return x.mean((1, 2), keepdim=True).expand_as(x)

    assert_same_function(vheat_of((5, 6), 1e9), mean, image(5, 6, width=WIDTH))


# ---------------------------------------------------------------- GSPN


def gspn_of_equal_tokens(weights, merge=(1.0, 0.0, 0.0, 0.0)):
    """GSPN with the same neighbours' weights everywhere, λ = c = 1 and d = 0, as a function of fields (B, H, W)."""
    mixer = make("gspn", 2, rank=1)
    core = mixer.core
    set_to([[0.0, 1.0]], core.down.weight)  # all maps are made of the second channel, which is 1
    logits = torch.tensor(weights, dtype=torch.float64).clamp(1e-300, 1 - 1e-16).logit()
    made = torch.cat([logits, torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)])
    set_to(made[None, :, None], core.up.weight.view(4, 6, 2))
    set_to(merge, core.merge)
    return lambda field: mixer(torch.stack([field, torch.ones_like(field)], -1))[..., 0]


def gspn_of_the_middle_neighbour_alone_is_a_running_sum():
    """In all four directions, each of which is S6 with a = 1 along its lines."""
    merge = (0.7, -1.3, 0.4, 2.0)
    mixer = gspn_of_equal_tokens([0.0, 1.0, 0.0], merge)

    def sums(field):
        total = 0
        for weight, (axis, reverse) in zip(merge, ((2, False), (1, False), (2, True), (1, True)), strict=True):
            lines = field.movedim(axis, -1)
            one = torch.ones_like(lines[:, :1])
            y = scan.selective_scan(
                lines, torch.ones_like(lines), torch.zeros(lines.shape[1], 1).to(one), one, one,
                backend="reference", reverse=reverse,
            )  # fmt: skip
            total = total + weight * y.movedim(-1, axis)
        return total

    assert_same_function(mixer, sums, image(4, 5, width=1)[..., 0])


def gspn_of_constant_gates_is_discrete_convection_and_diffusion():
    """What stands on the first line: n steps of the upwind scheme of its drift and variance after n lines.

    Away from the ends of a line, that is as far as n steps have not reached them.
    """
    weights = [0.5, 0.3, 0.2]
    mixer = gspn_of_equal_tokens(weights)
    drift, variance = weights[0] - weights[2], weights[0] + weights[2]

    def line(n):
        def after(first):
            field = torch.nn.functional.pad(first[..., None], (0, 3))
            return mixer(field)[:, n : 9 - n, n]

        return after

    def steps(n):
        def after(h):
            for _ in range(n):
                left, right = h.roll(1, -1), h.roll(-1, -1)
                h = h - drift * (right - left) / 2 + variance * (right - 2 * h + left) / 2
            return h[:, n : 9 - n]

        return after

    for n in (1, 2, 3):
        assert_same_function(line(n), steps(n), image(1, 9, width=1)[:, 0, :, 0])


# ---------------------------------------------------------------- the telegraph equation


def wave(grid, *terms, damping, variance, tensor="isotropic", velocity="zero"):
    mixer = equation(grid, "diffusion", *terms, order=2, tensor=tensor, initial_velocity=velocity)
    set_to(-torch.inf if damping == 0 else math.log(damping), mixer.core.log_damping)
    return with_diffusion(mixer, variance)


def telegraph_of_strong_damping_is_pde_ssm():
    """K and v times a, for a → ∞: the error falls as 1 / a."""
    grid, x = (5, 6), image(5, 6, width=WIDTH)
    errors = []
    for damping in (1e3, 1e4):
        mixer = wave(grid, "convection", damping=damping, variance=damping * 0.6)
        set_to(torch.tensor([0.02, -0.01]) * (1e3 / damping) ** 0.5, mixer.core.velocity)
        diffusion, velocity, _ = coefficients(mixer, grid)
        first = with_diffusion(equation(grid, "diffusion", "convection"), diffusion[:, None] / damping)
        set_to(velocity[:, None] / damping / math.prod(grid) ** 0.5, first.core.velocity)
        assert velocity.abs().max() > 0.1 * damping
        errors.append(relative_error(mixer(x), first(x)))
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)
    assert errors[1] < 1e-3


def telegraph_without_damping_is_the_wave_equation():
    """cos(c |k|) by mode, c² = K."""
    grid = (5, 7)
    mixer = wave(grid, damping=0, variance=2.3)
    k = (2 * math.pi * torch.fft.fftfreq(n, dtype=torch.float64) for n in grid)
    size = torch.stack(torch.meshgrid(*k, indexing="ij")).norm(dim=0)[..., None]

    def swung(x):
        return torch.fft.ifft2(torch.fft.fft2(x, dim=(1, 2)) * (2.3**0.5 * size).cos(), dim=(1, 2)).real

    assert_same_function(mixer, swung, image(*grid, width=WIDTH))


def telegraph_at_heavisides_condition_is_a_wave_that_only_fades():
    """r = −a²/4 and a start at the rate −a/2."""
    for grid in GRIDS:
        damped = with_reaction(wave(grid, "reaction", damping=2.0, variance=2.3, velocity="decay"), -1.0)
        free = wave(grid, damping=0, variance=2.3)
        assert_same_function(damped, lambda x, free=free: math.exp(-1) * free(x), image(*grid, width=WIDTH))


def telegraph_along_one_axis_is_the_mean_of_two_rolls():
    for grid in GRIDS:
        mixer = wave(grid, damping=0, variance=9.0)

        def rolled(line, grid=grid):
            line = line.expand(-1, grid[0], -1, -1)
            return (line.roll(3, 2) + line.roll(-3, 2)) / 2

        assert_same_function(
            lambda line, mixer=mixer, grid=grid: mixer(line.expand(-1, grid[0], -1, -1)),
            rolled,
            image(1, grid[1], width=WIDTH),
        )


# ---------------------------------------------------------------- reactions


def a_linear_reaction_split_off_is_pde_ssm():
    """Whatever the number of steps, on an odd grid: it commutes with the propagator."""
    grid = (5, 7)
    mixer = equation(grid, "convection", "diffusion", "reaction")
    diffusion, velocity, r = coefficients(mixer, grid)
    for steps in (1, 3):
        half, whole = (
            partial(propagate, diffusion=diffusion, velocity=velocity, time=1 / (parts * steps)) for parts in (2, 1)
        )
        gain = (r / steps).exp()[:, None, None]
        split = partial(strang, steps=steps, half=half, whole=whole, flow=lambda u, gain=gain: gain * u)
        assert_same_function(channels_first(split), mixer, image(*grid, width=WIDTH), 1e-11)


def a_reaction_without_diffusion_is_a_pointwise_flow():
    for kind, rate in (("allen_cahn", 0.9), ("logistic", 2.0)):
        mixer = equation((3, 5), nonlinearity=kind, steps=2, method="auto")
        set_to(math.log(rate / (8 - rate)), mixer.core.rate_logit)
        flow = partial(react, rate=torch.tensor(rate, dtype=torch.float64), nonlinearity=kind)
        begin = torch.sigmoid if kind == "logistic" else torch.clone
        assert mixer.backend == "pointwise"
        assert_same_function(mixer, lambda x, flow=flow, begin=begin: flow(begin(x)), image(3, 5, width=WIDTH))


def a_reaction_on_a_constant_image_is_a_pointwise_flow():
    for kind, rate in (("allen_cahn", 0.9), ("logistic", 2.0)):
        mixer = equation((4, 5), "convection", "diffusion", nonlinearity=kind, steps=3)
        set_to(math.log(rate / (8 - rate)), mixer.core.rate_logit)
        flow = partial(react, rate=torch.tensor(rate, dtype=torch.float64), nonlinearity=kind)
        begin = torch.sigmoid if kind == "logistic" else torch.clone
        assert_same_function(
            lambda x, mixer=mixer: mixer(x.expand(-1, 4, 5, -1)),
            lambda x, flow=flow, begin=begin: flow(begin(x)).expand(-1, 4, 5, -1),
            image(1, 1, width=WIDTH),
        )


ARROWS: list[tuple[str, Callable[[], None]]] = [
    ("PDE-SSM, K = r = 0, b whole -> circular roll", pde_ssm_of_whole_drifts_rolls_the_image),
    ("PDE-SSM, tau -> 0 -> identity", pde_ssm_without_time_is_the_identity),
    ("PDE-SSM, K diagonal -> separable convolution", pde_ssm_of_diagonal_diffusion_is_a_separable_convolution),
    ("PDE-SSM on the even extension -> vHeat, constant k", pde_ssm_on_the_even_extension_is_vheat),
    ("vHeat, constant k -> Neumann diffusion", vheat_with_one_diffusivity_is_neumann_diffusion),
    ("vHeat, k -> 0 -> identity", vheat_without_diffusion_is_the_identity),
    ("vHeat, k -> inf -> global mean", vheat_of_endless_diffusion_is_the_mean),
    ("GSPN, P_0 = 1 -> cumulative sum per line", gspn_of_the_middle_neighbour_alone_is_a_running_sum),
    ("GSPN, constant gates -> convection-diffusion", gspn_of_constant_gates_is_discrete_convection_and_diffusion),
    ("telegraph, a -> inf -> PDE-SSM", telegraph_of_strong_damping_is_pde_ssm),
    ("telegraph, a = 0 -> wave", telegraph_without_damping_is_the_wave_equation),
    ("telegraph, r = -a^2/4 -> distortionless wave", telegraph_at_heavisides_condition_is_a_wave_that_only_fades),
    ("telegraph, one axis constant, a = 0 -> mean of two rolls", telegraph_along_one_axis_is_the_mean_of_two_rolls),
    ("reaction-diffusion, R linear -> PDE-SSM with r", a_linear_reaction_split_off_is_pde_ssm),
    ("reaction-diffusion, D = 0 -> pointwise flow", a_reaction_without_diffusion_is_a_pointwise_flow),
    ("reaction-diffusion, constant image -> pointwise flow", a_reaction_on_a_constant_image_is_a_pointwise_flow),
]
