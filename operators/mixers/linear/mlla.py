"""The linear attention of MILA (first called MLLA): rotated features above, plain ones below (arXiv 2405.16605).

For each head of width d, with q, k = W u + b from the field u itself, v = u, φ = ELU + 1 and rotations R_i

    y_i = (R_i φ(q_i))ᵀ ((1/N) Σ_j R_j φ(k_j) v_jᵀ) / (φ(q_i)ᵀ (1/N) Σ_j φ(k_j) + 10⁻⁶)  +  (DW_3 v)_i

The last term, a depthwise convolution of the values (LePE), is part of the released mixer and an option here. The
angles are those of the released code: they are spread over all D channels before heads are cut, D/4 frequencies
10000^(−t / (D/4)) for rows and then as many for columns, so the first half of the heads sees rows alone and the second
half columns alone, each head in frequencies of its own. Rotated weights may be
negative, and their rows do not sum to 1.

In the `published` shell this is the mixer of `MLLABlock` of LeapLabTHU/MLLA at 66b6d29 (`models/mlla.py`, from
`in_proj` to `out_proj`): with copied weights, the channels of q and k brought to the order of pairs used here, outputs
and input gradients agree to 4e-16 (relative RMS, float64).
"""

from __future__ import annotations

import torch
from torch import Tensor

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import check_choice
from operators.linear import products_reference as reference
from operators.linear.features import elu_plus_one
from operators.linear.products import averaged, mass, mixed, product_macs
from operators.mixers.positions import axial_angles, local_values, turn
from operators.mixers.queries import QueryKeyCore, check_rotation
from operators.registry import register
from operators.shell.spec import ShellSpec

BASE = 10000.0
EPS = 1e-6
_MLLA = "LeapLabTHU/MLLA README.md; trained with MESA"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


@register(
    MixerCard(
        name="mlla",
        family="linear",
        title="Linear attention of MILA (MLLA)",
        source="arXiv 2405.16605, section 4; LeapLabTHU/MLLA models/mlla.py at 66b6d29",
        year=2024,
        equation="y_i = (R_i φ(q_i))ᵀ mean_j R_j φ(k_j) v_jᵀ / (φ(q_i)ᵀ mean_j φ(k_j) + 1e-6), q, k = W u, φ = ELU + 1",
        code="LeapLabTHU/MLLA at 66b6d29: outputs and input gradients within 4e-16 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        backends=("torch",),
        shells={"published": ShellSpec(conv=3, norm="none", bias=True)},
        preset_params={"published": {"lepe": True}},
        published=(
            Published("MLLA-T", _TOP1, 83.5, _MLLA),
            Published("MLLA-S", _TOP1, 84.4, _MLLA),
            Published("MLLA-B", _TOP1, 85.3, _MLLA),
        ),
    )
)
class MLLA(QueryKeyCore):
    """Linear attention whose numerator alone is rotated; q, k and v all come from the field u.

    Args:
        site: where the core stands.
        backend: `torch` or `auto`.
        heads: number of heads; None for `default_heads`. The released models' are of 32 channels.
        rope: 2-D rotary positions; needs a width divisible by 4 and heads of even width.
        lepe: a 3 × 3 depthwise convolution of the values, added to the output; None for true in the published shell and
            false in any other.

    Raises:
        InputError: heads that do not divide the width, or widths that cannot be rotated.
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
        super().__init__(site, backend=backend, heads=heads, source="u")
        self.rope = check_choice("mixer.rope", rope, (True, False))
        if rope:
            check_rotation("a width", site.width, 4)
            check_rotation("a head width", self.head_width, 2)
        self.local = local_values(lepe, site.width, 3)

    @property
    def permutation_equivariant(self) -> bool:
        """Not with rotary positions or a convolution."""
        return not self.rope and self.local is None

    def _turned(self, q: Tensor, k: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        if not self.rope:
            return q, k
        quarter = self.site.width // 4
        frequency = BASE ** (-torch.arange(quarter, device=q.device, dtype=q.dtype) / quarter)
        angles = axial_angles(*grid, frequency=frequency).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        return turn(q, angles), turn(k, angles)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]) -> Tensor:
        q, k = elu_plus_one(q), elu_plus_one(k)
        if not self.rope:
            return averaged(q, k, v, EPS)
        return mixed(*self._turned(q, k, grid), v) / (mass(q, k) + EPS)

    def mixing_map(self, q: Tensor, k: Tensor, grid: tuple[int, int]) -> Tensor:
        q, k = elu_plus_one(q), elu_plus_one(k)
        return reference.mixing_map(*self._turned(q, k, grid)) / (
            reference.mixing_map(q, k).sum(-1, keepdim=True) + EPS
        )

    def mix_cost(self, tokens: int) -> Cost:
        """State and reading, N d² each, N d for the mean weight; the state is d² + d numbers a head."""
        width = self.head_width
        return Cost(
            mixing_macs=self.heads * (product_macs(tokens, width, width) + tokens * width),
            state_elements=self.site.width * (width + 1),
        )
