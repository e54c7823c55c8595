"""The mixer of ZigMa (arXiv 2403.13802): one selective scan, one way along one order of the grid.

Blocks differ in their orders: block l has the order zigzag_{l mod 8} (`operators.scan.orders.ZIGZAG8`). In the
`published` shell this is `Mamba` of `dis_mamba/mamba_ssm/modules/mamba_simple.py` with a `scan_type` of zigzagN8 at
commit 37d837b of CompVis/zigma, for images without other tokens in front.
"""

from __future__ import annotations

from torch import Tensor

from operators.card import MixerCard, Site
from operators.mixers.scan.branch import ScanCore
from operators.registry import register
from operators.scan.orders import ZIGZAG8
from operators.shell.spec import ShellSpec


@register(
    MixerCard(
        name="zigma",
        family="scan",
        title="One-way selective scan along a zigzag (ZigMa)",
        source="arXiv 2403.13802; CompVis/zigma dis_mamba/mamba_ssm/modules/mamba_simple.py at 37d837b",
        year=2024,
        equation="y = S6(u) along one of eight zigzags, one way",
        code="CompVis/zigma at 37d837b: outputs and gradients within 7e-16 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        causal_along="zigzag_0",
        fp32_core=True,
        state_param="state_dim",
        backends=("mamba_ssm", "chunked", "cpu", "reference"),
        shells={"published": ShellSpec(expand=2, norm="none")},
        preset_params={"published": {"conv": 4}},
    )
)
class ZigMa(ScanCore):
    """One selective scan of the field u along an order: no token reads a later one.

    Args:
        site: where the core stands.
        backend: one of `operators.scan.BACKENDS`, `cuda` apart, or `auto`.
        order: scan order (`operators.scan.orders`), read from its start (or from its end, with `_r`); None for the
            eight zigzags in turn over the blocks of a trunk.
        state_dim: states S per channel.
        rank: rank of the step's map; None for a sixteenth of the mixer's width C, rounded up.
        conv: width of a causal convolution with SiLU along the order, in front of the scan; 0 for none; None for 4 in
            the published shell and none in any other.

    Raises:
        InputError: an unknown order, or a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        order: str | None = None,
        state_dim: int = 16,
        rank: int | None = None,
        conv: int | None = None,
    ) -> None:
        order = ZIGZAG8[site.block_index % len(ZIGZAG8)] if order is None else str(order)
        super().__init__(site, backend=backend, along=(order,), state_dim=state_dim, rank=rank, conv=conv)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D).

        Raises:
            InputError: the backend asked for cannot serve these tensors; says why.
        """
        return self.scans(u)
