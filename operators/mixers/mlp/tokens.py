"""What the mixers by matrices over tokens have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from operators.card import Site
from operators.cost import Cost
from operators.errors import InputError
from operators.mixer import Core


class TokenCore(Core):
    """Multiplies the N tokens of the grid it was made for by matrices that all channels share.

    Args:
        site: where the core stands, with a grid.
        backend: `torch` or `auto`.

    Raises:
        InputError: the site has no grid.
    """

    def __init__(self, site: Site, *, backend: str) -> None:
        super().__init__(site, backend=backend)
        if site.grid is None:
            raise InputError(f"mixer {self.card.name} depends on the grid: give grid=(H, W)")
        self.tokens = site.grid[0] * site.grid[1]

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """The field (B, H, W, D) after its matrices."""
        return self.across(u.flatten(1, 2).mT).mT.reshape(u.shape)

    def across(self, channels: Tensor) -> Tensor:
        """What becomes of each channel's row of tokens, (B, D, N)."""
        raise NotImplementedError


class MatrixCore(TokenCore):
    """Adds to one product W u over tokens one number for each token; W is N × N.

    Args:
        site: where the core stands, with a grid.
        backend: `torch` or `auto`.
    """

    def __init__(self, site: Site, *, backend: str) -> None:
        super().__init__(site, backend=backend)
        self.matrix = nn.Linear(self.tokens, self.tokens)

    def across(self, channels: Tensor) -> Tensor:
        """The matrix times each channel's row of tokens, (B, D, N)."""
        y: Tensor = self.matrix(channels)
        return y

    def core_cost(self, height: int, width: int) -> Cost:
        """N² for each channel; all tokens are held, since every output reads every one of them."""
        elements = height * width * self.site.width
        return Cost(mixing_macs=height * width * elements, state_elements=elements)

    @torch.no_grad()
    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`map` (N, N), the matrix, and `constant` (H, W), what is added to each token."""
        return {"map": self.matrix.weight, "constant": self.matrix.bias.view(u.shape[1:3])}
