"""Rank-augmented linear attention (RALA, arXiv 2411.07635): keys weighted by what the image asks for on average.

For each head of width d, with q, k = W x + b, v = u, φ = ELU + 1 and rotations R_i

    α_j = N softmax_j(d^(−1/2) mean_i φ(q_i) · φ(k_j)),   κ_j = α_j φ(k_j)
    y_i = (R_i φ(q_i))ᵀ ((1/N) Σ_j R_j κ_j v_jᵀ) / (φ(q_i)ᵀ (1/N) Σ_j κ_j + 10⁻⁶)  +  (DW_5 v)_i

The last term, a depthwise convolution of the values (LePE), is part of the released mixer and an option here. The map
of a head keeps its rank of at most d; α, whose mean is 1, decides which tokens fill it. The angles are
10000^(−t / (d/4 − 1)), t = 0 … d/4 − 1, for rows and then for columns, in every head alike.

In the `published` shell this is `GateLinearAttentionNoSilu` of qhfan/RALA at a86314f (`classfication/RALA.py`): with
copied weights, the channels of q and k brought to the order of pairs used here, outputs and input gradients agree to
7e-16 (relative RMS, float64). Stages 3 and 4 of all released models are softmax attention instead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import check_choice
from operators.linear import products_reference as reference
from operators.linear.features import elu_plus_one
from operators.linear.products import mass, mixed, product_macs
from operators.mixers.positions import axial_angles, local_values, turn
from operators.mixers.queries import QueryKeyCore, check_rotation
from operators.registry import register
from operators.shell.spec import ShellSpec

BASE = 10000.0
EPS = 1e-6


@register(
    MixerCard(
        name="rala",
        family="linear",
        title="Rank-augmented linear attention (RALA)",
        source="arXiv 2411.07635, section 3; qhfan/RALA classfication/RALA.py at a86314f",
        year=2024,
        equation="as mlla with keys α_j φ(k_j), α = N softmax_j(d^(−1/2) mean_i φ(q_i) · φ(k_j)), q, k = W x",
        code="qhfan/RALA at a86314f: outputs and input gradients within 7e-16 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        backends=("torch",),
        shells={"published": ShellSpec(gate="linear", norm="none", bias=True)},
        preset_params={"published": {"lepe": True}},
        published=(
            Published(
                "RAVLT-S (softmax attention in stages 3 and 4)",
                "ImageNet-1k top-1 %, 224 px",
                84.4,
                "qhfan/RALA README.md",
            ),
        ),
    )
)
class RALA(QueryKeyCore):
    """Linear attention whose keys are weighted by a softmax over tokens against the mean query.

    Args:
        site: where the core stands.
        backend: `torch` or `auto`.
        heads: number of heads; None for `default_heads`. The released models' are of 64 channels.
        rope: 2-D rotary positions of the numerator; needs a head width divisible by 4.
        lepe: a 5 × 5 depthwise convolution of the values, added to the output; None for true in the published shell and
            false in any other.

    Raises:
        InputError: heads that do not divide the width, or a head width that cannot be rotated.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        heads: int | None = None,
        rope: bool = True,
        lepe: bool | None = None,
    ) -> None:
        super().__init__(site, backend=backend, heads=heads)
        self.rope = check_choice("mixer.rope", rope, (True, False))
        if rope:
            check_rotation("a head width", self.head_width, 4)
        self.local = local_values(lepe, site.width, 5)

    @property
    def permutation_equivariant(self) -> bool:
        """Not with rotary positions or a convolution."""
        return not self.rope and self.local is None

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        """α (B, heads, N, 1), whose mean over tokens is 1, from features q and k (B, heads, N, d)."""
        wanted = q.mean(-2, keepdim=True) * self.head_width**-0.5
        return (k @ wanted.mT).softmax(-2) * k.shape[-2]

    def _turned(self, q: Tensor, k: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        if not self.rope:
            return q, k
        steps = torch.linspace(0, 1, self.head_width // 4, device=q.device, dtype=q.dtype)
        angles = axial_angles(*grid, frequency=BASE**-steps)
        return turn(q, angles), turn(k, angles)

    def _features(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        q, k = elu_plus_one(q), elu_plus_one(k)
        return q, k * self.weights(q, k)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]) -> Tensor:
        q, k = self._features(q, k)
        return mixed(*self._turned(q, k, grid), v) / (mass(q, k) + EPS)

    def mixing_map(self, q: Tensor, k: Tensor, grid: tuple[int, int]) -> Tensor:
        q, k = self._features(q, k)
        return reference.mixing_map(*self._turned(q, k, grid)) / (
            reference.mixing_map(q, k).sum(-1, keepdim=True) + EPS
        )

    def mix_cost(self, tokens: int) -> Cost:
        """State and reading, N d² each, N d each for the mean weight and for α.

        The state is d² + 2 d + 1 numbers a head: values, mean key, mean query, and the softmax's sum.
        """
        width = self.head_width
        return Cost(
            mixing_macs=self.heads * (product_macs(tokens, width, width) + 2 * tokens * width),
            state_elements=self.heads * (width + 1) ** 2,
        )

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`map` (B, heads, N, N), and `weights` (B, heads, H, W): α."""
        shown = super().inspect(u, x=x, cond=cond)
        q, k = self.queries_keys(u, x)
        return {**shown, "weights": self.weights(elu_plus_one(q), elu_plus_one(k)).unflatten(-2, u.shape[1:3])[..., 0]}
