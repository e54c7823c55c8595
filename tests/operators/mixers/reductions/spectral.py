"""Arrows from spectral mixers, and to them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

import operators
from operators.pde.propagators import axis_matrices
from operators.spectral.monarch import multiply
from operators.testing.cases import noise
from operators.testing.checks import assert_close
from tests.operators.mixers.drawn import assert_same_function, set_to

WIDTH = 6
GRIDS = ((5, 7), (4, 6))


def bare(name, grid, *, seed=0, **params):
    torch.manual_seed(seed)
    return operators.create(name, WIDTH, grid=grid, shell=operators.BARE, **params).double()


def image(grid, *, batch=2):
    return noise(batch, *grid, WIDTH, dtype=torch.float64, seed=9)


def propagator(pde, grid):
    """The transfer function of a whole `pde_ssm`, (D, H, W // 2 + 1): exp(−k·K k − i v·k + r), summed over states.

    At the highest wave of an even side, which is its own conjugate, the mean of both signs.
    """
    core = pde.core
    c = core._in_pixels(core.solve_coefficients(image(grid), None), *grid)

    def along(length, diffusion, velocity, waves):
        k = 2 * math.pi * torch.arange(waves, dtype=torch.float64) / length
        k = torch.where(k > math.pi, k - 2 * math.pi, k)
        phase = velocity[..., None] * k
        sine = torch.where(2 * torch.arange(waves) == length, 0, phase.sin())
        return (-diffusion[..., None] * k**2).exp() * torch.complex(phase.cos(), -sine)

    height, width = grid
    rows, columns = along(height, c.kyy, c.vy, height), along(width, c.kxx, c.vx, width // 2 + 1)
    weight = core.readout * c.r.exp()
    return torch.einsum("ds,dsk,dsm->dkm", weight.to(rows.dtype), rows, columns) + core.skip[:, None, None]


# ---------------------------------------------------------------- filters


def pde_ssm_is_gfnet():
    """A propagator on a periodic grid is a filter."""
    for grid in GRIDS:
        pde, filtering = bare("pde_ssm", grid, method="fft"), bare("gfnet", grid, backend="fft")
        set_to(torch.view_as_real(propagator(pde, grid)).permute(3, 1, 2, 0), filtering.core.filter)
        assert_same_function(pde, filtering, image(grid), 1e-10)


def fno_is_gfnet():
    """All waves, diagonal matrices, and nothing for each token."""
    for grid in GRIDS:
        layer, filtering = bare("fno", grid, modes=(4, 4)), bare("gfnet", grid, backend="fft")
        height, width = grid
        set_to(0.0, layer.core.pointwise.weight, layer.core.pointwise.bias, layer.core.matrices)
        for k in range(height):
            signed = k if 2 * k < height else k - height
            for m in range(width // 2 + 1):
                for part in range(2):
                    diagonal = filtering.core.filter[part, k, m]
                    set_to(torch.diag(diagonal), layer.core.matrices[signed + 4, m, :, part])
        assert_same_function(layer, filtering, image(grid), 1e-10)


def pde_ssm_is_monarch():
    """One state, no term skip u: a matrix along rows and one along columns, the same for all of them, by channel."""
    for grid in GRIDS:
        pde, monarch = bare("pde_ssm", grid, state=1, method="fft"), bare("monarch", grid, heads=WIDTH)
        core, (height, width) = pde.core, grid
        set_to(0.0, core.skip)
        coefficients = core._in_pixels(core.solve_coefficients(image(grid), None), *grid)
        across, along = axis_matrices(coefficients, *grid, "periodic", core.readout)
        set_to(across.expand(-1, width, -1, -1), monarch.core.columns)
        set_to(along.expand(-1, height, -1, -1), monarch.core.rows)
        assert_same_function(pde, monarch, image(grid), 1e-10)


# ---------------------------------------------------------------- HyenaND, Hyena-ND, HyenaPixel


def between_open_gates(hyena, circular):
    """HyenaND whose gates are 1, without its norms, and with the kernel `circular` (H, W, D) at offsets from 0 on."""
    height, width = circular.shape[:2]
    kernel = F.pad(circular, (0, 0, width - 1, 0, height - 1, 0))
    hyena.core.kernel = lambda height, width: kernel
    hyena.core.enter = lambda u, a: u
    hyena.core.leave = lambda h, b: h
    set_to(0.0, hyena.core.skip_factor)
    return hyena


def hyena_siren_is_gfnet():
    """On a periodic grid, with the kernel that the filter has."""
    for grid in GRIDS:
        filtering = bare("gfnet", grid, backend="fft")
        circular = torch.fft.irfft2(torch.complex(*filtering.core.filter), s=grid, dim=(0, 1)).detach()
        hyena = between_open_gates(bare("hyena_siren", grid, boundary="periodic", backend="fft"), circular)
        assert_same_function(hyena, filtering, image(grid), 1e-10)


def hyena_siren_is_pde_ssm():
    """On a periodic grid, with the kernel of the propagator."""
    for grid in GRIDS:
        pde = bare("pde_ssm", grid, method="fft")
        circular = torch.fft.irfft2(propagator(pde, grid), s=grid).movedim(0, -1).detach()
        hyena = between_open_gates(bare("hyena_siren", grid, boundary="periodic", backend="fft"), circular)
        assert_same_function(hyena, pde, image(grid), 1e-10)


def hyena_siren_of_a_constant_network_is_a_separable_blur():
    """Its Gaussian window alone: two matrices, and the heat that diffuses on an unbounded plane.

    The sampled Gaussian and the band-limited kernel of heat differ by exp(−(π σ)² / 2), for σ in tokens.
    """
    grid, deviations = (7, 9), [2.0, 2.5]
    hyena = bare("hyena_siren", grid, window="gaussian", backend="fft")
    core = hyena.core
    set_to(0.0, core.network.layers[-1].weight, core.skip_factor)
    set_to(1.0, core.network.layers[-1].bias)
    core.enter = lambda u, a: u
    core.leave = lambda h, b: h
    matrices = []
    for length, deviation, sigma in zip(grid, deviations, core.sigma, strict=True):
        set_to(deviation / (length - 1), sigma)
        place = torch.arange(length, dtype=torch.float64)
        matrices.append((-((place[:, None] - place) ** 2) / (2 * deviation**2)).exp())

    def blurred(x):
        return torch.einsum("ik,jl,bklc->bijc", *matrices, x)

    assert_same_function(hyena, blurred, image(grid))
    pde = bare("pde_ssm", grid, terms=["diffusion"], state=1, boundary="absorbing", method="fft")
    set_to([math.log(d / math.prod(grid) ** 0.5) for d in deviations], pde.core.log_length)
    set_to(2 * math.pi * math.prod(deviations), pde.core.readout)
    set_to(0.0, pde.core.skip)
    assert_same_function(hyena, pde, image(grid), 1e-6)


def impulse(core):
    """A filter that is one at offset 0 and zero elsewhere, without a skip."""

    def kernel(height, width):
        made = torch.zeros(2 * height - 1, 2 * width - 1, WIDTH, dtype=torch.float64)
        made[height - 1, width - 1] = 1
        return made

    core.kernel = kernel
    core.skip = lambda: torch.zeros(WIDTH, dtype=torch.float64)
    return core


def hyena_siren_of_a_delta_is_a_pointwise_gate():
    """RMS(q / |q| · SiLU(k)) · σ(v), written out, with q = u."""
    hyena = bare("hyena_siren", (5, 7), backend="fft")
    core = impulse(hyena.core)
    set_to(torch.linspace(0.5, 2, WIDTH), core.norm)

    def gated(x):
        k, v = core.maps(x).chunk(2, -1)
        z = x / x.square().sum(-1, keepdim=True).sqrt() * k / (1 + (-k).exp())
        z = core.norm * z / (z.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return z / (1 + (-v).exp())

    assert_same_function(hyena, gated, image((5, 7)))


def hyena_pixel_of_a_delta_is_a_pointwise_product():
    """q · k · v without its norm, LN(q · k) · v with it."""
    for norm in (False, True):
        hyena = bare("hyena_pixel", (5, 7), norm=norm, backend="fft")
        core = impulse(hyena.core)

        def product(x, core=core):
            k, v = core.maps(x).chunk(2, -1)
            z = x * k
            if core.scale is not None:
                z = z - z.mean(-1, keepdim=True)
                z = core.scale * z / (z.square().mean(-1, keepdim=True) + 1e-5).sqrt()
            return z * v

        assert_same_function(hyena, product, image((5, 7)))


def hyena_nd_of_a_product_filter_is_a_separable_convolution():
    """Without gates, which the maps' biases set to 1: a causal convolution along rows, and one along columns."""
    for grid in GRIDS:
        hyena = bare("hyena_nd", grid, directions=1, separable=True, backend="fft")
        core = hyena.core
        set_to(0.0, core.maps.weight, core.s)
        set_to(1.0, core.maps.bias)
        features = core.row_filter.layers[0].in_features

        def lines(network, length, core=core, features=features):
            """Number by number: t from 0 to 1, the cosine and the sine of one slow wave, and the window."""
            rows = []
            for i in range(length):
                t, phase = i / (length - 1), 1e-4 * 2 * math.pi * i / length
                place = torch.tensor([t, math.cos(phase), -math.sin(phase)], dtype=torch.float64)
                assert len(place) == features
                rows.append(network(place) * (-core.decay * t).exp())
            return torch.stack(rows)

        down, along = lines(core.row_filter, grid[0]), lines(core.filter, grid[1])

        def separable(x, down=down, along=along, grid=grid):
            height, width = grid
            y = sum(F.pad(along[m] * x, (0, 0, m, 0))[:, :, :width] for m in range(width))
            return sum(F.pad(down[n] * y, (0, 0, 0, 0, n, 0))[:, :height] for n in range(height))

        assert_same_function(hyena, separable, image(grid))


# ---------------------------------------------------------------- AFNO


def without_kink(afno):
    """Biases so large that the rectifier never rectifies, taken off again after the second layer."""
    core = afno.core
    set_to(1e3, core.b1)
    after = torch.complex(*core.b1)[:, None] @ torch.complex(*core.w2)
    set_to(-torch.view_as_real(after)[:, 0].movedim(-1, 0), core.b2)
    return afno


def afno_without_rectifier_and_shrinkage_is_a_convolution():
    for grid in GRIDS:
        afno = bare("afno", grid, sparsity=0.0, blocks=3)
        for weight in (afno.core.w1, afno.core.w2):
            set_to(20 * weight, weight)
        without_kink(afno)

        def moved_before(x, afno=afno):
            return afno(x.roll((1, 2), (1, 2)))

        def moved_after(x, afno=afno):
            return afno(x).roll((1, 2), (1, 2))

        assert_same_function(moved_before, moved_after, image(grid), 1e-9)


def afno_of_the_identity_network_doubles():
    for grid in GRIDS:
        afno = bare("afno", grid, sparsity=0.0, blocks=3)
        for weight in (afno.core.w1, afno.core.w2):
            set_to(0.0, weight)
            set_to(torch.eye(2), weight[0])
        assert_same_function(without_kink(afno), lambda x: 2 * x, image(grid), 1e-10)


# ---------------------------------------------------------------- Monarch


def fourier(length):
    """The matrix of the discrete Fourier transform."""
    n = torch.arange(length)
    return torch.polar(torch.ones(length, length).double(), -2 * math.pi * (n[:, None] * n).double() / length)


def monarch_of_fourier_blocks_is_the_transform_of_a_sequence():
    """Of all N tokens, with twiddle factors in the second matrix; wave k + H m stands at row k, column m."""
    for height, width in ((3, 5), (4, 4)):
        k, j = torch.arange(height)[:, None], torch.arange(width)
        twiddles = torch.polar(torch.ones(height, width).double(), -2 * math.pi * (k * j).double() / (height * width))
        columns = fourier(height).expand(1, width, -1, -1)
        rows = (fourier(width) * twiddles[:, None])[None]
        sequence = torch.complex(image((height, width)), noise(2, height, width, WIDTH, dtype=torch.float64, seed=3))
        waves = multiply(sequence[:, :, :, None], columns, rows)[:, :, :, 0]
        expected = torch.fft.fft(sequence.flatten(1, 2), dim=1)
        assert_close(waves.transpose(1, 2).flatten(1, 2), expected, 1e-12, "waves")


def monarch_of_fourier_blocks_without_twiddles_is_the_transform_of_an_image():
    columns, rows = fourier(3).expand(1, 5, -1, -1), fourier(5).expand(1, 3, -1, -1)
    field = torch.complex(image((3, 5)), noise(2, 3, 5, WIDTH, dtype=torch.float64, seed=3))
    waves = multiply(field[:, :, :, None], columns, rows)[:, :, :, 0]
    assert_close(waves, torch.fft.fft2(field, dim=(1, 2)), 1e-12, "waves")


ARROWS: list[tuple[str, Callable[[], None]]] = [
    ("PDE-SSM, K_GF = G(k) -> GFNet", pde_ssm_is_gfnet),
    ("PDE-SSM, one state, K diagonal -> Monarch", pde_ssm_is_monarch),
    ("FNO, all modes, diagonal R -> GFNet", fno_is_gfnet),
    ("HyenaND, gates 1, K = IFFT(G) -> GFNet", hyena_siren_is_gfnet),
    ("HyenaND, gates 1, K = IFFT(PDE symbol) -> PDE-SSM", hyena_siren_is_pde_ssm),
    ("HyenaND, SIREN constant, window -> separable blur", hyena_siren_of_a_constant_network_is_a_separable_blur),
    ("HyenaND, K = delta -> pointwise gate", hyena_siren_of_a_delta_is_a_pointwise_gate),
    ("HyenaPixel, kernel delta -> q * k * v", hyena_pixel_of_a_delta_is_a_pointwise_product),
    (
        "Hyena-ND, product filter, no gates -> separable convolution",
        hyena_nd_of_a_product_filter_is_a_separable_convolution,
    ),
    ("AFNO, linear MLP -> circular convolution", afno_without_rectifier_and_shrinkage_is_a_convolution),
    ("AFNO, W1 W2 = I -> 2 x", afno_of_the_identity_network_doubles),
    ("Monarch, DFT blocks with twiddles -> N-point DFT", monarch_of_fourier_blocks_is_the_transform_of_a_sequence),
    ("Monarch, DFT blocks -> 2-D DFT", monarch_of_fourier_blocks_without_twiddles_is_the_transform_of_an_image),
]
