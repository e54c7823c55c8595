"""GroupMamba (arXiv 2407.13772): each quarter of the channels is scanned one way, and their means scale the channels.

The `published` shell is `GroupMambaLayer` of `classification/models/groupmamba.py` at commit c1800ed of
Amshaker/GroupMamba behind its first LayerNorm, which stands in front of every mixer in a block here (the authors' is
the same module as their last one). That code multiplies the scanned groups by the input, through a parameter named as
the scale of a skip connection, which the paper has not. The LayerNorm behind takes that scale out again. And its
gradients of the second and the fourth group are wrong unless H = W: its backward pass reads columns as rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import InputError, check_choice, check_number
from operators.initialisation import linear_init
from operators.mixers.scan import FOURTH_DEGREE
from operators.mixers.scan.branch import ScanCore, check_orders, seen_from, sum_of_scans
from operators.registry import register
from operators.shell.shell import EPS, Shell
from operators.shell.spec import BARE, ShellSpec

VSSS = ShellSpec(conv=3, norm="layer")
"""The shell of one group in the published layer."""
_GROUPMAMBA = "Amshaker/GroupMamba README.md (distilled from a teacher)"


class ChannelAffinity(nn.Module):
    """Weights in (0, 1) for the channels of a field u (B, H, W, D): σ(W2 ReLU(W1 mean u))."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        hidden = max(width // reduction, 1)
        self.reduce, self.select = nn.Linear(width, hidden), nn.Linear(hidden, width)
        for linear in (self.reduce, self.select):
            linear_init(linear)

    def forward(self, u: Tensor) -> Tensor:
        """The weights, (B, D)."""
        return torch.sigmoid(self.select(F.relu(self.reduce(u.mean((1, 2))))))


