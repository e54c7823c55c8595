"""The mixer `gmlp`: the spatial gating unit of gMLP, whose gate the shell opens (arXiv 2105.08050).

For each channel of the normalised field, with the tokens of the grid row by row

    y = W LN(GELU(u)) + b,   W of N × N and b of N numbers, the same for all channels

In the paper a token has 6 C channels GELU [z | v] of its projection, and the unit is z · (W LN(v) + b). So z is a gate
GELU(z) of the shell, and the field u stands for v. The `published` shell has D = 3 C and that gate, and is the whole
layer of the paper. W starts near zero and b at one: at first only the gate passes, and tokens do not meet.

The authors published no code. Compared instead with `GatedMlp` and `SpatialGatingUnit` of
huggingface/pytorch-image-models at aa4b585 (`timm/layers/mlp.py`, `timm/models/mlp_mixer.py`), of as many parameters:
with copied weights, outputs and all gradients agree to 5e-16 (relative RMS, float64, 5 × 9, 8 × 6 and 1 × 4 tokens).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.initialisation import truncated_normal_
from operators.mixers.mlp.tokens import MatrixCore
from operators.registry import register
from operators.shell.spec import ShellSpec

START = 1e-6
"""Deviation of W at the start; the paper says near zero, the number is timm's."""
EPS = 1e-5
_TIMM = "timm results-imagenet.csv"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


@register(
    MixerCard(
        name="gmlp",
        family="mlp",
        title="Spatial gating unit (gMLP)",
        source="arXiv 2105.08050, section 2.1; huggingface/pytorch-image-models timm/models/mlp_mixer.py at aa4b585",
        year=2021,
        equation="y = W LN(GELU(u)) + b over tokens, W (N × N) and b (N) shared by channels, W near 0 and b 1 at first",
        code="huggingface/pytorch-image-models at aa4b585 (none of the authors), whole layer: within 5e-16 (float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fixed_grid=True,
        backends=("torch",),
        shells={"published": ShellSpec(expand=3, gate="gelu", norm="none", bias=True)},
        published=(Published("gMLP-S/16", _TOP1, 79.7, _TIMM),),
        exempt={
            "compile_inductor[common]": "the norm undoes a factor of all channels of a token: of the gradient of b, at "
            "first such a factor, its ε leaves a small difference of large numbers"
        },
    )
)
class GMLP(MatrixCore):
    """A learned sum of all tokens' normalised values, plus a constant for each token, by which a shell's gate opens.

    It serves the grid that it was made for. Where a norm over channels follows, as in the common shell, b is lost while
    W is near zero: it is then the same factor for all channels of a token.

    Args:
        site: where the core stands, with a grid.
        backend: `torch` or `auto`.

    Raises:
        InputError: the site has no grid.
    """

    def __init__(self, site: Site, *, backend: str = "auto") -> None:
        super().__init__(site, backend=backend)
        self.norm = nn.LayerNorm(site.width, eps=EPS)
        truncated_normal_(self.matrix.weight, START)
        nn.init.ones_(self.matrix.bias)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """How far each gate is opened, (B, H, W, D)."""
        return super().forward(self.norm(F.gelu(u)), x=x)
