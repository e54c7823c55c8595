"""2DMamba (arXiv 2412.00678): a selective scan along each row, then one of its states down each column.

In the `published` shell this is the layer of 2DVMamba: `SS2D` with `forward_type="v05_noz"` and `use_v2d`, one state
and `ssm_ratio=1`, of `2DVMamba/classification/models/vmamba.py` at commit 9fe12aa of AtlasAnalyticsLab/2DMamba. The
block of 2DMambaMIL has one order, a convolution along the raster in front of it, and a gate; its loop in Python,
`selective_scan_seq_2d`, is another recurrence, which adds up what both neighbours hand on.

With copied weights, outputs and gradients agree to 9e-16 (relative RMS, float64, 5 × 7, 4 × 4 and 6 × 3 tokens, one and
three states, LayerNorm's eps set to 1e-6), with a loop over cells in place of the authors' CUDA kernel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.initialisation import linear_init
from operators.mixers.recurrence2d.branch import (
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
from operators.wavefront import two_step_scan

ORDERS: Mapping[str, Origin] = {
    "row": Origin(),
    "col": Origin(transposed=True),
    "row_r": Origin(bottom=True, right=True),
    "col_r": Origin(bottom=True, right=True, transposed=True),
}


class TwoStepBranch(GridBranch):
    """The two-step scan of a grid v (B, H, W, D), see `operators.wavefront.two_step_scan`.

        [d | B | C] = W v,   dt = softplus(W_dt d + b_dt),   A = −exp(A_log)

    Initialised as in Mamba.

    Args:
        width: channels D.
        state_dim: states S per channel.
        rank: rank R of the step's map.
        start: where the scan starts, and along which axis.
        backend: of `operators.wavefront`.
    """

    no_weight_decay = ("A_log", "D", "step.bias")
    operations = 11

    def __init__(self, width: int, *, state_dim: int, rank: int, start: Origin, backend: str) -> None:
        super().__init__(start, backend)
        self.state_dim, self.rank = state_dim, rank
        self.project = nn.Linear(width, rank + 2 * state_dim, bias=False)
        linear_init(self.project)
        (self.step,) = step_maps(width, rank, 1)
        self.A_log = s4d_real(width, state_dim)
        self.D = nn.Parameter(torch.ones(width))

    def arguments(self, v: Tensor) -> dict[str, Tensor]:
        """The arguments of `two_step_scan` besides v, in the type of v."""
        sizes = [self.rank, self.state_dim, self.state_dim]
        low_rank, B, C = F.linear(v, self.project.weight.to(v.dtype)).split(sizes, dim=-1)
        return {"dt": positive(self.step, low_rank), "A": falling(self.A_log), "B": B, "C": C}

    def scan(self, v: Tensor, **arguments: Tensor) -> Tensor:
        bottom, right, _ = self.start
        return two_step_scan(v, **arguments, bottom=bottom, right=right, backend=self.backend)


@register(
    MixerCard(
        name="two_d_mamba",
        family="recurrence2d",
        title="2DMamba",
        source="arXiv 2412.00678; AtlasAnalyticsLab/2DMamba 2DVMamba/classification/models/vmamba.py at 9fe12aa",
        year=2024,
        equation="g_ij = ā_ij g_i,j−1 + Δ B u, h_ij = ā_ij h_i−1,j + g_ij, ā = exp(Δ A), y = C · h + D u; 4 orders",
        code="AtlasAnalyticsLab/2DMamba at 9fe12aa: outputs and gradients within 9e-16 (relative RMS, float64), a loop "
        "over cells in place of its CUDA kernel",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="state_dim",
        backends=("diagonals", "cpu", "reference"),
        shells={"published": ShellSpec(gate="none", conv=3, conv_bias=False, norm="layer")},
        preset_params={"published": {"state_dim": 1}},
        exempt={
            "extreme_inputs[published]": "the scan is of fourth degree in u, and LayerNorm cannot square what a token "
            "of 1e6 becomes in float32"
        },
        published=(
            Published("2DVMamba-T", "ImageNet-1k top-1 %, 224 px", 82.8, "arXiv 2412.00678, as cited elsewhere"),
        ),
    )
)
class TwoDMamba(GridCore):
    """The sum of two-step scans of the field u in several orders, each with maps of its own.

    Args:
        site: where the core stands.
        backend: one of `operators.wavefront.BACKENDS`, or `auto`.
        orders: `row`: along rows, then down columns, from the top left; `col`: down columns, then along rows; `row_r`
            and `col_r`: the same from the bottom right.
        state_dim: states S per channel; None for 16, or for 1 in the published shell.
        rank: rank of the step's map; None for a sixteenth of the mixer's width C, rounded up.

    Raises:
        InputError: an unknown order or none at all, or a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        orders: Sequence[str] = ("row", "col", "row_r", "col_r"),
        state_dim: int | None = None,
        rank: int | None = None,
    ) -> None:
        state_dim = 16 if state_dim is None else state_dim
        check_sizes(state_dim, rank)
        rank = math.ceil(site.dim / 16) if rank is None else rank
        super().__init__(
            site,
            backend=backend,
            branches=[
                TwoStepBranch(site.width, state_dim=state_dim, rank=rank, start=start, backend=backend)
                for start in check_starts("mixer.orders", orders, ORDERS)
            ],
        )

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D).

        Raises:
            InputError: the backend asked for cannot serve these tensors; says why.
        """
        return self.scans(u)
