"""PolaFormer: linear attention between parts of the same and of opposite sign, with learned powers (arXiv 2501.15061).

For each head of width d, with q, k = W x + b over softplus(s) by channels, v = u = [v¹ | v²] in halves, the parts
q± = ReLU(±q)^p and k± = ReLU(±k)^p, and p = 1 + α σ(θ) for each channel

    same_i = Σ_j (q_i⁺·k_j⁺ + q_i⁻·k_j⁻) v¹_j / (the sum of these weights + N 10⁻⁶)
    opp_i  = Σ_j (q_i⁻·k_j⁺ + q_i⁺·k_j⁻) v²_j / (the sum of these weights + N 10⁻⁶)
    y_i    = [same_i | opp_i]  +  (DW_5 v)_i

Both streams read one state of 2d × d numbers, the second with its halves exchanged. The last term, a depthwise
convolution of the values with the same filters in all heads (LePE), is part of the released mixer and an option here;
so is its table of learned positions, which is added to k and ties the mixer to its grid.

In the `published` shell this is `PolaLinearAttention` of ZacharyMeng/PolaFormer at 44cdd39 (`models/pola_pvt.py`)
without spatially reduced keys (sr_ratio 1): with copied weights, its table of positions included, outputs and input
gradients agree to 5e-16 (relative RMS, float64).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import InputError, check_choice, check_number
from operators.linear import products_reference as reference
from operators.mixers.positions import local_values
from operators.mixers.queries import QueryKeyCore
from operators.precision import full_precision
from operators.registry import register
from operators.shell.spec import ShellSpec

EPS = 1e-6
LEAST = 1e-20
"""Least ε, relative to the greatest weight there could be."""
_POLA = "ZacharyMeng/PolaFormer README.md"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


@register(
    MixerCard(
        name="polaformer",
        family="linear",
        title="Polarity-aware linear attention (PolaFormer)",
        source="arXiv 2501.15061, section 4; ZacharyMeng/PolaFormer models/pola_pvt.py at 44cdd39",
        year=2025,
        equation="y = [avg(q⁺k⁺ + q⁻k⁻, v¹) | avg(q⁻k⁺ + q⁺k⁻, v²)] per head, q± = ReLU(±q)^p, p = 1 + α σ(θ)",
        code="ZacharyMeng/PolaFormer at 44cdd39: outputs and input gradients within 5e-16 (relative RMS, float64)",
        position_aware=False,
        permutation_equivariant=True,
        translation_equivariant="circular",
        linear=False,
        fp32_core=True,
        backends=("torch",),
        shells={"published": ShellSpec(gate="linear", norm="none", bias=True)},
        preset_params={"published": {"lepe": True}},
        published=(
            Published("Pola-PVT-T", _TOP1, 78.8, _POLA),
            Published("Pola-PVT-S", _TOP1, 81.9, _POLA),
            Published("Pola-Swin-T", _TOP1, 82.6, _POLA),
            Published("Pola-Swin-S", _TOP1, 83.6, _POLA),
            Published("Pola-Swin-B", _TOP1, 83.8, _POLA),
        ),
    )
)
class PolaFormer(QueryKeyCore):
    """Linear attention between parts of the same sign for half of the values, of opposite sign for the other half.

    Scales s and powers θ start at zero, hence at softplus(0) = 0.69 and p = 1 + α/2. They ask for no weight decay.

    Args:
        site: where the core stands.
        backend: `torch` or `auto`.
        heads: number of heads, each of even width; None for `default_heads`.
        alpha: α, the range of the learned powers: 4 in the released vision models, 0 for the power 1.
        positions: a learned table of N × D numbers, zero at the start, is added to k; the core then serves the nominal
            grid alone.
        lepe: a 5 × 5 depthwise convolution of the values, added to the output; None for true in the published shell and
            false in any other.

    Raises:
        InputError: heads that do not divide the width into even parts, α out of range, or positions without a grid.
    """

    no_weight_decay = frozenset({"scale", "power"})

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        heads: int | None = None,
        alpha: float = 4.0,
        positions: bool = False,
        lepe: bool | None = None,
    ) -> None:
        super().__init__(site, backend=backend, heads=heads)
        check_number("mixer.alpha", alpha, least=0, most=16)
        check_choice("mixer.positions", positions, (True, False))
        if self.head_width % 2:
            raise InputError(f"mixer.heads={self.heads} gives heads of {self.head_width} channels: they must be even")
        if positions and site.grid is None:
            raise InputError("mixer.positions=True depends on the grid: give grid=(H, W)")
        self.alpha = alpha
        self.scale = nn.Parameter(torch.zeros(site.width))
        self.power = nn.Parameter(torch.zeros(self.heads, self.head_width))
        self.local = local_values(lepe, self.head_width, 5)
        self.positions = nn.Parameter(torch.zeros(*site.grid, site.width)) if positions and site.grid else None

    @property
    def permutation_equivariant(self) -> bool:
        """Not with positions or a convolution."""
        return self.positions is None and self.local is None

    def queries_keys(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps q and k (B, heads, N, d) in at least float32, with positions and without their scales.

        Raises:
            InputError: another grid than the one of the positions.
        """
        q, k = super().queries_keys(u, x)
        if self.positions is not None:
            if self.positions.shape[:2] != x.shape[1:3]:
                raise InputError(f"mixer.positions are for {self.site.grid} tokens, not for {tuple(x.shape[1:3])}")
            by_head = self.positions.flatten(0, 1).unflatten(-1, (self.heads, self.head_width)).transpose(0, 1)
            k = k + by_head.to(k.dtype)
        return q, k

    def _logs(self, features: Tensor) -> Tensor:
        """log(|x| / softplus(s))^p of features x, which are q or k (B, heads, N, d)."""
        power = 1 + self.alpha * torch.sigmoid(self.power.to(features.dtype)[:, None])
        scale = F.softplus(self.scale.to(features.dtype)).view_as(power)
        size = features.abs().clamp(min=torch.finfo(features.dtype).tiny)
        return torch.addcmul(-power * scale.log(), power, size.log())

    def parts(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[ReLU(x)^p | ReLU(−x)^p] of x = q and k over their scale, (B, heads, N, 2 d), and ε (B, heads, N, 1).

        What is greater than 1 is divided by the greatest of a query and of all keys, and ε by both: high powers stay
        within float32, and averages are as they were.
        """
        log_q, log_k = self._logs(q), self._logs(k)
        most_q = log_q.detach().amax(-1, keepdim=True).clamp(min=0)
        most_k = log_k.detach().amax((-2, -1), keepdim=True).clamp(min=0)
        eps = (EPS * (-most_q - most_k).exp()).clamp(min=LEAST)
        return _by_sign(q, (log_q - most_q).exp()), _by_sign(k, (log_k - most_k).exp()), eps

    def mix(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]) -> Tensor:
        q, k, eps = self.parts(q, k)
        same, opposite = (k.mT @ v / k.shape[-2]).chunk(2, dim=-1)
        mean = k.mean(-2)[..., None]
        state = torch.cat([same, _exchanged(opposite), mean, _exchanged(mean)], dim=-1)
        y, mass = (q @ state).split([self.head_width, 2], dim=-1)
        return (y.unflatten(-1, (2, -1)) / (mass + eps)[..., None]).flatten(-2)

    def mix_cost(self, tokens: int) -> Cost:
        """State and reading, 2 N d² each, 4 N d for both mean weights; the state is 2 d² + 2 d numbers a head."""
        width = self.head_width
        return Cost(
            mixing_macs=self.heads * 4 * tokens * width * (width + 1),
            state_elements=self.heads * 2 * width * (width + 1),
        )

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`same` and `opposite` (B, heads, N, N), the maps of either half of a head's values, rows summing to one."""
        q, k = self.queries_keys(u, x)
        with full_precision(q):
            q, k, eps = self.parts(q, k)
            exchanged = _exchanged(k.mT).mT
            return {
                "same": reference.averaging_map(q, k, eps),
                "opposite": reference.averaging_map(q, exchanged, eps),
            }


def _by_sign(features: Tensor, size: Tensor) -> Tensor:
    """[size where features are positive | size where they are negative], zero elsewhere, (…, 2 d)."""
    return torch.cat([torch.where(features > 0, size, 0), torch.where(features < 0, size, 0)], dim=-1)


def _exchanged(rows: Tensor) -> Tensor:
    """Rows (…, 2 d, e) with those of positive parts in the place of negative ones, and the reverse."""
    return torch.cat(rows.chunk(2, dim=-2)[::-1], dim=-2)