@register(
    MixerCard(
        name="groupmamba",
        family="scan",
        title="Grouped scans with channel affinity (GroupMamba)",
        source="arXiv 2407.13772; Amshaker/GroupMamba classification/models/groupmamba.py at c1800ed",
        year=2024,
        equation="y = a ⊙ [S6_g(u_g)]_g over four groups of channels, one way each; a = σ(W2 ReLU(W1 mean u))",
        code="Amshaker/GroupMamba at c1800ed, whole layer: outputs and gradients within 7e-16 (relative RMS, float64), "
        "where H ≠ W with those of its forward, for its backward is right for squares only",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="state_dim",
        backends=("mamba_ssm", "chunked", "cpu", "reference"),
        shells={"published": BARE},
        preset_params={"published": {"combine": "mul", "own_shells": True, "state_dim": 1}},
        exempt={
            "extreme_inputs[published]": FOURTH_DEGREE,
            "backends_agree[published]": "the last LayerNorm takes out the scale, whose gradient is rounding error",
        },
        published=(
            Published("GroupMamba-T", "ImageNet-1k top-1 %, 224 px", 83.3, _GROUPMAMBA),
            Published("GroupMamba-S", "ImageNet-1k top-1 %, 224 px", 83.9, _GROUPMAMBA),
            Published("GroupMamba-B", "ImageNet-1k top-1 %, 224 px", 84.5, _GROUPMAMBA),
        ),
    )
)
class GroupMamba(ScanCore):
    """Scans of groups of channels, each along an order of its own, times the affinity of the channels.

    Args:
        site: where the core stands.
        backend: one of `operators.scan.BACKENDS`, `cuda` apart, or `auto`.
        orders: the scan orders (`operators.scan.orders`), one for each group; their number divides the width.
        reduction: how many times narrower the hidden layer of the affinity is; 0 for no affinity.
        combine: what is done with the scanned groups and the input, before the affinity: `mul`, their product, or
            `add`, their sum, both with a learned scale; `none`; None for `mul` in the published shell and `none` in any
            other.
        own_shells: whether each group has projections, a 3 × 3 convolution, a LayerNorm and a gate of its own (VSSS),
            and the output a LayerNorm and a projection; None for True in the published shell, which has none around.
        state_dim: states S per channel; None for 16, or for 1 in the published shell.
        rank: rank of the step's maps; None for a sixteenth of a group's share of the mixer's width, rounded up.

    Raises:
        InputError: an unknown order or none at all, a number of groups that does not divide the width, or a number
            out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        orders: Sequence[str] = ("row", "col", "row_r", "col_r"),
        reduction: int = 16,
        combine: str | None = None,
        own_shells: bool | None = None,
        state_dim: int | None = None,
        rank: int | None = None,
    ) -> None:
        along = check_orders("mixer.orders", orders)
        groups, width = len(along), site.width
        if width % groups:
            raise InputError(
                f"mixer.orders has {groups} orders, which must divide the width {width}: one for each group"
            )
        check_number("mixer.reduction", reduction, least=0, integer=True)
        check_choice("mixer.combine", combine, (None, "mul", "add", "none"))
        check_choice("mixer.own_shells", own_shells, (None, True, False))
        super().__init__(
            site,
            backend=backend,
            along=along,
            state_dim=16 if state_dim is None else state_dim,
            rank=math.ceil(site.dim / groups / 16) if rank is None else rank,
            channels=width // groups,
        )
        self.combine = combine or "none"
        self.scale = nn.Parameter(torch.ones(1)) if self.combine != "none" else None
        self.affinity = ChannelAffinity(width, reduction) if reduction else None
        self.shells = nn.ModuleList(Shell(width // groups, VSSS) for _ in along) if own_shells else None
        self.norm = nn.LayerNorm(width, eps=EPS) if own_shells else None
        self.project = nn.Linear(width, width) if own_shells else None
        if self.project is not None:
            linear_init(self.project)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D).

        Raises:
            InputError: the backend asked for cannot serve these tensors; says why.
        """
        mixed = []
        for index, (name, branch, (v, z)) in enumerate(zip(self.along, self._branches(), self._groups(u), strict=True)):
            y = sum_of_scans(v, [name], [branch])
            mixed.append(y if self.shells is None else self._shells()[index].leave(y, z))
        y = torch.cat(mixed, dim=-1)
        if self.scale is not None:
            y = y * (self.scale * u) if self.combine == "mul" else y + self.scale * u
        if self.affinity is not None:
            y = y * self.affinity(u)[:, None, None]
        if self.norm is None or self.project is None:
            return y
        return self.project(self.norm(y.to(self.norm.weight.dtype)))

    def _groups(self, u: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        """What each group scans, and its gate."""
        parts = u.chunk(len(self.along), dim=-1)
        if self.shells is None:
            return [(part, None) for part in parts]
        return [shell.enter(part) for shell, part in zip(self._shells(), parts, strict=True)]

    def _shells(self) -> list[Shell]:
        return [shell for shell in self.shells or () if isinstance(shell, Shell)]

    def core_cost(self, height: int, width: int) -> Cost:
        """The branches' costs (`Branch.cost`), those of the groups' shells and the output, and the affinity's maps."""
        tokens = height * width
        cost = super().core_cost(height, width)
        if self.shells is not None and self.project is not None:
            shells = [shell.cost(tokens) for shell in self._shells()]
            projections = sum(each.projection_macs for each in shells) + tokens * self.project.weight.numel()
            cost += Cost(projection_macs=projections, mixing_macs=sum(each.mixing_macs for each in shells))
        if self.affinity is not None:
            hidden = self.affinity.reduce.out_features
            cost += Cost(mixing_macs=2 * hidden * self.site.width, state_elements=hidden)
        return cost

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`step` (B, groups, H, W), each group's step size averaged over channels, `influence` (B, groups, H, W), how

        much each token counts at the grid's centre (`Branch.influence`), and `affinity` (B, D), if there is one.
        """
        walks = zip(self._groups(u), self.along, self._branches(), strict=True)
        steps, influences = zip(*(seen_from(v, name, branch) for (v, _), name, branch in walks), strict=True)
        found = {"step": torch.stack(steps, dim=1), "influence": torch.stack(influences, dim=1)}
        return {**found, "affinity": self.affinity(u)} if self.affinity is not None else found
