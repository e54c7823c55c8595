"""Arrows from spectral mixers."""

import torch

import operators
from operators.pde.propagators import axis_matrices, summed_transfer
from operators.testing.cases import noise
from operators.testing.checks import assert_close

WIDTH = 6
GRIDS = ((5, 7), (4, 6))


def bare(name, grid, *, seed=0, **params):
    torch.manual_seed(seed)
    return operators.create(name, WIDTH, grid=grid, shell=operators.BARE, **params).double()


def image(grid, *, batch=2):
    return noise(batch, *grid, WIDTH, dtype=torch.float64, seed=9)


def pde_ssm_is_gfnet():
    """A propagator on a periodic grid is a filter."""
    for grid in GRIDS:
        pde, filtering, x = bare("pde_ssm", grid, method="fft"), bare("gfnet", grid), image(grid)
        core = pde.core
        coefficients = core._in_pixels(core.solve_coefficients(x, None), *grid)
        response = summed_transfer(coefficients, core.readout[:, None], *grid, "periodic", "initial")[:, 0]
        response = response + core.skip[:, None, None]
        with torch.no_grad():
            filtering.core.filter.copy_(torch.view_as_real(response).permute(3, 1, 2, 0))
        assert_close(filtering(x), pde(x), 1e-10, "output")


def fno_is_gfnet():
    """All waves, diagonal matrices, and nothing for each token."""
    for grid in GRIDS:
        layer, filtering, x = bare("fno", grid, modes=(4, 4)), bare("gfnet", grid), image(grid)
        height, width = grid
        with torch.no_grad():
            layer.core.pointwise.weight.zero_()
            layer.core.pointwise.bias.zero_()
            layer.core.matrices.zero_()
            for k in range(height):
                signed = k if 2 * k < height else k - height
                for m in range(width // 2 + 1):
                    for part in range(2):
                        diagonal = filtering.core.filter[part, k, m]
                        layer.core.matrices[signed + 4, m, :, part].copy_(torch.diag(diagonal))
        assert_close(layer(x), filtering(x), 1e-10, "output")


def hyena_siren_is_gfnet():
    """Gates apart, on a periodic grid, with the kernel that the filter has."""
    for grid in GRIDS:
        hyena, filtering, x = bare("hyena_siren", grid, boundary="periodic"), bare("gfnet", grid), image(grid)
        height, width = grid
        circular = torch.fft.irfft2(torch.complex(*filtering.core.filter), s=grid, dim=(0, 1))
        kernel = torch.zeros(2 * height - 1, 2 * width - 1, WIDTH, dtype=torch.float64)
        kernel[height - 1 :, width - 1 :] = circular  # of the offsets that are the same on this grid, those from 0 on
        hyena.core.kernel = lambda height, width, kernel=kernel: kernel
        torch.nn.init.zeros_(hyena.core.skip_factor)
        assert_close(hyena.core.apply_filter(x, hyena.core.response(*grid)), filtering(x), 1e-10, "output")


def pde_ssm_is_monarch():
    """One state, no term skip u: a matrix along rows and one along columns, the same for all of them, by channel."""
    for grid in GRIDS:
        pde, monarch, x = bare("pde_ssm", grid, state=1), bare("monarch", grid, heads=WIDTH), image(grid)
        core, (height, width) = pde.core, grid
        torch.nn.init.zeros_(core.skip)
        coefficients = core._in_pixels(core.solve_coefficients(x, None), *grid)
        across, along = axis_matrices(coefficients, *grid, "periodic", core.readout)
        with torch.no_grad():
            monarch.core.columns.copy_(across.expand(-1, width, -1, -1))
            monarch.core.rows.copy_(along.expand(-1, height, -1, -1))
        assert_close(monarch(x), pde(x), 1e-10, "output")


ARROWS = [
    ("hyena_siren -> gfnet", hyena_siren_is_gfnet),
    ("pde_ssm -> monarch", pde_ssm_is_monarch),
    ("fno -> gfnet", fno_is_gfnet),
    ("pde_ssm -> gfnet", pde_ssm_is_gfnet),
]
