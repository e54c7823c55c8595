"""The mixer `dico`: DiCo's convolution, whose channels are gated by what the whole image holds (arXiv 2505.11196).

With v of the field u, and one number for each channel and image from its mean (compact channel attention)

    v   = GELU(K ⋆ u + b),   one kernel × kernel filter for each channel, zeros beyond the border
    y_i = v_i · σ(W_c mean_j v_j + b_c)

In the `published` shell, projections C → C with bias before and after, this is the convolution module of `DiCoBlock`
of shallowdream204/DiCo at b596b05 (`dico_models.py`) to the last parameter: with copied weights, outputs and all
gradients agree to 3e-16 (relative RMS, float64, 5 × 9, 8 × 6 and 1 × 4 tokens). The published figures
are of a network with three resolutions and long skips; how much of them is due to the mixer is not known.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.initialisation import linear_init
from operators.mixers.convolution.depthwise import DepthwiseCore
from operators.precision import wide
from operators.registry import register
from operators.shell.spec import ShellSpec

_DICO = "shallowdream204/DiCo README.md"
_FID = "ImageNet 256 px FID-50K, 400K steps, unguided"


@register(
    MixerCard(
        name="dico",
        family="convolution",
        title="Convolution with compact channel attention (DiCo)",
        source="arXiv 2505.11196, section 3; shallowdream204/DiCo dico_models.py at b596b05",
        year=2025,
        equation="y = v · σ(W_c mean(v) + b_c), v = GELU(K ⋆ u + b), zeros beyond the border",
        code="shallowdream204/DiCo at b596b05, whole module: outputs, gradients within 3e-16 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        axes=(2, 3),
        backends=("torch",),
        shells={"published": ShellSpec(gate="none", norm="none", bias=True)},
        published=(
            Published("DiCo-S", _FID, 49.97, _DICO),
            Published("DiCo-B", _FID, 27.20, _DICO),
            Published("DiCo-L", _FID, 13.66, _DICO),
            Published("DiCo-XL", _FID, 11.67, _DICO),
            Published("DiCo-XL", "ImageNet 256 px FID-50K, 3750K steps, guidance 1.4", 2.05, _DICO),
        ),
    )
)
class DiCo(DepthwiseCore):
    """Depthwise convolution and GELU, each channel times a gate made of all channels' means.

    Filters start as Xavier's uniform numbers, as released; biases at zero, so that gates start near one half.

    Args:
        site: where the core stands.
        backend: `torch` or `auto`.
        kernel: side of the filters, odd.

    Raises:
        InputError: an even kernel, or one below 1.
    """

    def __init__(self, site: Site, *, backend: str = "auto", kernel: int = 3) -> None:
        super().__init__(site, backend=backend, kernel=kernel)
        nn.init.xavier_uniform_(self.conv.weight)
        self.attention = nn.Linear(site.width, site.width)
        linear_init(self.attention)

    def gate(self, v: Tensor) -> Tensor:
        """One factor for each channel of each image, (B, 1, 1, D), from the activated field v (B, H, W, D)."""
        mean = v.mean(tuple(range(1, v.ndim - 1)), keepdim=True, dtype=wide(v.dtype))
        return self.attention(mean.to(v.dtype)).sigmoid()

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """The convolved and gated field, (B, H, W, D)."""
        v = F.gelu(self.convolved(u))
        return v * self.gate(v)

    def core_cost(self, height: int, width: int) -> Cost:
        """kernel² for each element, D² for an image's gate; the state is the D means."""
        gate = Cost(mixing_macs=self.site.width**2, state_elements=self.site.width)
        return super().core_cost(height, width) + gate

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`kernel`, the filters, and `gate` (B, D), the factors of the channels."""
        gate = self.gate(F.gelu(self.convolved(u)))
        return {**super().inspect(u, x=x, cond=cond), "gate": gate.flatten(1)}
