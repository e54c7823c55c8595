"""HoMM, the earlier polynomial mixer (arXiv 2411.12663; davidpicard/HoMM `src/model/network/layers.py`).

The field u is cut into as many chunks as the order says. From their activations, and the mixer's input x,

    g_1 | … | g_d = GELU(u),   h_1 = g_1,   h_p = g_p h_{p−1}
    y_i = sigmoid(W_s x_i + b_s) · (1/N) Σ_j [h_1 | … | h_d]_j

So chunk p is a mean of products of p projections; with a context, over its tokens. It shares with `pom` that all tokens
read one vector through gates of their own, and nothing else: `pom` takes powers of one projection, with learned
coefficients, and has other activations and gates.

In the `published` shell this is `HoM` of davidpicard/HoMM at 71f8318, with a context and its mask too: with copied
weights, outputs and gradients agree to 2e-16 for orders 1 to 5 (relative RMS, float64).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import InputError, check_number
from operators.initialisation import linear_init
from operators.mixer import Core
from operators.precision import wide
from operators.registry import register
from operators.shell.spec import ShellSpec

_HOMM = "davidpicard/HoMM README.md"
_TOP1 = "ImageNet-1k top-1 %, 160 px"


@register(
    MixerCard(
        name="homm",
        family="linear",
        title="High-order mixer (HoMM)",
        source="arXiv 2411.12663; davidpicard/HoMM src/model/network/layers.py at 71f8318",
        year=2024,
        equation="y_i = sigmoid(W x_i + b) · mean_j [g_1 | g_1 g_2 | … | g_1 ⋯ g_d]_j, [g_1 | … | g_d] = GELU(u)",
        code="davidpicard/HoMM at 71f8318: outputs and gradients within 2e-16 (relative RMS, float64)",
        position_aware=False,
        permutation_equivariant=True,
        translation_equivariant="circular",
        linear=False,
        axes=(2, 3),
        reads_context=True,
        fp32_core=True,
        backends=("torch",),
        shells={"published": ShellSpec(expand=4, gate="none", norm="none", bias=True)},
        published=(
            Published("8 layers, 320 channels, order 1, expansion 8", _TOP1, 43.6, _HOMM),
            Published("8 layers, 320 channels, order 2, expansion 4", _TOP1, 47.6, _HOMM),
            Published("8 layers, 320 channels, order 4, expansion 2", _TOP1, 46.1, _HOMM),
        ),
    )
)
class HoMM(Core):
    """Products of the chunks of the field u, averaged over all tokens and read through a gate of the input x.

    Args:
        site: where the core stands.
        backend: `torch` or `auto`.
        order: number of chunks d and highest degree; it divides the width. The published shell's expansion is then
            that of each chunk times d.

    Raises:
        InputError: an order out of range, or one that does not divide the width.
    """

    def __init__(self, site: Site, *, backend: str = "auto", order: int = 2) -> None:
        super().__init__(site, backend=backend)
        check_number("mixer.order", order, least=1, most=16, integer=True)
        if site.width % order:
            raise InputError(f"mixer.order={order} must divide the width {site.width}")
        self.order = order
        self.gate = nn.Linear(site.dim, site.width)
        linear_init(self.gate)

    def context(self, u: Tensor, mask: Tensor | None = None) -> Tensor:
        """Means of the products over all tokens, (B, 1, 1, D), from u (B, H, W, D), in at least float32.

        Tokens of a context (B, M, D) give (B, 1, D), those of a mask (B, M) alone where there is one.
        """
        product, *factors = F.gelu(u.to(wide(u.dtype))).chunk(self.order, dim=-1)
        means = [_mean(product, mask)]
        for factor in factors:
            product = product * factor
            means.append(_mean(product, mask))
        return torch.cat(means, dim=-1)

    def selection(self, x: Tensor) -> Tensor:
        """The gates in [0, 1], (B, H, W, D), from x (B, H, W, C)."""
        logits: Tensor = self.gate(x)
        return torch.sigmoid(logits.to(wide(logits.dtype)))

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        return (self.selection(x) * self.context(u)).to(u.dtype)

    def read(
        self, u: Tensor, *, x: Tensor, context: Tensor, mask: Tensor | None = None, cond: Tensor | None = None
    ) -> Tensor:
        """The mean products of the context's tokens, read through the gates of x, (B, H, W, D)."""
        gates = self.selection(x)
        return (gates.flatten(1, -2) * self.context(u, mask)).reshape(gates.shape).to(u.dtype)

    def core_cost(self, height: int, width: int) -> Cost:
        """The gate's map, N C D; the means are the state."""
        return Cost(projection_macs=height * width * self.gate.weight.numel(), state_elements=self.site.width)

    def read_cost(self, height: int, width: int, tokens: int) -> Cost:
        """As `core_cost`: the context's tokens are averaged."""
        return self.core_cost(height, width)

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`context` (B, D), what all tokens read, and `gate` (B, D, H, W), through which each reads it."""
        return {"context": self.context(u).flatten(1), "gate": self.selection(x).movedim(-1, 1)}


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """The mean over all tokens, each axis of which stays, with length 1."""
    if mask is None:
        return values.mean(tuple(range(1, values.ndim - 1)), keepdim=True)
    total = values.masked_fill(~mask[..., None], 0).sum(1, keepdim=True)
    return total / mask.sum(1).view(-1, 1, 1)
