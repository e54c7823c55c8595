"""Arrows from time-invariant state spaces, and to them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tests.operators.mixers.drawn import assert_same_function, image, make, set_to

GRIDS = ((4, 5), (3, 7))


def s4_of_rank_zero_is_s4d():
    """Λ alone: C (1 − w^L) B of the one is C of the other, with the w of the bilinear rule."""
    for grid in GRIDS:
        low_rank, diagonal = make("s4", grid=grid, state_dim=3), make("s4d", rule="bilinear", state_dim=3)
        (general,), (special,) = low_rank.core.systems, diagonal.core.systems
        set_to(0.0, general.P)
        for name in ("A_log", "A_imag", "log_step"):
            set_to(getattr(general, name), getattr(special, name))
        set_to(low_rank.core.D, diagonal.core.D)
        z = torch.complex(-general.A_log.exp(), general.A_imag) * general.log_step.exp()[:, None]
        power = ((1 + z / 2) / (1 - z / 2)) ** (grid[0] * grid[1])
        readout = torch.view_as_complex(general.C) * torch.view_as_complex(general.B) / (1 - power)
        set_to(torch.view_as_real(readout), special.C)
        assert_same_function(low_rank, diagonal, image(*grid), 1e-11)


ARROWS: list[tuple[str, Callable[[], None]]] = [
    ("S4, P = 0 -> S4D, bilinear", s4_of_rank_zero_is_s4d),
]
