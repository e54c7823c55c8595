"""LightNet on a grid: linear attention whose keys are normalised over all tokens (arXiv 2405.21022).

For each head with keys of width d and values of width e, with q, k = W x + b, v = u

    y_i = SiLU(q_i)ᵀ Σ_j p_j v_jᵀ,   p_j = exp(k_j) / Σ_l exp(k_l)   by channels of k

Along a sequence LightNet is an additive recurrence, whose state after the last token is the sum above. A recurrence
that only adds needs no order: one pass over the grid, every token reading that last state, is its form for images. It
is also the efficient attention of arXiv 1812.01243 with SiLU instead of a softmax on q. For the same reason it reads a
context, whose tokens need no order. Positions (MD-TPE, MD-LRPE of the paper) are left to the trunk.

The authors' repository (OpenNLPLab/LightNet) could not be had. Compared instead with the causal layer of
fla-org/flash-linear-attention at bc3b101d (`fla/layers/lightnet.py`, its recurrence by `fla/ops/gla/naive.py` in
float64, without the scale d^(−1/2) of q that its norm undoes). In the `published` shell, with copied weights, it has as
many parameters, and at the last token, whose prefix is the whole image, outputs and all gradients agree to 4e-15
(relative RMS, float64, 5 × 15 tokens). The gate's rank is that layer's default, 128, at every width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from operators.card import MixerCard, Site
from operators.cost import Cost
from operators.errors import check_choice, check_number
from operators.linear.products import product_macs, summed
from operators.mixers.queries import QueryKeyCore
from operators.registry import register
from operators.shell.spec import ShellSpec


@register(
    MixerCard(
        name="lightnet",
        family="linear",
        title="LightNet (softmax over tokens, one pass)",
        source="arXiv 2405.21022, sections 3 and 4; causal in fla-org/flash-linear-attention fla/layers/lightnet.py",
        year=2024,
        equation="y_i = SiLU(q_i)ᵀ (softmax_tokens(k)ᵀ v) per head, q, k = W x + b, v = u",
        code="fla-org/flash-linear-attention at bc3b101, whole layer, causal, its last token: within 4e-15 (float64)",
        position_aware=False,
        permutation_equivariant=True,
        translation_equivariant="circular",
        linear=False,
        axes=(2, 3),
        reads_context=True,
        fp32_core=True,
        state_param="key_width",
        backends=("torch",),
        shells={"published": ShellSpec(gate_rank=128)},
        preset_params={"published": {"bias": False}},
    )
)
class LightNet(QueryKeyCore):
    """Weighted means of the field u, one for each channel of the keys, read by SiLU(q); q and k come from the input x.

    Args:
        site: where the core stands.
        backend: `torch` or `auto`.
        heads: number of heads; None for `default_heads`.
        key_width: channels of a head's keys, each with a mean of its own; None for as many as its values have.
        bias: whether q and k have a bias (k's cancels in the softmax); None for none in the published shell and one in
            any other.

    Raises:
        InputError: heads that do not divide the width, or a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        heads: int | None = None,
        key_width: int | None = None,
        bias: bool | None = None,
    ) -> None:
        if key_width is not None:
            check_number("mixer.key_width", key_width, least=1, most=4096, integer=True)
        check_choice("mixer.bias", bias, (None, True, False))
        super().__init__(site, backend=backend, heads=heads, key_width=key_width, bias=bias is not False)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            k = k.masked_fill(~mask, -torch.inf)
        return summed(F.silu(q), k.softmax(-2), v)

    def mixing_map(self, q: Tensor, k: Tensor, grid: tuple[int, int]) -> Tensor:
        return F.silu(q) @ k.softmax(-2).mT

    def attend_cost(self, queries: int, keys: int) -> Cost:
        """State M d e, reading N d e; the state is d e numbers and d sums a head."""
        return Cost(
            mixing_macs=self.heads * product_macs(queries, self.key_width, self.head_width, keys),
            state_elements=self.heads * self.key_width * (self.head_width + 1),
        )
