"""The mixer `gated_cnn`: MambaOut's gated convolution of a part of the channels, Mamba's block without its scan.

With u_2 the last partial_ratio · D of the field's D channels and u_1 the others (arXiv 2405.07992)

    y = [u_1 | K ⋆ u_2 + b],   one kernel × kernel filter for each channel of u_2, zeros beyond the border

The gate belongs to the shell. The `published` one has D = ⌊8 C / 3⌋ channels and a gate GELU(z), so that C channels are
convolved. It stands for mixer and feed-forward network together, and is `GatedCNNBlock` of yuweihao/MambaOut at 9f2f234
(`models/mambaout.py`) without norm and residual, to the last parameter: with copied weights, outputs and all gradients
agree to 5e-16 (relative RMS, float64, widths 12, 13 and 16, 5 × 9, 8 × 6 and 1 × 4 tokens).

With partial_ratio=1 the core is the control `conv`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from operators.card import MixerCard, Published, Site
from operators.errors import InputError, check_number
from operators.initialisation import truncated_normal_
from operators.mixers.convolution.depthwise import DepthwiseCore
from operators.registry import register
from operators.shell.spec import ShellSpec

_MAMBAOUT = "yuweihao/MambaOut README.md"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


@register(
    MixerCard(
        name="gated_cnn",
        family="convolution",
        title="Gated CNN (MambaOut)",
        source="arXiv 2405.07992, section 3.3; yuweihao/MambaOut models/mambaout.py at 9f2f234",
        year=2024,
        equation="y = [u_1 | K ⋆ u_2 + b], u_2 a part of the channels of u, zeros beyond the border",
        code="yuweihao/MambaOut at 9f2f234, whole layer: outputs and gradients within 5e-16 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant="interior",
        linear=True,
        axes=(2, 3),
        backends=("torch",),
        shells={"published": ShellSpec(expand=8 / 3, round_down=True, gate="gelu", norm="none", bias=True)},
        published=(
            Published("MambaOut-Femto", _TOP1, 78.9, _MAMBAOUT),
            Published("MambaOut-Kobe", _TOP1, 80.0, _MAMBAOUT),
            Published("MambaOut-T", _TOP1, 82.7, _MAMBAOUT),
            Published("MambaOut-S", _TOP1, 84.1, _MAMBAOUT),
            Published("MambaOut-B", _TOP1, 84.2, _MAMBAOUT),
        ),
    )
)
class GatedCNN(DepthwiseCore):
    """Depthwise convolution of the last channels; the first ones pass. Linear up to its bias.

    Filters start with a deviation of 0.02 (truncated normal), biases at zero.

    Args:
        site: where the core stands.
        backend: `torch` or `auto`.
        kernel: side of the filters, odd.
        partial_ratio: share of the channels that are convolved, above 0 and at most 1; to the nearest whole channel,
            and at least one.

    Raises:
        InputError: an even kernel or one below 1, a share out of range.
    """

    def __init__(self, site: Site, *, backend: str = "auto", kernel: int = 7, partial_ratio: float = 0.375) -> None:
        check_number("mixer.partial_ratio", partial_ratio, least=0, most=1)
        if partial_ratio == 0:
            raise InputError("mixer.partial_ratio=0 must be above 0: nothing would mix; use mixer=identity for that")
        channels = max(1, round(partial_ratio * site.width))
        super().__init__(site, backend=backend, kernel=kernel, channels=channels)
        truncated_normal_(self.conv.weight)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """The field with its last channels convolved, (B, H, W, D)."""
        convolved = self.conv.weight.shape[0]
        if convolved == self.site.width:
            return self.convolved(u)
        kept, mixed = u.split([self.site.width - convolved, convolved], dim=-1)
        mixed = self.convolved(mixed)
        return torch.cat([kept.to(mixed.dtype), mixed], dim=-1)
