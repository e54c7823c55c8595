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


ARROWS: list[tuple[str, Callable[[], None]]] = [
    ("vheat -> propagate neumann isotropic", vheat_with_one_diffusivity_is_neumann_diffusion),
]
