"""Attention to keys and values of a coarser grid: spatial-reduction attention (PVT, arXiv 2102.12122, section 3.3).

A convolution of r × r tokens with stride r and a LayerNorm make a grid of ⌈H / r⌉ × ⌈W / r⌉ tokens of x; where r does
not divide a side, zeros below and on the right make it up. For each head of width d, with queries q = u,

    z = LN(K x),   k, v = W z + b,   y = softmax(q kᵀ / √d) v          r = 1: z = x

In the `published` shell, whose W_in is the map of queries, this is `Attention` of whai362/PVT as OpenGVLab/
STM-Evaluation at b62c471 has it (`classification/models/blocks/pvt.py`), with LayerNorm's ε set to 1e-6. That code
takes only grids whose sides are at least r, and leaves out the rows and columns that r does not divide. With copied
weights U-PVT micro agrees as a whole, at 64 × 64 pixels: outputs to 7e-16, input gradients to 4e-15 (relative RMS,
float64).
"""

from __future__ import annotations

from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import InputError, check_choice, check_number
from operators.initialisation import linear_init
from operators.mixer import Core
from operators.mixers.attention.attention import attend, attention_map
from operators.mixers.heads import check_heads, default_heads
from operators.registry import register
from operators.runtime.differentiation import forward_mode
from operators.shell.spec import ShellSpec

EPS = 1e-6
_STM = "OpenGVLab/STM-Evaluation README.md"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


@register(
    MixerCard(
        name="spatial_reduction",
        family="attention",
        title="Spatial-reduction attention (PVT)",
        source="arXiv 2102.12122, section 3.3; OpenGVLab/STM-Evaluation classification/models/blocks/pvt.py at b62c471",
        year=2021,
        equation="y = softmax(q kᵀ / √d) v, q = u, k and v linear in z = LN(x ⋆ K), K of r × r tokens and stride r",
        code="OpenGVLab/STM-Evaluation at b62c471, a whole model, ε set to 1e-5: outputs and input gradients within "
        "4e-15 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        backends=("sdpa", "reference"),
        shells={"published": ShellSpec(gate="none", norm="none", bias=True)},
        exempt={
            "state_param": "the state is keys and values of the coarser grid, which falls with `reduction` squared"
        },
        published=(
            Published("U-PVT micro", _TOP1, 72.8, _STM),
            Published("U-PVT tiny", _TOP1, 82.1, _STM),
            Published("U-PVT small", _TOP1, 83.2, _STM),
            Published("U-PVT base", _TOP1, 83.4, _STM),
        ),
    )
)
class SpatialReduction(Core):
    """Softmax attention of the field u, as queries, to keys and values of a coarser grid of the mixer's input x.

    Args:
        site: where the core stands.
        backend: `sdpa`, `reference` (stores the map), or `auto`: `sdpa` outside of forward-mode differentiation.
        heads: number of heads; None for `default_heads`.
        reduction: r, by how much the grid of keys and values is coarser along each axis.
        bias: whether the map of keys and values has a bias.

    Raises:
        InputError: heads that do not divide the width, or a value out of range.
    """

    def __init__(
        self, site: Site, *, backend: str = "auto", heads: int | None = None, reduction: int = 2, bias: bool = True
    ) -> None:
        super().__init__(site, backend=backend)
        self.heads = default_heads(site.width) if heads is None else heads
        check_heads(self.heads, site.width)
        self.value_heads = self.heads
        check_number("mixer.reduction", reduction, least=1, most=64, integer=True)
        self.reduction = reduction
        self.reduce: nn.Conv2d | None = None
        self.norm: nn.LayerNorm | None = None
        if reduction > 1:
            self.reduce = nn.Conv2d(site.dim, site.dim, reduction, stride=reduction)
            self.norm = nn.LayerNorm(site.dim, eps=EPS)
        self.kv = nn.Linear(site.dim, 2 * site.width, bias=check_choice("mixer.bias", bias, (True, False)))
        linear_init(self.kv)

    @property
    def backend(self) -> str:
        """What serves a call: `reference` if asked for, or in forward-mode differentiation."""
        if self.requested_backend == "auto":
            return "reference" if forward_mode() else "sdpa"
        return self.requested_backend

    @property
    def permutation_equivariant(self) -> bool:
        """With keys of the same grid."""
        return self.reduction == 1

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, M, heads, d) of M tokens of the coarser grid, from x (B, H, W, C)."""
        if self.reduce is not None and self.norm is not None:
            rows, columns = -x.shape[1] % self.reduction, -x.shape[2] % self.reduction
            padded = nn.functional.pad(x, (0, 0, 0, columns, 0, rows)) if rows or columns else x
            reduced = self.reduce(padded.movedim(-1, 1)).movedim(1, -1)
            x = self.norm(reduced.to(self.norm.weight.dtype))
        k, v = self.kv(x).flatten(1, 2).unflatten(-1, (2, self.heads, -1)).unbind(2)
        return k, v

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """What queries u (B, H, W, D) read, in the type of the keys.

        Raises:
            InputError: `sdpa` is asked for in forward-mode differentiation.
        """
        if self.backend == "sdpa" and forward_mode():
            raise InputError("mixer.backend='sdpa' has no forward-mode derivatives; use auto or reference")
        k, v = self.keys_values(x)
        q = u.to(k.dtype).flatten(1, 2).unflatten(-1, (self.heads, -1))
        return attend(q, k, v, self.backend).reshape(u.shape)

    def core_cost(self, height: int, width: int) -> Cost:
        """With M tokens of the coarser grid: the convolution M r² C², keys and values 2 M C D; 2 N M D of attention."""
        keys = -(-height // self.reduction) * -(-width // self.reduction)
        convolution = 0 if self.reduce is None else self.reduce.weight.numel()
        return Cost(
            projection_macs=keys * self.kv.weight.numel(),
            mixing_macs=keys * convolution + 2 * height * width * keys * self.site.width,
            state_elements=2 * keys * self.site.width,
        )

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`map` (B, heads, N, M), rows summing to one, from tokens to those of the coarser grid, row by row of it."""
        k, _ = self.keys_values(x)
        q = u.to(k.dtype).flatten(1, 2).unflatten(-1, (self.heads, -1))
        return {"map": attention_map(q, k)}
