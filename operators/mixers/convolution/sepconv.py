"""The mixer `sepconv`: ConvFormer's separable convolution, StarReLU and then a depthwise filter.

With two learned numbers s and b for the whole layer (arXiv 2210.13452)

    y = K ⋆ (s ReLU(u)² + b),   one kernel × kernel filter for each channel, zeros beyond the border

Beyond the border there are zeros, not b. The layer of the paper is inverted: projections to 2 C channels and back, both
without bias, which is the `published` shell.

With copied weights that shell is `SepConv` of sail-sg/metaformer at 64c534a (`metaformer_baselines.py`) to the last
parameter: outputs and all gradients are equal bit by bit (float64, widths 12, 13 and 16, 5 × 9, 8 × 6 and 1 × 4
tokens). As in that code, s starts at 1 and b at 0. With 0.8944 and −0.4472 StarReLU of a standard normal number has
mean 0 and deviation 1, from which the paper derives it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.initialisation import truncated_normal_
from operators.mixers.convolution.depthwise import DepthwiseCore
from operators.registry import register
from operators.shell.spec import ShellSpec

_METAFORMER = "sail-sg/metaformer README.md"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


@register(
    MixerCard(
        name="sepconv",
        family="convolution",
        title="Separable convolution (ConvFormer)",
        source="arXiv 2210.13452, section 2 (ConvFormer); sail-sg/metaformer metaformer_baselines.py at 64c534a",
        year=2022,
        equation="y = K ⋆ (s ReLU(u)² + b), one filter for each channel, zeros beyond the border",
        code="sail-sg/metaformer at 64c534a, whole layer: outputs and all gradients bit by bit (float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant="interior",
        linear=False,
        axes=(2, 3),
        backends=("torch",),
        shells={"published": ShellSpec(expand=2, gate="none", norm="none")},
        published=(
            Published("ConvFormer-S18", _TOP1, 83.0, _METAFORMER),
            Published("ConvFormer-S36", _TOP1, 84.1, _METAFORMER),
            Published("ConvFormer-M36", _TOP1, 84.5, _METAFORMER),
            Published("ConvFormer-B36", _TOP1, 84.8, _METAFORMER),
            Published("CAFormer-S18 (attention in the last two of four stages)", _TOP1, 83.6, _METAFORMER),
        ),
        exempt={
            "compile_inductor[common]": "the norm undoes a factor of all channels: of the gradient of s, at first such "
            "a factor, the norm's ε leaves a small difference of large numbers"
        },
    )
)
class SepConv(DepthwiseCore):
    """StarReLU with two learned numbers, then a depthwise convolution without bias.

    Filters start with a deviation of 0.02 (truncated normal), StarReLU as the square of ReLU.

    Args:
        site: where the core stands.
        backend: `torch` or `auto`.
        kernel: side of the filters, odd.

    Raises:
        InputError: an even kernel, or one below 1.
    """

    def __init__(self, site: Site, *, backend: str = "auto", kernel: int = 7) -> None:
        super().__init__(site, backend=backend, kernel=kernel, bias=False)
        truncated_normal_(self.conv.weight)
        self.scale = nn.Parameter(torch.ones(1))
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """The activated field correlated with each channel's filter, (B, H, W, D)."""
        return self.convolved(self.scale * F.relu(u).square() + self.shift)
