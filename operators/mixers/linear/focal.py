"""Focal modulation: each token's query times a gated sum of contexts from near to global (arXiv 2203.11926).

With the field u as the first context, and q, levels' gates g of the mixer's input x

    q, g = W x + b,   c_0 = u,   c_l = GELU(DW_{k_l} c_{l−1}),   k_l = k_1 + 2 (l − 1),   l = 1 … L
    m_i  = Σ_l g_{l,i} c_{l,i} + g_{L+1,i} GELU(mean_j c_{L,j})
    y_i  = q_i · (W_h m_i + b_h)

A gate is one number for each token and level. Convolutions are depthwise, without bias, zeros beyond the border.

In the `published` shell this is `FocalModulation` of microsoft/FocalNet at e8514bd (`classification/focalnet.py`)
without its optional norms: with copied weights, outputs and input gradients agree to 5e-16 (relative RMS, float64).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import check_number
from operators.initialisation import linear_init
from operators.mixer import Core
from operators.mixers.controls.controls import check_odd
from operators.registry import register
from operators.shell.spec import ShellSpec

_FOCALNET = "microsoft/FocalNet README.md"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


@register(
    MixerCard(
        name="focal",
        family="linear",
        title="Focal modulation",
        source="arXiv 2203.11926, section 3; microsoft/FocalNet classification/focalnet.py at e8514bd",
        year=2022,
        equation="y = q · W_h(Σ_l g_l c_l + g_{L+1} GELU(mean c_L)), c_l = GELU(DW c_{l−1}), c_0 = u, q, g = W x + b",
        code="microsoft/FocalNet at e8514bd: outputs and input gradients within 5e-16 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        backends=("torch",),
        shells={"published": ShellSpec(gate="none", norm="none", bias=True)},
        published=(
            Published("FocalNet-T (kernels 3, 5)", _TOP1, 82.1, _FOCALNET),
            Published("FocalNet-T (kernels 3, 5, 7)", _TOP1, 82.3, _FOCALNET),
            Published("FocalNet-S (kernels 3, 5, 7)", _TOP1, 83.5, _FOCALNET),
            Published("FocalNet-B (kernels 3, 5, 7)", _TOP1, 83.9, _FOCALNET),
            Published("isotropic FocalNet-T", _TOP1, 74.1, _FOCALNET),
            Published("isotropic FocalNet-S", _TOP1, 80.9, _FOCALNET),
            Published("isotropic FocalNet-B", _TOP1, 82.4, _FOCALNET),
        ),
    )
)
class Focal(Core):
    """Queries of the input x times gated contexts of the field u, from windows that grow and from the whole image.

    Convolutions start as torch draws them.

    Args:
        site: where the core stands.
        backend: `torch` or `auto`.
        levels: number L of convolutions.
        kernel: side of the first one's filters, odd; each further one's is larger by 2.

    Raises:
        InputError: a number out of range, or an even kernel.
    """

    def __init__(self, site: Site, *, backend: str = "auto", levels: int = 3, kernel: int = 3) -> None:
        super().__init__(site, backend=backend)
        check_number("mixer.levels", levels, least=1, most=16, integer=True)
        check_odd("mixer.kernel", kernel, least=1)
        self.sides = [kernel + 2 * level for level in range(levels)]
        self.maps = nn.Linear(site.dim, site.width + levels + 1)
        self.convs = nn.ModuleList(
            nn.Conv2d(site.width, site.width, side, padding=side // 2, groups=site.width, bias=False)
            for side in self.sides
        )
        self.modulator = nn.Linear(site.width, site.width)
        for linear in (self.maps, self.modulator):
            linear_init(linear)

    def contexts(self, u: Tensor) -> list[Tensor]:
        """The L local contexts (B, H, W, D) of u, and the global one (B, 1, 1, D)."""
        context, contexts = u.movedim(-1, 1), []
        for conv in self.convs:
            context = F.gelu(conv(context))
            contexts.append(context.movedim(1, -1))
        return [*contexts, F.gelu(context.mean((2, 3), keepdim=True)).movedim(1, -1)]

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        q, gates = self.maps(x).split([self.site.width, len(self.sides) + 1], dim=-1)
        weighted = [gate[..., None] * context for gate, context in zip(gates.unbind(-1), self.contexts(u), strict=True)]
        y: Tensor = q * self.modulator(sum(weighted))
        return y.to(u.dtype)

    def core_cost(self, height: int, width: int) -> Cost:
        """N C (D + L + 1) and N D² for the maps, k² N D for each convolution; the state is the mean."""
        tokens = height * width
        return Cost(
            projection_macs=tokens * (self.maps.weight.numel() + self.modulator.weight.numel()),
            mixing_macs=tokens * self.site.width * sum(side**2 for side in self.sides),
            state_elements=self.site.width,
        )

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`gates` (B, L + 1, H, W), the global one last, and for each side k `kernels_k` (D, k, k), the filters."""
        gates = self.maps(x)[..., self.site.width :].movedim(-1, 1)
        kernels = {
            f"kernels_{side}": conv.get_parameter("weight")[:, 0]
            for side, conv in zip(self.sides, self.convs, strict=True)
        }
        return {"gates": gates, **kernels}
