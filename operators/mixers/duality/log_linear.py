"""Log-linear attention on Mamba-2 (arXiv 2506.04761) along orders of a grid: SSD with weights for blocks of the past.

SSD as in `ssd`, each term of its sum times the scale of its level (`operators.linear.levels`):

    y_t = Σ_{s≤t} λ_t^(level(t, s)) a_{s+1} ⋯ a_t (C_t·B_s) dt_s v_s + D v_t,   λ_t^(l) = softplus(Λ_l (W_λ x_t)_l)

At level l a token sees one block of 2^(l−1) tokens. Along `hilbert` such blocks are near squares of the grid, along
`row` pieces of rows. With equal scales it is SSD.

With `orders=[row]` and copied weights the `published` shell makes this the whole layer `LogLinearMamba2` of
flash-linear-attention without biases, its configuration's default: as many parameters, outputs and all gradients
within 2e-14 (relative RMS, float64, 150 tokens, three levels of which reach beyond a chunk, with
`naive_log_linear_attn` of fla/ops/log_linear_attn/naive.py in place of the kernels and our ε of 1e-6 in their norm).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Site
from operators.cost import Cost
from operators.errors import InputError, check_number
from operators.initialisation import linear_init
from operators.linear import fla, levels_reference
from operators.linear.choice import serving
from operators.linear.fla import Problem
from operators.linear.levels import level_macs, levels, log_linear, pair_levels
from operators.mixers.duality.ssd import DualityBranch
from operators.mixers.heads import check_heads, default_heads
from operators.mixers.ordered import OrderedCore, Terms, wide_linear
from operators.mixers.scan.branch import check_orders
from operators.precision import call_type, full_precision
from operators.registry import register
from operators.scan import orders as scan_orders
from operators.shell.spec import ShellSpec


class LevelBranch(DualityBranch):
    """SSD on a sequence v (B, N, D) whose terms are scaled by level, with scales made from x (B, N, C).

    Args:
        site: where the core stands.
        state_dim: states S per channel.
        heads: number of heads.
        conv: width of the causal depthwise convolution of [v | B | C], followed by SiLU; 0 for none.
        level_count: how many levels have scales.
        backwards: whether the sequence is read from its end (the convolution too).
        backend: of the recurrence.
    """

    no_weight_decay = (*DualityBranch.no_weight_decay, "level_gain")

    def __init__(
        self, site: Site, *, state_dim: int, heads: int, conv: int, level_count: int, backwards: bool, backend: str
    ) -> None:
        super().__init__(site, state_dim=state_dim, heads=heads, conv=conv, backwards=backwards, backend=backend)
        self.level_count = level_count
        self.level_gain = nn.Parameter(torch.ones(heads, level_count))
        self.scale = nn.Linear(site.dim, heads * level_count, bias=False)
        linear_init(self.scale)

    @property
    def problem(self) -> Problem:
        value = self.width // self.heads
        return Problem("log_linear", "head", self.heads, self.state_dim, value, levels=self.level_count)

    def scales(self, x: Tensor) -> Tensor:
        """λ (B, N, heads, levels) from x (B, N, C), in at least float32."""
        scales = wide_linear(x, self.scale).unflatten(-1, (self.heads, self.level_count))
        return F.softplus(self.level_gain.to(scales.dtype) * scales)

    def product(self, terms: Terms, x: Tensor) -> Tensor:
        """The outputs (B, N, H, V) of the scaled recurrence."""
        q, k, v, log_decay, scales = (t.flip(1) if self.backwards else t for t in (*terms, self.scales(x)))
        dtype = call_type(x)
        engine = serving(self.backend, self.problem, x.device, dtype)
        if engine == "fla":
            y = fla.run(self.problem, dtype, q, k, v, log_decay=log_decay, scales=scales)
        else:
            with full_precision(x):
                plain = levels_reference.log_linear if engine == "reference" else log_linear
                y = plain(q, k, v, log_decay, scales)
        return y.flip(1) if self.backwards else y

    def scaled(self, weight: Tensor, x: Tensor, token: int) -> Tensor:
        """The weights (B, N, H) of all tokens at `token`, times their steps and their levels' scales."""
        place, reader = torch.arange(x.shape[1], device=x.device), token
        if self.backwards:
            place, reader = place.flip(0), x.shape[1] - 1 - token
        level = pair_levels(place, torch.full_like(place, reader))
        return super().scaled(weight, x, token) * self.scales(x)[:, token][..., level].mT

    def cost(self, tokens: int) -> Cost:
        """As `DualityBranch.cost`, with a map for the scales, the levels' products, and a state for each level."""
        cost = super().cost(tokens)
        return replace(
            cost,
            projection_macs=cost.projection_macs + tokens * self.scale.weight.numel(),
            state_elements=cost.state_elements * levels(tokens),
        )

    def product_macs(self, tokens: int) -> int:
        """MACs of the levels' products."""
        return level_macs(tokens, self.heads, 1, self.state_dim, self.width // self.heads)


@register(
    MixerCard(
        name="log_linear",
        family="duality",
        title="Log-linear attention (on Mamba-2)",
        source="arXiv 2506.04761, section 3; HanGuo97/log-linear-attention at 7f86441",
        year=2025,
        equation="y_t = Σ_{s≤t} λ_t^(l) a_{s+1} ⋯ a_t (C_t·B_s) Δ_s v_s + D v_t, l = bits of t xor s; mean over orders",
        code="fla-org/flash-linear-attention at bc3b101, whole layer: outputs and gradients within 2e-14 (float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="state_dim",
        backends=("fla", "chunked", "reference"),
        shells={"published": ShellSpec(expand=2, norm_after_gate=True)},
        preset_params={"published": {"conv": 4}},
    )
)
class LogLinear(OrderedCore):
    """The mean of log-linear attentions to the field u in several orders, each with maps of its own.

    Args:
        site: where the core stands.
        backend: `fla` (CUDA only), `chunked`, `reference` (by loops over pairs), or `auto`: fla where it serves the
            call, `chunked` otherwise.
        orders: the orders (`operators.scan.orders`); `[row]` is the causal mixer, `[hilbert, hilbert_r]` makes the
            blocks near squares.
        state_dim: states S per channel and level.
        heads: number of heads; None for heads about 64 wide.
        conv: width of a causal convolution with SiLU of u, B and C along each order; 0 for none; None for 4 in the
            published shell and none in any other.
        levels: how many levels have scales: grids of up to 2^(levels − 1) tokens are served.

    Raises:
        InputError: an unknown order or none at all, heads that do not divide the width, or a number out of range; when
            called, a grid of too many tokens.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        orders: Sequence[str] = ("row", "row_r"),
        state_dim: int = 64,
        heads: int | None = None,
        conv: int | None = None,
        levels: int = 15,
    ) -> None:
        check_number("mixer.state_dim", state_dim, least=1, most=1024, integer=True)
        conv = 0 if conv is None else conv
        check_number("mixer.conv", conv, least=0, most=64, integer=True)
        check_number("mixer.levels", levels, least=1, most=32, integer=True)
        heads = default_heads(site.width) if heads is None else heads
        check_heads(heads, site.width)
        along = check_orders("mixer.orders", orders)
        branches = [
            LevelBranch(
                site,
                state_dim=state_dim,
                heads=heads,
                conv=conv,
                level_count=levels,
                backwards=scan_orders.base(name)[1],
                backend=backend,
            )
            for name in along
        ]
        super().__init__(site, backend=backend, along=along, branches=branches)
        self.most_tokens = 2 ** (levels - 1)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D). Raises `InputError` for a grid of too many tokens."""
        tokens = u.shape[1] * u.shape[2]
        if tokens > self.most_tokens:
            needed = levels(tokens)
            raise InputError(
                f"mixer log_linear serves {self.most_tokens} tokens with these levels, not {tokens}; "
                f"mixer.levels={needed} would"
            )
        return super().forward(u, x=x, cond=cond)
