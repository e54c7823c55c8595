"""Chimera (arXiv 2406.04320): two coupled states, one along rows and one down columns, with maps of the tokens.

The authors' code is not public. The recurrence is that of the paper's two-dimensional state-space model, with steps and
maps made from the input, and with two differences. The input enters by Euler's rule dt B, as in Mamba, where the paper
holds it constant over a step. And transitions are shared out between the two states by `coupling`: the paper has no
such factor, and its states would grow with the number of ways between two tokens. At 1/2 it is the factor of the linear
two-dimensional model for images (arXiv 2306.06635). The paper's layer is made for multivariate time series, with a
module for trends and one for seasons, and no switches of the shell say it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Site
from operators.errors import check_number
from operators.initialisation import linear_init
from operators.mixers.recurrence2d.branch import (
    CORNERS,
    GridBranch,
    GridCore,
    Origin,
    check_sizes,
    check_starts,
    falling,
    positive,
    s4d_real,
    step_maps,
)
from operators.registry import register
from operators.wavefront import roesser_scan


class RoesserBranch(GridBranch):
    """The Roesser scan of a grid v (B, H, W, D), see `operators.wavefront.roesser_scan`.

        [d_row | d_col | B_row | B_col | C_row | C_col] = W v
        dt = softplus(W_dt d + b_dt),  A = −exp(A_log)         for rows and for columns, and for four transitions

    Initialised as in Mamba; the biases of both steps share one draw.

    Args:
        width: channels D.
        state_dim: states S per channel, of each of the two kinds.
        rank: rank R of the steps' maps.
        coupling: the share of the other state.
        start: the corner.
        backend: of `operators.wavefront`.
    """

    no_weight_decay = (*(f"A_{k}_log" for k in range(1, 5)), "D", "step_row.bias", "step_col.bias")
    operations = 25
    carried = 2

    def __init__(self, width: int, *, state_dim: int, rank: int, coupling: float, start: Origin, backend: str) -> None:
        super().__init__(start, backend)
        self.state_dim, self.rank, self.coupling = state_dim, rank, coupling
        self.project = nn.Linear(width, 2 * rank + 4 * state_dim, bias=False)
        linear_init(self.project)
        self.step_row, self.step_col = step_maps(width, rank, 2)
        self.A_1_log, self.A_2_log = s4d_real(width, state_dim), s4d_real(width, state_dim)
        self.A_3_log, self.A_4_log = s4d_real(width, state_dim), s4d_real(width, state_dim)
        self.D = nn.Parameter(torch.ones(width))

    def arguments(self, v: Tensor) -> dict[str, Tensor]:
        """The arguments of `roesser_scan` besides v and the coupling, in the type of v."""
        sizes = [self.rank] * 2 + [self.state_dim] * 4
        low_row, low_col, B_row, B_col, C_row, C_col = F.linear(v, self.project.weight.to(v.dtype)).split(sizes, dim=-1)
        return {
            "dt_row": positive(self.step_row, low_row),
            "dt_col": positive(self.step_col, low_col),
            "A_1": falling(self.A_1_log),
            "A_2": falling(self.A_2_log),
            "A_3": falling(self.A_3_log),
            "A_4": falling(self.A_4_log),
            "B_row": B_row,
            "B_col": B_col,
            "C_row": C_row,
            "C_col": C_col,
        }

    def scan(self, v: Tensor, **arguments: Tensor) -> Tensor:
        bottom, right, _ = self.start
        return roesser_scan(v, **arguments, coupling=self.coupling, bottom=bottom, right=right, backend=self.backend)


@register(
    MixerCard(
        name="chimera",
        family="recurrence2d",
        title="Chimera (selective 2-D SSM)",
        source="arXiv 2406.04320, two-dimensional SSM with input-dependent parameters",
        year=2024,
        equation="g_ij = c Ā_1 g_i,j−1 + c Ā_2 h_i,j−1 + Δ_r B_r u, h_ij = c Ā_3 g_i−1,j + c Ā_4 h_i−1,j + Δ_c B_c u, "
        "y = C_r · g + C_c · h + D u, c = 1/2",
        code="not public; compared with a loop over cells",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="state_dim",
        backends=("diagonals", "cpu", "reference"),
    )
)
class Chimera(GridCore):
    """The sum of Roesser scans of the field u from some corners of the grid, each with maps of its own.

    Args:
        site: where the core stands.
        backend: one of `operators.wavefront.BACKENDS`, or `auto`.
        corners: where the scans start: `top_left`, `top_right`, `bottom_left`, `bottom_right`.
        state_dim: states S per channel, along rows and down columns each.
        rank: rank of the steps' maps; None for a sixteenth of the mixer's width C, rounded up.
        coupling: how much of a state comes from the other kind's, 0 to 1; 0 for a row scan and a column scan apart.

    Raises:
        InputError: an unknown corner or none at all, or a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        corners: Sequence[str] = ("top_left", "top_right", "bottom_left", "bottom_right"),
        state_dim: int = 16,
        rank: int | None = None,
        coupling: float = 0.5,
    ) -> None:
        check_sizes(state_dim, rank)
        check_number("mixer.coupling", coupling, least=0, most=1)
        rank = math.ceil(site.dim / 16) if rank is None else rank
        super().__init__(
            site,
            backend=backend,
            branches=[
                RoesserBranch(
                    site.width, state_dim=state_dim, rank=rank, coupling=coupling, start=start, backend=backend
                )
                for start in check_starts("mixer.corners", corners, CORNERS)
            ],
        )

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D).

        Raises:
            InputError: the backend asked for cannot serve these tensors; says why.
        """
        return self.scans(u)
