"""The mixer `resmlp`: one matrix over tokens (arXiv 2105.03404).

For each channel, with the tokens of the grid row by row

    y = W u + b,   W of N × N and b of N numbers, the same for all channels

The affine maps of the paper, before it and after it, belong to the block. The `published` shell is the bare one, and
then this is the map `attn` of `layers_scale_mlp_blocks` of facebookresearch/deit at 7e160fe (`resmlp_models.py`): with
copied weights, outputs and all gradients are equal bit by bit (float64, 5 × 9, 8 × 6 and 1 × 4 tokens).
"""

from __future__ import annotations

from torch import nn

from operators.card import MixerCard, Published, Site
from operators.initialisation import truncated_normal_
from operators.mixers.mlp.tokens import MatrixCore
from operators.registry import register
from operators.shell.spec import BARE

_DEIT = "facebookresearch/deit README_resmlp.md"
_TIMM = "timm results-imagenet.csv"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


@register(
    MixerCard(
        name="resmlp",
        family="mlp",
        title="Token matrix (ResMLP)",
        source="arXiv 2105.03404, section 2; facebookresearch/deit resmlp_models.py at 7e160fe",
        year=2021,
        equation="y = W u + b over tokens, W (N × N) and b (N) shared by channels",
        code="facebookresearch/deit at 7e160fe: outputs and all gradients bit by bit (float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=True,
        fixed_grid=True,
        backends=("torch",),
        shells={"published": BARE},
        published=(
            Published("ResMLP-S12", _TOP1, 76.7, _TIMM),
            Published("ResMLP-S24", _TOP1, 79.4, _TIMM),
            Published("ResMLP-S36", _TOP1, 79.8, _TIMM),
            Published("ResMLP-S12 (distilled)", _TOP1, 77.8, _DEIT),
            Published("ResMLP-S24 (distilled)", _TOP1, 80.8, _DEIT),
            Published("ResMLP-S36 (distilled)", _TOP1, 81.1, _DEIT),
        ),
    )
)
class ResMLP(MatrixCore):
    """Every token is a learned sum of all tokens; of deviation 0.02 and without a constant to start with, as released.

    It serves the grid that it was made for.

    Args:
        site: where the core stands, with a grid.
        backend: `torch` or `auto`.

    Raises:
        InputError: the site has no grid.
    """

    def __init__(self, site: Site, *, backend: str = "auto") -> None:
        super().__init__(site, backend=backend)
        truncated_normal_(self.matrix.weight)
        nn.init.zeros_(self.matrix.bias)
