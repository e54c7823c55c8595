"""The mixer of MambaVision (arXiv 2407.08083): half of the channels are scanned, the others convolved.

With [u_1 | u_2] the halves of the field along an order

    v = SiLU(conv u_1),   w = SiLU(conv u_2)        depthwise, centred: a token meets those before and behind it
    y = [S6(v) | w]

The halves meet in the map behind the core. In the `published` shell this is `MambaVisionMixer` of NVlabs/MambaVision at
7860a50 (`mambavision/models/mamba_vision.py`) as its blocks make it: 8 states, convolutions of 3 taps. That module adds
the bias b of the step's map twice, Δ = softplus(W d + 2 b), and its trunk sets b to zero before training; here it is
added once, and starts at steps between 10⁻³ and 10⁻¹. Compared was with 2 b in its place.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import InputError
from operators.mixers.controls.controls import check_odd
from operators.mixers.scan.branch import ScanCore
from operators.registry import register
from operators.scan import orders
from operators.shell.spec import ShellSpec

_MAMBAVISION = "NVlabs/MambaVision README.md; softmax attention in half of the blocks of stages 3 and 4"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


@register(
    MixerCard(
        name="mambavision",
        family="scan",
        title="Scan beside a convolution (MambaVision)",
        source="arXiv 2407.08083, section 3.3; NVlabs/MambaVision mambavision/models/mamba_vision.py at 7860a50",
        year=2024,
        equation="y = [S6(SiLU(conv u_1)) | SiLU(conv u_2)], u_1 and u_2 the halves of the channels",
        code="NVlabs/MambaVision at 7860a50, whole layer, the step's bias doubled: outputs and gradients within 1e-15",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="state_dim",
        backends=("mamba_ssm", "chunked", "cpu", "reference"),
        shells={"published": ShellSpec(gate="none", norm="none")},
        published=(
            Published("MambaVision-T", _TOP1, 82.3, _MAMBAVISION),
            Published("MambaVision-T2", _TOP1, 82.7, _MAMBAVISION),
            Published("MambaVision-S", _TOP1, 83.3, _MAMBAVISION),
            Published("MambaVision-B", _TOP1, 84.2, _MAMBAVISION),
            Published("MambaVision-L", _TOP1, 85.0, _MAMBAVISION),
            Published("MambaVision-L2", _TOP1, 85.3, _MAMBAVISION),
        ),
    )
)
class MambaVision(ScanCore):
    """Convolutions of the field u along an order, and a selective scan of the first half of their channels.

    Args:
        site: where the core stands.
        backend: one of `operators.scan.BACKENDS`, `cuda` apart, or `auto`.
        order: the order (`operators.scan.orders`).
        state_dim: states S per channel of the first half.
        rank: rank of the step's map; None for a sixteenth of the mixer's width C, rounded up.
        conv: taps of the convolutions, an odd number.

    Raises:
        InputError: an odd width, an unknown order, an even convolution, or a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        order: str = "row",
        state_dim: int = 8,
        rank: int | None = None,
        conv: int = 3,
    ) -> None:
        if site.width % 2:
            raise InputError(f"mixer mambavision needs an even width, of two halves, not {site.width}")
        check_odd("mixer.conv", conv, 1)
        half = replace(site, width=site.width // 2)
        super().__init__(half, backend=backend, along=(str(order),), state_dim=state_dim, rank=rank)
        self.site, self.order = site, orders.base(str(order))[0]
        self.conv = nn.Conv1d(site.width, site.width, conv, padding=conv // 2, groups=site.width, bias=False)

    def halves(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """What is scanned and what is not, both (B, N, D / 2) along the order."""
        first, second = F.silu(self.conv(orders.gather(u, self.order).mT)).mT.chunk(2, dim=-1)
        return first, second

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D).

        Raises:
            InputError: the backend asked for cannot serve these tensors; says why.
        """
        first, second = self.halves(u)
        (branch,) = self._branches()
        y = torch.cat([branch(first), second], dim=-1)
        return orders.scatter(y, self.order, *u.shape[1:3])

    def core_cost(self, height: int, width: int) -> Cost:
        """The scan's, and every tap of the convolutions."""
        return super().core_cost(height, width) + Cost(mixing_macs=height * width * self.conv.weight.numel())

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`step` and `influence` (B, 1, H, W) of the scan of the first half."""
        first = orders.scatter(self.halves(u)[0], self.order, *u.shape[1:3])
        return super().inspect(first, x=x, cond=cond)
