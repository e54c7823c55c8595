"""Linear attention over all tokens: softmax's exponential is replaced by a product of features (arXiv 2006.16236).

For each head of width d, with q, k = W x + b, v = u and a feature map φ ≥ 0 acting on each number

    y_i = φ(q_i)ᵀ Σ_j φ(k_j) v_jᵀ / (φ(q_i)ᵀ Σ_j φ(k_j))

φ is ELU + 1 (arXiv 2006.16236; MILA, RALA) or ReLU (EfficientViT, arXiv 2205.14756; SANA, arXiv 2410.10629; LiT, arXiv
2501.12976). A token whose features are all zero under ReLU reads nothing: 0.
With a context, the sums are over its tokens.

With copied weights, and their ε (added to the sum of the weights) brought to N times the one here, outputs and input
gradients agree with `LinearAttention` of idiap/fast-transformers at 2ad36b9 (ELU + 1) to 4e-16, and with `LiteMLA` of
mit-han-lab/efficientvit at de7d773 without its branches at other scales (ReLU, heads of 8 channels, 5 × 7 and 2 × 2
tokens) to 9e-15 (relative RMS, float64).
"""

from __future__ import annotations

from torch import Tensor

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import check_choice
from operators.linear import products_reference as reference
from operators.linear.features import FEATURE_MAPS
from operators.linear.products import averaged, present, product_macs
from operators.mixers.queries import QueryKeyCore
from operators.registry import register
from operators.shell.spec import ShellSpec

EPS = 1e-15
_EFFICIENTVIT = "mit-han-lab/efficientvit README.md of efficientvit_cls"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


@register(
    MixerCard(
        name="linear_attention",
        family="linear",
        title="Linear attention",
        source="arXiv 2006.16236, equation 5; ReLU features of arXiv 2205.14756 (EfficientViT) and 2410.10629 (SANA)",
        year=2020,
        equation="y_i = φ(q_i)ᵀ Σ_j φ(k_j) v_jᵀ / φ(q_i)ᵀ Σ_j φ(k_j), q, k = W x + b, v = u, φ = ELU + 1 or ReLU",
        code="idiap/fast-transformers at 2ad36b9 and mit-han-lab/efficientvit at de7d773: within 9e-15 (RMS, float64)",
        position_aware=False,
        permutation_equivariant=True,
        translation_equivariant="circular",
        linear=False,
        axes=(2, 3),
        reads_context=True,
        fp32_core=True,
        backends=("torch",),
        shells={"published": ShellSpec(gate="none", norm="none", bias=True)},
        published=(
            Published("EfficientViT-L1 (ReLU, two scales)", _TOP1, 84.48, _EFFICIENTVIT),
            Published("EfficientViT-L2 (ReLU, two scales)", _TOP1, 85.05, _EFFICIENTVIT),
        ),
    )
)
class LinearAttention(QueryKeyCore):
    """Linear attention over all tokens; q and k come from the mixer's input x, the values are the field u.

    Args:
        site: where the core stands.
        backend: `torch` or `auto`.
        heads: number of heads; None for `default_heads`. EfficientViT's are of 16 or 32 channels, SANA's of 32.
        feature_map: φ: `elu` for ELU + 1, or `relu`.

    Raises:
        InputError: heads that do not divide the width, or an unknown feature map.
    """

    def __init__(
        self, site: Site, *, backend: str = "auto", heads: int | None = None, feature_map: str = "elu"
    ) -> None:
        super().__init__(site, backend=backend, heads=heads)
        self.feature_map = check_choice("mixer.feature_map", feature_map, FEATURE_MAPS)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        phi = FEATURE_MAPS[self.feature_map]
        return averaged(phi(q), present(phi(k), mask), v, EPS)

    def mixing_map(self, q: Tensor, k: Tensor, grid: tuple[int, int]) -> Tensor:
        phi = FEATURE_MAPS[self.feature_map]
        return reference.averaging_map(phi(q), phi(k), EPS)

    def attend_cost(self, queries: int, keys: int) -> Cost:
        """State M d², reading N d², N d for the mean weight; the state is d² + d numbers a head."""
        width = self.head_width
        return Cost(
            mixing_macs=self.heads * (product_macs(queries, width, width, keys) + queries * width),
            state_elements=self.site.width * (width + 1),
        )
