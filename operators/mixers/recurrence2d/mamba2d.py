"""Mamba2D (arXiv 2412.16146): one state for both axes, the mean of what its left and its upper neighbour hand on.

In the `published` shell this is `M2DBlock` of `models/mamba2d.py` at commit 9acb361 of cocoalex00/Mamba2D. The released
ImageNet models add the output of a convolution branch beside it, which no switch of the shell says, and take the other
corner in every other block. Two corners are the authors' `double_scans`, which at this commit refuses to be built, and
does not turn the second output back.

With copied weights, outputs and gradients agree to 5e-16 (relative RMS, float64, 5 × 7, 6 × 4 and 19 × 3 tokens), with
the authors' CUDA kernels, forward and backward, transcribed to loops over cells, for one corner and, with both faults
mended, for two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.errors import check_choice
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
from operators.shell.spec import ShellSpec
from operators.wavefront import lattice_scan

_README = "cocoalex00/Mamba2D README.md at 9acb361"


class LatticeBranch(GridBranch):
    """The lattice scan of a grid v (B, H, W, D), see `operators.wavefront.lattice_scan`.

        [d_row | d_col | B_row | B_col | C] = W v
        dt = softplus(W_dt d + b_dt),  A = −exp(A_log)         for rows and for columns

    Initialised as in Mamba; the biases of both steps share one draw.

    Args:
        width: channels D.
        state_dim: states S per channel.
        rank: rank R of the steps' maps.
        start: the corner.
        backend: of `operators.wavefront`.
    """

    no_weight_decay = ("A_row_log", "A_col_log", "D", "step_row.bias", "step_col.bias")
    operations = 16

    def __init__(self, width: int, *, state_dim: int, rank: int, start: Origin, backend: str) -> None:
        super().__init__(start, backend)
        self.state_dim, self.rank = state_dim, rank
        self.project = nn.Linear(width, 2 * rank + 3 * state_dim, bias=False)
        linear_init(self.project)
        self.step_row, self.step_col = step_maps(width, rank, 2)
        self.A_row_log, self.A_col_log = s4d_real(width, state_dim), s4d_real(width, state_dim)
        self.D = nn.Parameter(torch.ones(width))

    def arguments(self, v: Tensor) -> dict[str, Tensor]:
        """The arguments of `lattice_scan` besides v, in the type of v."""
        sizes = [self.rank] * 2 + [self.state_dim] * 3
        low_row, low_col, B_row, B_col, C = F.linear(v, self.project.weight.to(v.dtype)).split(sizes, dim=-1)
        return {
            "dt_row": positive(self.step_row, low_row),
            "dt_col": positive(self.step_col, low_col),
            "A_row": falling(self.A_row_log),
            "A_col": falling(self.A_col_log),
            "B_row": B_row,
            "B_col": B_col,
            "C": C,
        }

    def scan(self, v: Tensor, **arguments: Tensor) -> Tensor:
        bottom, right, _ = self.start
        return lattice_scan(v, **arguments, bottom=bottom, right=right, backend=self.backend)


@register(
    MixerCard(
        name="mamba2d",
        family="recurrence2d",
        title="Mamba2D",
        source="arXiv 2412.16146; cocoalex00/Mamba2D models/mamba2d.py, models/kernels/ at 9acb361",
        year=2024,
        equation="h_ij = (exp(Δ_r A_r) h_i,j−1 + Δ_r B_r u + exp(Δ_c A_c) h_i−1,j + Δ_c B_c u) / 2, y = C · h + D u",
        code="cocoalex00/Mamba2D at 9acb361: outputs and gradients within 5e-16 (relative RMS, float64), a loop "
        "over cells in place of its CUDA kernels",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="state_dim",
        backends=("diagonals", "cpu", "reference"),
        shells={"published": ShellSpec(gate="none", norm="none", bias=True)},
        preset_params={"published": {"corners": ["top_left"], "activation": "gelu"}},
        published=(
            Published("M2D-N", "ImageNet-1k top-1 %, 224 px", 79.6, _README),
            Published("M2D-T", "ImageNet-1k top-1 %, 224 px", 84.0, _README),
            Published("M2D-S", "ImageNet-1k top-1 %, 224 px", 85.3, _README),
        ),
    )
)
class Mamba2D(GridCore):
    """The mean of lattice scans of the field u from some corners of the grid, each with maps of its own.

    From one corner, a token sees the quadrant between that corner and itself.

    Args:
        site: where the core stands.
        backend: one of `operators.wavefront.BACKENDS`, or `auto`.
        corners: where the scans start: `top_left`, `top_right`, `bottom_left`, `bottom_right`. None for the first and
            the last of these, or for the first alone in the published shell.
        state_dim: states S per channel.
        rank: rank of the steps' maps; None for a sixteenth of the mixer's width C, rounded up.
        activation: `gelu` before and after the scans, or `none`; None for `gelu` in the published shell and none in any
            other.

    Raises:
        InputError: an unknown corner or none at all, an unknown activation, or a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        corners: Sequence[str] | None = None,
        state_dim: int = 16,
        rank: int | None = None,
        activation: str | None = None,
    ) -> None:
        check_sizes(state_dim, rank)
        rank = math.ceil(site.dim / 16) if rank is None else rank
        names = ("top_left", "bottom_right") if corners is None else corners
        starts = check_starts("mixer.corners", names, CORNERS)
        super().__init__(
            site,
            backend=backend,
            branches=[
                LatticeBranch(site.width, state_dim=state_dim, rank=rank, start=start, backend=backend)
                for start in starts
            ],
        )
        self.activation = check_choice("mixer.activation", activation or "none", ("gelu", "none"))

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D).

        Raises:
            InputError: the backend asked for cannot serve these tensors; says why.
        """
        y = self.scans(self._activated(u)) / len(self.branches)
        return self._activated(y)

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        return super().inspect(self._activated(u), x=x, cond=cond)

    def _activated(self, field: Tensor) -> Tensor:
        return F.gelu(field) if self.activation == "gelu" else field
