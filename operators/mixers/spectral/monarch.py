"""The mixer `monarch`: tokens times a learned Monarch matrix, in two steps of one side of the grid each.

For each head, with a matrix R_j for each column j of the grid and a matrix L_i for each row i (arXiv 2204.00595)

    y[i, j] = Σ_m L_i[j, m] Σ_k R_m[i, k] u[k, m]

It is P L P^T R for blocks of H and W tokens, P the transposition of the grid. The sequence mixer that Monarch Mixer
(M2) has released has no such matrix: it is a long convolution, `m2`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from operators.card import MixerCard, Site
from operators.cost import Cost
from operators.errors import InputError
from operators.mixer import Core
from operators.mixers.heads import check_heads
from operators.registry import register
from operators.shell.spec import BARE
from operators.spectral.monarch import dense, multiply


@register(
    MixerCard(
        name="monarch",
        family="spectral",
        title="Monarch token matrix",
        source="arXiv 2204.00595; HazyResearch/m2 bert/src/mm/blockdiag_butterfly_multiply.py at 7d359e8",
        year=2022,
        equation="y = P L P^T R u over tokens, R a matrix for each column of the grid, L one for each row, by head",
        code="HazyResearch/m2 at 7d359e8: outputs and gradients within 2e-16 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=True,
        fixed_grid=True,
        backends=("torch", "reference"),
        shells={"published": BARE},
    )
)
class Monarch(Core):
    """A Monarch matrix over tokens for each head: every token reads every other one, for N (H + W) MACs a channel.

    Entries start as released: uniform within 1 / √H of zero in R and 1 / √W in L. It serves the grid it was made for.

    Args:
        site: where the core stands, with a grid.
        backend: `torch`, `reference` (stores the N × N matrices), or `auto`.
        heads: matrices, each for D / heads neighbouring channels.

    Raises:
        InputError: the site has no grid; heads that do not divide the width.
    """

    def __init__(self, site: Site, *, backend: str = "auto", heads: int = 4) -> None:
        super().__init__(site, backend=backend)
        check_heads(heads, site.width)
        if site.grid is None:
            raise InputError("mixer monarch depends on the grid: give grid=(H, W)")
        height, width = site.grid
        self.heads = heads
        self.columns = nn.Parameter(torch.empty(heads, width, height, height).uniform_(-1, 1) * height**-0.5)
        self.rows = nn.Parameter(torch.empty(heads, height, width, width).uniform_(-1, 1) * width**-0.5)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        parts = u.unflatten(-1, (self.heads, -1))
        if self.backend == "reference":
            matrices = dense(self.columns, self.rows).to(u.dtype)
            return torch.einsum("hnm,bmhd->bnhd", matrices, parts.flatten(1, 2)).reshape(u.shape)
        return multiply(parts, self.columns, self.rows).flatten(-2).to(u.dtype)

    def core_cost(self, height: int, width: int) -> Cost:
        """H + W for each element; all tokens are held between the two steps."""
        elements = height * width * self.site.width
        return Cost(mixing_macs=elements * (height + width), state_elements=elements)

    @torch.no_grad()
    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`map` (heads, N, N): the matrices of row-major tokens."""
        return {"map": dense(self.columns, self.rows)}
