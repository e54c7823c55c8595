"""Arrows from spectral mixers."""

import torch

import operators
from operators.pde.propagators import summed_transfer
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


ARROWS = [
    ("fno -> gfnet", fno_is_gfnet),
    ("pde_ssm -> gfnet", pde_ssm_is_gfnet),
]
