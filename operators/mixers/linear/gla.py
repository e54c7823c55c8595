"""Gated linear attention (GLA, arXiv 2312.06635), along orders of a grid, as in DiG (arXiv 2405.18428).

Along each order, for each head with keys of K channels, v the value field u and q, k made of x

    a_t = σ(W_2 W_1 x_t + b)^(1/16)                  one decay per head and key channel
    S_t = diag(a_t) S_{t-1} + k_t v_tᵀ,   y_t = S_tᵀ q_t / √K

The output is the mean over the orders, each with maps of its own. DiG runs one order per layer and turns it from layer
to layer.

With `orders=[row]` and copied weights the `published` shell makes this the whole layer `GatedLinearAttention` (without
its optional convolutions): as many parameters, outputs and all gradients within 1e-15 (relative RMS, float64, 5 × 15
tokens, 2 heads, with its plain recurrence in place of the kernels and an ε of 1e-6 in its norm).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import check_number
from operators.initialisation import linear_init
from operators.linear.decayed import channel_macs
from operators.linear.fla import Problem
from operators.mixers.heads import check_heads, default_heads
from operators.mixers.ordered import OrderedCore, Recurrence, Terms, wide_linear
from operators.mixers.scan.branch import check_orders
from operators.registry import register
from operators.scan import orders as scan_orders
from operators.shell.spec import ShellSpec


class GatedBranch(Recurrence):
    """GLA on a sequence v (B, N, D), with its queries, keys and decays made from x (B, N, C).

    Args:
        site: where the core stands.
        key: key channels K of a head.
        heads: number of heads.
        rank: of the decays' map.
        temperature: what the decays' logarithm is divided by.
        backwards: whether the sequence is read from its end.
        backend: of the recurrence.
    """

    no_weight_decay = ("decay.bias",)

    def __init__(
        self, site: Site, *, key: int, heads: int, rank: int, temperature: float, backwards: bool, backend: str
    ) -> None:
        super().__init__(backwards=backwards, backend=backend)
        self.key, self.heads, self.width, self.temperature = key, heads, site.width, temperature
        self.query_key = nn.Linear(site.dim, 2 * heads * key, bias=False)
        self.low_rank = nn.Linear(site.dim, rank, bias=False)
        self.decay = nn.Linear(rank, heads * key)
        for linear in (self.query_key, self.low_rank, self.decay):
            linear_init(linear)

    @property
    def problem(self) -> Problem:
        return Problem("decayed", "channel", self.heads, self.key, self.width // self.heads)

    def terms(self, v: Tensor, x: Tensor) -> Terms:
        """The recurrence, in at least float32."""
        log_decay = F.logsigmoid(wide_linear(wide_linear(x, self.low_rank), self.decay)) / self.temperature
        maps = self.query_key(x).to(log_decay.dtype)
        q, k, log_decay = (t.unflatten(-1, (self.heads, self.key)) for t in (*maps.chunk(2, dim=-1), log_decay))
        return Terms(q * self.key**-0.5, k, v.to(k.dtype).unflatten(-1, (self.heads, -1)), log_decay)

    def cost(self, tokens: int) -> Cost:
        """Per token C (2 h K + rank) + rank h K for the maps; the chunks' products."""
        linears = (self.query_key, self.low_rank, self.decay)
        return Cost(
            projection_macs=tokens * sum(linear.weight.numel() for linear in linears),
            mixing_macs=channel_macs(tokens, self.heads, self.key, self.width // self.heads),
            state_elements=self.key * self.width,
        )


@register(
    MixerCard(
        name="gla",
        family="linear",
        title="Gated linear attention (GLA, DiG)",
        source="arXiv 2312.06635, section 4; fla-org/flash-linear-attention fla/layers/gla.py; arXiv 2405.18428",
        year=2023,
        equation="S_t = diag(a_t) S_{t-1} + k_t v_tᵀ, y_t = S_tᵀ q_t / √K, a = σ(W_2 W_1 x + b)^(1/16); orders' mean",
        code="fla-org/flash-linear-attention at bc3b101, whole layer: outputs and gradients within 1e-15 (float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="state_dim",
        backends=("fla", "chunked", "reference"),
        shells={"published": ShellSpec(norm_heads=True)},
        published=(Published("DiG-S/2", "ImageNet 256 px FID-50K, 400K steps, unguided", 62.06, "arXiv 2405.18428"),),
    )
)
class GLA(OrderedCore):
    """The mean of gated linear attentions to the field u in several orders, each with maps of its own.

    Args:
        site: where the core stands.
        backend: `fla` (CUDA only), `chunked`, `reference` (a loop over tokens), or `auto`: fla where it serves the
            call, `chunked` otherwise.
        orders: the orders (`operators.scan.orders`); `[row]` is the causal mixer of GLA and of a layer of DiG.
        state_dim: key channels per head; None for half the head's width.
        heads: number of heads; None for heads about 64 wide.
        rank: of the decays' map.
        temperature: what the decays' logarithm is divided by: the greater, the longer the memory at the start.

    Raises:
        InputError: an unknown order or none at all, heads that do not divide the width, or a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        orders: Sequence[str] = ("row", "row_r"),
        state_dim: int | None = None,
        heads: int | None = None,
        rank: int = 16,
        temperature: float = 16.0,
    ) -> None:
        check_number("mixer.rank", rank, least=1, integer=True)
        check_number("mixer.temperature", temperature, least=1e-3, most=1e6)
        heads = default_heads(site.width) if heads is None else heads
        check_heads(heads, site.width)
        key = max(1, site.width // heads // 2) if state_dim is None else state_dim
        check_number("mixer.state_dim", key, least=1, most=1024, integer=True)
        along = check_orders("mixer.orders", orders)
        branches = [
            GatedBranch(
                site,
                key=key,
                heads=heads,
                rank=rank,
                temperature=temperature,
                backwards=scan_orders.base(name)[1],
                backend=backend,
            )
            for name in along
        ]
        super().__init__(site, backend=backend, along=along, branches=branches)
