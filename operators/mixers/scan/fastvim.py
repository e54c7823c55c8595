"""FastVim (arXiv 2502.00594): bidirectional scans of the lines of an image, each line pooled to one token.

With v = SiLU(causal convolution of u along the rows, or against them for the way back) and its means, or greatest
numbers, v̄_i over each row i

    y_ij = (S6_f(v̄)_i + D_f v_ij + S6_b(v̄)_i + D_b v_ij) / 2

where S6 has no term D of its own, and its steps, B and C are made of v̄. A scan takes as many steps as there are rows.
Blocks alternate: in every second one columns are pooled and the scans run from column to column. One layer alone cannot
tell where in a line a token stands, but for its convolution.

In the `published` shell this is `Mamba` of insitro/FastVim at db10205 (`mamba-1p1p1/mamba_ssm/modules/
mamba_simple_faster.py`, its path without fused kernels) on square and oblong images, with LayerNorm's eps set to 1e-6.
"""

from __future__ import annotations

import torch
from torch import Tensor

from operators import scan
from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import check_choice
from operators.mixers.scan import FOURTH_DEGREE
from operators.mixers.scan.branch import Branch, ScanCore
from operators.precision import full_precision, wide
from operators.registry import register
from operators.scan import orders
from operators.scan.steps import changed_steps
from operators.shell.spec import ShellSpec

ORDERS = ("row", "col")
POOLS = ("mean", "max")
_FASTVIM = "insitro/FastVim README.md"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


@register(
    MixerCard(
        name="fastvim",
        family="scan",
        title="Bidirectional scan of pooled lines (FastVim)",
        source="arXiv 2502.00594; insitro/FastVim mamba-1p1p1/mamba_ssm/modules/mamba_simple_faster.py at db10205",
        year=2025,
        equation="y_ij = (S6_f(v̄)_i + D_f v_ij + S6_b(v̄)_i + D_b v_ij) / 2, v̄_i = mean_j v_ij",
        code="insitro/FastVim at db10205, whole layer, both ways to pool: outputs and gradients within 1e-15 (float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="state_dim",
        backends=("mamba_ssm", "chunked", "cpu", "reference"),
        shells={"published": ShellSpec(expand=2, norm="layer")},
        preset_params={"published": {"conv": 4}},
        exempt={"extreme_inputs[published]": FOURTH_DEGREE},
        published=(
            Published("FastVim-T", _TOP1, 75.4, _FASTVIM),
            Published("FastVim-S", _TOP1, 81.1, _FASTVIM),
            Published("FastVim-B", _TOP1, 82.6, _FASTVIM),
        ),
    )
)
class FastVim(ScanCore):
    """The mean of two selective scans of the field u whose lines are pooled, one from either end, each with own maps.

    Args:
        site: where the core stands.
        backend: one of `operators.scan.BACKENDS`, `cuda` apart, or `auto`.
        order: `row` pools rows, and scans from row to row; `col` pools columns; None for both in turn over the blocks
            of a trunk.
        pool: `mean` or `max`, of a line.
        state_dim: states S per channel.
        rank: rank of the step's map; None for a sixteenth of the mixer's width C, rounded up.
        conv: width of a causal convolution with SiLU along the lines, in front of pooling; 0 for none; None for 4 in
            the published shell and none in any other.

    Raises:
        InputError: an unknown order or way to pool, or a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        order: str | None = None,
        pool: str = "mean",
        state_dim: int = 16,
        rank: int | None = None,
        conv: int | None = None,
    ) -> None:
        order = ORDERS[site.block_index % 2] if order is None else check_choice("mixer.order", order, ORDERS)
        self.order, self.pool = order, check_choice("mixer.pool", pool, POOLS)
        super().__init__(
            site,
            backend=backend,
            along=(order, order + orders.REVERSED),
            state_dim=state_dim,
            rank=rank,
            conv=conv,
        )

    def pooled(self, v: Tensor, lines: int) -> Tensor:
        """Lines as tokens, (B, lines, D), of a sequence v (B, N, D)."""
        v = v.unflatten(1, (lines, -1))
        return v.mean(2) if self.pool == "mean" else v.amax(2)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D).

        Raises:
            InputError: the backend asked for cannot serve these tensors; says why.
        """
        height, width = u.shape[1:3]
        lines = height if self.order == "row" else width
        sequence = orders.gather(u, self.order).to(wide(u.dtype))
        ahead, back = self._branches()
        with full_precision(u):
            skips = [branch.D.to(sequence.dtype) / 2 for branch in (ahead, back)]
            if ahead.conv is None:
                pooled = self.pooled(sequence, lines)
                mixed = self._scanned(ahead, pooled) + self._scanned(back, pooled)
                y = torch.addcmul(mixed[:, :, None], skips[0] + skips[1], sequence.unflatten(1, (lines, -1)))
            else:
                first, second = (branch.convolve(sequence) for branch in (ahead, back))
                mixed = self._scanned(ahead, self.pooled(first, lines)) + self._scanned(
                    back, self.pooled(second, lines)
                )
                y = torch.addcmul(mixed[:, :, None], skips[0], first.unflatten(1, (lines, -1)))
                y = torch.addcmul(y, skips[1], second.unflatten(1, (lines, -1)))
        return orders.scatter(y.flatten(1, 2), self.order, height, width).to(u.dtype)

    @staticmethod
    def _scanned(branch: Branch, pooled: Tensor) -> Tensor:
        """Half of the scan of pooled lines (B, lines, D), without its term D."""
        step, B, C = branch.maps(pooled)
        A = branch.rates()
        y = scan.selective_scan(
            pooled.mT, A=A, B=B.mT, C=C.mT / 2, backend=branch.backend, reverse=branch.backwards,
            initial_state=branch.initial(len(pooled)),
            **changed_steps(step, branch.step.bias, A, branch.step_change),
        )  # fmt: skip
        assert isinstance(y, Tensor)
        return y.mT

    def core_cost(self, height: int, width: int) -> Cost:
        """The branches' costs for a token of each line, and their convolutions of all tokens."""
        lines = height if self.order == "row" else width
        cost = Cost()
        for branch in self._branches():
            taps = 0 if branch.conv is None else branch.conv.weight.numel()
            cost = cost + branch.cost(lines) + Cost(mixing_macs=taps * (height * width - lines))
        return Cost(
            projection_macs=0,
            mixing_macs=cost.projection_macs + cost.mixing_macs,
            state_elements=cost.state_elements,
        )

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`step` (B, 2, H, W), each branch's step averaged over channels, and `influence` (B, 2, H, W), how much each

        line counts at the centre's; both are alike along a line.
        """
        height, width = u.shape[1:3]
        lines, centre = (height, height // 2) if self.order == "row" else (width, width // 2)
        sequence, parts = orders.gather(u, self.order), []
        for branch in self._branches():
            pooled = self.pooled(branch.convolve(sequence), lines)
            steps, influence = branch.influence_of(*branch.maps(pooled), centre, reverse=branch.backwards)
            parts.append(torch.stack([steps.mean(-1), influence]))
        shown = torch.stack(parts, 2)[..., None]  # (step or influence, B, branches, lines, 1)
        shown = shown if self.order == "row" else shown.mT
        step, influence = shown.expand(*shown.shape[:3], height, width)
        return {"step": step, "influence": influence}
