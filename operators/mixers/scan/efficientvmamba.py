"""ES2D, the atrous selective scan of EfficientVMamba (arXiv 2403.09977): each sub-grid of every p-th token by itself.

In the `published` shell with a dilation of 2 this is `SS2D` of `classification/models/vmamba_efficient.py` at commit
0bc5ee2 of TerryPei/EfficientVMamba, whose sub-grids (0, 1) and (1, 0) change places here. That code has no other
dilation: with step_size > 2 it visits the offsets 0 and 1 alone. On sides that the dilation does not divide it pads the
field with zeros, at which states decay; here sub-grids end where the grid does. The convolution branch beside this
layer, and the channel attention of both, belong to the authors' block.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import check_number
from operators.mixers.scan import FOURTH_DEGREE
from operators.mixers.scan.branch import ScanCore, seen_from, sum_of_scans
from operators.registry import register
from operators.shell.spec import ShellSpec

_EFFICIENT = "TerryPei/EfficientVMamba README.md"


@register(
    MixerCard(
        name="efficientvmamba",
        family="scan",
        title="Atrous selective scan (ES2D, EfficientVMamba)",
        source="arXiv 2403.09977 (ES2D); TerryPei/EfficientVMamba classification/models/vmamba_efficient.py at 0bc5ee2",
        year=2024,
        equation="y[a::p, b::p] = S6_ab(u[a::p, b::p]) for all a, b < p, along rows for even a, columns for odd a",
        code="TerryPei/EfficientVMamba at 0bc5ee2: outputs and gradients within 1e-15 (even sides, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        causal_along="atrous_turned_2",
        fp32_core=True,
        state_param="state_dim",
        backends=("mamba_ssm", "chunked", "cpu", "reference"),
        shells={"published": ShellSpec(expand=2, conv=3, norm="layer")},
        exempt={"extreme_inputs[published]": FOURTH_DEGREE},
        published=(
            Published("EfficientVMamba-T", "ImageNet-1k top-1 %, 224 px", 76.5, _EFFICIENT),
            Published("EfficientVMamba-S", "ImageNet-1k top-1 %, 224 px", 78.7, _EFFICIENT),
            Published("EfficientVMamba-B", "ImageNet-1k top-1 %, 224 px", 81.8, _EFFICIENT),
        ),
    )
)
class EfficientVMamba(ScanCore):
    """Every token is scanned once, with the tokens whose rows and columns differ by multiples of the dilation.

    Tokens of different sub-grids never meet in the core: a convolution around it has to connect them.

    Args:
        site: where the core stands.
        backend: one of `operators.scan.BACKENDS`, `cuda` apart, or `auto`.
        dilation: distance p of neighbours in a sub-grid; there are p² of them, each with maps of its own. None for 2.
        state_dim: states S per channel.
        rank: rank of the step's map; None for a sixteenth of the mixer's width C, rounded up.

    Raises:
        InputError: a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        dilation: int | None = None,
        state_dim: int = 16,
        rank: int | None = None,
    ) -> None:
        p = 2 if dilation is None else dilation
        check_number("mixer.dilation", p, least=1, most=16, integer=True)
        along = [("row", "col")[a % 2] for a in range(p) for _ in range(p)]
        super().__init__(site, backend=backend, along=along, state_dim=state_dim, rank=rank)
        self.dilation = p

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D).

        Raises:
            InputError: the backend asked for cannot serve these tensors; says why.
        """
        scanned = [
            sum_of_scans(part, [name], [branch]) if part.shape[1:3].numel() else part
            for part, name, branch in zip(self._parts(u), self.along, self._branches(), strict=True)
        ]
        return self._together(scanned, *u.shape[1:3])

    def _parts(self, grid: Tensor) -> list[Tensor]:
        """The sub-grids (B, H', W', …) of (B, H, W, …), as views; empty where the grid is smaller than their offset."""
        p = self.dilation
        return [grid[:, a::p, b::p] for a in range(p) for b in range(p)]

    def _together(self, parts: list[Tensor], height: int, width: int) -> Tensor:
        """Undoes `_parts`, for sub-grids (B, H', W', D)."""
        p = self.dilation
        if p == 1:
            return parts[0]
        rows, columns = -(-height // p), -(-width // p)
        full = [F.pad(t, (0, 0, 0, columns - t.shape[2], 0, rows - t.shape[1])) for t in parts]
        lines = [torch.stack(full[a * p : (a + 1) * p], dim=3).flatten(2, 3) for a in range(p)]
        return torch.stack(lines, dim=2).flatten(1, 2)[:, :height, :width]

    def core_cost(self, height: int, width: int) -> Cost:
        """The branches' costs, see `Branch.cost`, each for the tokens of its sub-grid."""
        p, branches = self.dilation, self._branches()
        places = [(a, b) for a in range(p) for b in range(p)]
        sizes = [(-(-max(height - a, 0) // p), -(-max(width - b, 0) // p)) for a, b in places]
        return sum((branch.cost(h * w) for branch, (h, w) in zip(branches, sizes, strict=True)), Cost())

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`step` (B, 1, H, W), the step sizes averaged over channels, and `influence` (B, 1, H, W), how much each token

        counts at the grid's centre (`Branch.influence`): nothing in the other sub-grids.
        """
        height, width = u.shape[1:3]
        row, column = height // 2, width // 2
        p = self.dilation
        steps, influences = [], []
        walks = zip(self._parts(u), self.along, self._branches(), strict=True)
        for index, (part, name, branch) in enumerate(walks):
            here = index == row % p * p + column % p
            if part.numel():
                step, influence = seen_from(part, name, branch, (row // p, column // p) if here else (0, 0))
            else:
                step = influence = part[..., 0]
            steps.append(step[..., None])
            influences.append((influence if here else torch.zeros_like(step))[..., None])
        together = {"step": steps, "influence": influences}
        return {key: self._together(maps, height, width).movedim(-1, 1) for key, maps in together.items()}
