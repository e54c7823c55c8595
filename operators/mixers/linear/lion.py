"""LION, bidirectional linear attention with decay (arXiv 2502.16249), along orders of a grid.

For each head, with q, k made of x, v the value field u and positive features φ

    y_i = Σ_j φ(q_i)·φ(k_j) M_ij v_j / Σ_j φ(q_i)·φ(k_j) M_ij

    lit    φ = ELU + 1,                  M = 1
    d      φ = (SiLU + ½) / ‖SiLU + ½‖,  M_ij = λ^|i − j|, λ a learned number per head
    s      φ as in d,                    M_ij = a_j ⋯ a_{i−1} for j < i, a_{i+1} ⋯ a_j for j > i, 1 for j = i,
                                         a = 1 − σ(W x + b) per head

where i and j are places along an order. Numerator and denominator are each one recurrence from the first token, one
from the last, and nothing of size N × N. With several orders M is the mean of theirs, each with decays of its own: the
paper's two curves are `orders=[snake_row, snake_col]`.

In the `published` shell this was compared with the released features, masks and curves, put together as in
`Lion_Attention.forward` (format `Attention`) without its class token: all variants, and both curves (6 × 6 tokens). In
the released code no gradient reaches W and b of `s` (they pass through `torch.tensor`); here they learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import InputError, check_choice
from operators.initialisation import linear_init
from operators.linear.decayed import scalar_decay, scalar_macs
from operators.mixer import Core
from operators.mixers.heads import check_heads, default_heads
from operators.mixers.ordered import wide_linear
from operators.mixers.scan.branch import check_orders
from operators.precision import full_precision, wide
from operators.registry import register
from operators.scan import orders as scan_orders
from operators.shell.spec import ShellSpec

VARIANTS = ("lit", "d", "s")
EPS = 1e-6
"""Added to the denominator over √d, as in the released code; apart from it √d cancels."""
_LION = "LIONS-EPFL/LION README.md"


@register(
    MixerCard(
        name="lion",
        family="linear",
        title="Bidirectional linear attention with decay (LION)",
        source="arXiv 2502.16249; LIONS-EPFL/LION img_classification/lion/models_lion.py at 32a0136",
        year=2025,
        equation="y_i = Σ_j φ(q_i)·φ(k_j) M_ij v_j / Σ_j φ(q_i)·φ(k_j) M_ij, M_ij = λ^|i − j| along an order (d)",
        code="LIONS-EPFL/LION at 32a0136: outputs and gradients within 1e-14 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        backends=("torch",),
        shells={"published": ShellSpec(gate="none", norm="none", bias=True)},
        published=(
            Published("LION-lit ViT-B", "ImageNet-1k top-1 %, 224 px", 74.7, _LION),
            Published("LION-D ViT-B", "ImageNet-1k top-1 %, 224 px", 77.8, _LION),
            Published("LION-D ViT-B, two curves", "ImageNet-1k top-1 %, 224 px", 80.2, _LION),
            Published("LION-S ViT-B", "ImageNet-1k top-1 %, 224 px", 76.3, _LION),
            Published("LION-S ViT-B, two curves", "ImageNet-1k top-1 %, 224 px", 79.9, _LION),
        ),
    )
)
class LION(Core):
    """Linear attention to all tokens of the field u, which decays with the distance along orders of the grid.

    Args:
        site: where the core stands.
        backend: `torch` or `auto`.
        variant: `lit` (no decay: tokens may be permuted), `d` (a decay per head) or `s` (decays that x selects).
        orders: the orders (`operators.scan.orders`); their direction does not matter, since both are read.
        heads: number of heads; None for heads about 64 wide.

    Raises:
        InputError: an unknown variant or order, or heads that do not divide the width.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        variant: str = "d",
        orders: Sequence[str] = ("row",),
        heads: int | None = None,
    ) -> None:
        super().__init__(site, backend=backend)
        self.variant = check_choice("mixer.variant", variant, VARIANTS)
        self.along = check_orders("mixer.orders", orders)
        for name in self.along:
            if scan_orders.base(name)[1]:
                raise InputError(f"mixer.orders: {name!r} must be without {scan_orders.REVERSED!r}: both ways are read")
        self.heads = default_heads(site.width) if heads is None else heads
        check_heads(self.heads, site.width)
        self.value_heads = self.heads
        self.query_key = nn.Linear(site.dim, 2 * site.width)
        linear_init(self.query_key)
        if variant == "d":
            self.decay = nn.Parameter(torch.randn(len(self.along), self.heads))
        elif variant == "s":
            self.select = nn.Linear(site.dim, len(self.along) * self.heads)
            linear_init(self.select)
        self.no_weight_decay = frozenset({"d": {"decay"}, "s": {"select.bias"}}.get(variant, ()))

    @property
    def permutation_equivariant(self) -> bool:
        """Whether tokens have no places: without decay."""
        return self.variant == "lit"

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """φ(q) and φ(k), (B, H, W, heads, d), from x (B, H, W, C), in at least float32."""
        maps = self.query_key(x)
        maps = maps.to(wide(maps.dtype)).unflatten(-1, (2, self.heads, -1))
        positive = F.elu(maps) + 1 if self.variant == "lit" else F.normalize(F.silu(maps) + 0.5, dim=-1, eps=0)
        q, k = positive.unbind(-3)
        return q, k

    def log_decays(self, x: Tensor) -> Tensor:
        """Logarithms of a (B, H, W, orders, heads) from x (B, H, W, C), of variants d and s."""
        if self.variant == "s":
            return F.logsigmoid(-wide_linear(x, self.select)).unflatten(-1, (-1, self.heads))
        with full_precision(x):
            return F.logsigmoid(self.decay.to(wide(x.dtype))).expand(*x.shape[:3], -1, -1)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D)."""
        q, k = self.features(x)
        v = u.to(q.dtype).unflatten(-1, (self.heads, -1))
        with_ones = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)  # the last channel sums up the weights
        with full_precision(u):
            sums = _everywhere(q, k, with_ones) if self.variant == "lit" else self._along(q, k, with_ones, x)
        return (sums[..., :-1] / (sums[..., -1:] + EPS * q.shape[-1] ** 0.5)).flatten(3).to(u.dtype)

    def _along(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor) -> Tensor:
        """The sums over all tokens (B, H, W, heads, d), weighted by the mean of the orders' M."""
        height, width = x.shape[1:3]
        total = torch.zeros_like(v)
        for name, log_decay in zip(self.along, self.log_decays(x).unbind(3), strict=True):
            sequences = [scan_orders.gather(t.flatten(3), name).unflatten(2, (self.heads, -1)) for t in (q, k, v)]
            log_decay = scan_orders.gather(log_decay, name)
            # In both directions the token that is read counts with its own decay, the reading one without.
            forward = F.pad(log_decay[:, :-1], (0, 0, 1, 0))
            backward = F.pad(log_decay[:, 1:], (0, 0, 0, 1))
            mixed = scalar_decay(*sequences, forward=forward, backward=backward)
            total = total + scan_orders.scatter(mixed.flatten(2), name, height, width).unflatten(3, (self.heads, -1))
        return total / len(self.along)

    def core_cost(self, height: int, width: int) -> Cost:
        """Maps of q, k and the decays; values with one channel more, in both directions of every order."""
        tokens, head = height * width, self.site.width // self.heads
        linears = [self.query_key, *([self.select] if self.variant == "s" else [])]
        if self.variant == "lit":
            mixing, states = 2 * tokens * self.site.width * (head + 1), 1
        else:
            each = scalar_macs(tokens, self.heads, self.heads, head, head + 1, directions=2)
            mixing, states = len(self.along) * each, 2 * len(self.along)
        return Cost(
            projection_macs=tokens * sum(linear.weight.numel() for linear in linears),
            mixing_macs=mixing,
            state_elements=states * self.site.width * (head + 1),
        )

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`decay` (B, orders, heads, H, W), the decays a; empty without any."""
        return {} if self.variant == "lit" else {"decay": self.log_decays(x).exp().movedim((1, 2), (3, 4))}


def _everywhere(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The sums over all tokens (B, H, W, heads, d), all weighted alike."""
    height, width = q.shape[1:3]
    q, k, v = (t.flatten(1, 2).transpose(1, 2) for t in (q, k, v))
    return (q @ (k.mT @ v)).transpose(1, 2).unflatten(1, (height, width))
