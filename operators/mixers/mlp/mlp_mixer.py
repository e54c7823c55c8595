"""The mixer `mlp_mixer`: a network with one hidden layer over tokens (arXiv 2105.01601).

For each channel, with the tokens of the grid row by row

    y = W_2 GELU(W_1 u + b_1) + b_2,   W_1 of hidden × N and W_2 of N × hidden numbers, the same for all channels

The norm before it belongs to the block, so that the `published` shell is the bare one. Then this is `MlpBlock` over
tokens of google-research/vision_transformer at c6de1e5 (`vit_jax/models_mixer.py`), but for one thing: that code has
GELU's approximation by tanh; this one, like timm, has GELU itself. With copied weights, outputs and all gradients agree
to 4e-16 once GELU itself is put into that code, and to 1.3e-3 as it is (relative RMS, float64, 5 × 9, 8 × 6 and 1 × 4
tokens).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import check_number
from operators.initialisation import truncated_normal_
from operators.mixers.mlp.tokens import TokenCore
from operators.registry import register
from operators.shell.spec import BARE

_TIMM = "timm results-imagenet.csv"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


@register(
    MixerCard(
        name="mlp_mixer",
        family="mlp",
        title="Token network (MLP-Mixer)",
        source="arXiv 2105.01601, equation 1; google-research/vision_transformer vit_jax/models_mixer.py at c6de1e5",
        year=2021,
        equation="y = W_2 GELU(W_1 u + b_1) + b_2 over tokens, shared by channels",
        code="google-research/vision_transformer at c6de1e5, GELU exact: outputs and gradients within 4e-16 (float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fixed_grid=True,
        state_param="hidden",
        backends=("torch",),
        shells={"published": BARE},
        published=(
            Published("Mixer-B/16 (trained on ImageNet-21k first)", _TOP1, 76.6, _TIMM),
            Published("Mixer-L/16 (trained on ImageNet-21k first)", _TOP1, 72.1, _TIMM),
        ),
        exempt={
            "extensive": "sums with random weights double with four times the tokens; those into the test's 8 hidden "
            "numbers happen to grow 2.6 times, where 2.5 is allowed"
        },
    )
)
class MLPMixer(TokenCore):
    """A network over tokens that all channels share.

    Weights start with a deviation of one over the root of the numbers that they read (truncated normal), biases at
    zero, as released. It serves the grid that it was made for.

    Args:
        site: where the core stands, with a grid.
        backend: `torch` or `auto`.
        hidden: width of the hidden layer; None for half the model's channels, as in the released models.

    Raises:
        InputError: the site has no grid, or a width out of range.
    """

    def __init__(self, site: Site, *, backend: str = "auto", hidden: int | None = None) -> None:
        super().__init__(site, backend=backend)
        hidden = max(1, site.dim // 2) if hidden is None else hidden
        check_number("mixer.hidden", hidden, least=1, most=65536, integer=True)
        self.first = nn.Linear(self.tokens, hidden)
        self.last = nn.Linear(hidden, self.tokens)
        for linear in (self.first, self.last):
            truncated_normal_(linear.weight, linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)

    def across(self, channels: Tensor) -> Tensor:
        """What becomes of each channel's row of tokens, (B, D, N)."""
        y: Tensor = self.last(F.gelu(self.first(channels)))
        return y

    def core_cost(self, height: int, width: int) -> Cost:
        """N · hidden for each channel, twice; what tokens learn of one another passes the hidden layer."""
        hidden = self.site.width * self.first.out_features
        return Cost(mixing_macs=2 * height * width * hidden, state_elements=hidden)

    @torch.no_grad()
    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`reads` and `writes` (hidden, H, W): of each hidden number, the tokens' weights in it and its own in them."""
        grid = u.shape[1:3]
        return {"reads": self.first.weight.unflatten(1, grid), "writes": self.last.weight.mT.unflatten(1, grid)}
