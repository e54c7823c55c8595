"""Arrows from equations."""

from __future__ import annotations

from collections.abc import Callable

import torch

import operators
from operators.pde import propagate
from operators.testing.cases import noise, run
from operators.testing.checks import assert_close


def vheat_with_one_diffusivity_is_neumann_diffusion() -> None:
    mixer = operators.create("vheat", 3, grid=(5, 6), shell=operators.BARE).double()
    x, k = noise(2, 5, 6, 3, dtype=torch.float64), torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    with torch.no_grad():
        mixer.core.to_k.weight.zero_()
        mixer.core.to_k.bias.copy_(k)
    expected = propagate(x.permute(0, 3, 1, 2), diffusion=k, boundary="neumann").permute(0, 2, 3, 1)
    assert_close(run(mixer, x), expected, 1e-12, "diffusion between insulated borders")


def gspn_with_equal_weights_is_binomial_diffusion_by_line() -> None:
    """G = 0: away from the ends of a line each step averages three neighbours, as explicit diffusion with K = 1/3."""
    mixer = operators.create("gspn", 2, rank=1, shell=operators.BARE).double()
    x = noise(1, 9, 3, 2, dtype=torch.float64)
    x[..., 1] = 1  # from which λ and c are made
    x[:, :, 1:, 0] = 0
    x[:, [0, 1, -2, -1], :, 0] = 0
    with torch.no_grad():
        mixer.core.down.weight.copy_(torch.tensor([[0.0, 1.0]]))
        mixer.core.up.weight.zero_()
        mixer.core.up.weight.view(4, 6, 2)[0, 3:5, 0] = 1
        mixer.core.merge.copy_(torch.tensor([1.0, 0, 0, 0]))
    h = x[0, :, 0, 0]
    for column in (1, 2):
        h = h + (h.roll(1) - 2 * h + h.roll(-1)) / 3
        assert_close(run(mixer, x)[0, 2:-2, column, 0], h[2:-2], 1e-12, f"column {column}")


ARROWS: list[tuple[str, Callable[[], None]]] = [
    ("vheat -> propagate neumann isotropic", vheat_with_one_diffusivity_is_neumann_diffusion),
    ("gspn -> explicit diffusion by line", gspn_with_equal_weights_is_binomial_diffusion_by_line),
]
