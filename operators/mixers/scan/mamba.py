"""Bidirectional Mamba on a grid (Vim, arXiv 2401.09417): one order, scanned from both ends.

In the `published` shell this is the mixer of the released models (`Mamba` of `mamba-1p1p1/mamba_ssm/modules/
mamba_simple.py` with `bimamba_type="v2"` and `if_divide_out`) at commit dd0358a of hustvl/Vim. With copied weights,
outputs and all gradients agree to 8e-16 (relative RMS, float64, 5 × 7 tokens, with the scan of
state-spaces/mamba's reference function in place of the authors' CUDA kernels).
"""

from __future__ import annotations

from torch import Tensor

from operators.card import MixerCard, Published, Site
from operators.errors import InputError
from operators.mixers.scan.branch import ScanCore
from operators.registry import register
from operators.scan import orders
from operators.shell.spec import ShellSpec

_VIM = "hustvl/Vim README.md"


@register(
    MixerCard(
        name="mamba",
        family="scan",
        title="Bidirectional selective scan (Mamba, Vim)",
        source="arXiv 2401.09417, algorithm 1; scan of arXiv 2312.00752, algorithm 2; hustvl/Vim at dd0358a",
        year=2024,
        equation="y = (S6_f(u) + rev S6_b(rev u)) / 2, h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t, S6 = C_t · h_t + D u_t",
        code="hustvl/Vim at dd0358a: outputs and gradients within 8e-16 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="state_dim",
        backends=("mamba_ssm", "chunked", "cpu", "reference"),
        shells={"published": ShellSpec(expand=2, norm="none")},
        preset_params={"published": {"conv": 4}},
        published=(
            Published("Vim-Ti", "ImageNet-1k top-1 %, 224 px", 76.1, _VIM),
            Published("Vim-S", "ImageNet-1k top-1 %, 224 px", 80.5, _VIM),
            Published("Vim-B", "ImageNet-1k top-1 %, 224 px", 81.9, _VIM),
        ),
    )
)
class Mamba(ScanCore):
    """The mean of two selective scans of the field u, along an order and against it, each with maps of its own.

    Args:
        site: where the core stands.
        backend: one of `operators.scan.BACKENDS`, `cuda` apart, or `auto`.
        order: scan order (`operators.scan.orders`); Vim's is `row`.
        state_dim: states S per channel.
        rank: rank of the step's map; None for a sixteenth of the mixer's width C, rounded up.
        conv: width of a causal convolution with SiLU along the order, in front of each scan; 0 for none; None for 4 in
            the published shell and none in any other.

    Raises:
        InputError: an unknown order, or a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        order: str = "row",
        state_dim: int = 16,
        rank: int | None = None,
        conv: int | None = None,
    ) -> None:
        forward, backwards = orders.base(str(order))
        if backwards:
            raise InputError(f"mixer.order={order!r} must be an order without {orders.REVERSED!r}: both ways are read")
        super().__init__(
            site,
            backend=backend,
            along=(forward, forward + orders.REVERSED),
            state_dim=state_dim,
            rank=rank,
            conv=conv,
        )

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D).

        Raises:
            InputError: the backend asked for cannot serve these tensors; says why.
        """
        return self.scans(u) / 2
