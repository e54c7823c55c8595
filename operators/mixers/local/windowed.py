"""What mixers share whose tokens attend to a window: the bias by relative position, and softmax attention with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from operators.card import Site
from operators.errors import check_choice, check_number
from operators.initialisation import truncated_normal_
from operators.mixers.queries import QueryKeyCore
from operators.precision import wide

LARGEST = 128
"""Greatest side of a window: the table of biases has (2 · 128 − 1)² numbers a head."""


class WindowedAttention(QueryKeyCore):
    """Heads with q and k of the mixer's input, and a table of biases by relative position that is added to scores.

    The table (heads, 2 w − 1, 2 w − 1) holds, at (w − 1 + i, w − 1 + j), what is added for a key that lies i rows below
    and j columns to the right of its query. It starts as a cut normal of 0.02 and asks for no weight decay.

    Args:
        site: where the core stands.
        backend: one of the card's, or `auto`.
        heads: number of heads; None for `default_heads`.
        window: side w of a window.
        position_bias: whether there is a table.
        bias: whether the maps q and k have a bias.

    Raises:
        InputError: heads that do not divide the width, or a value out of range.
    """

    no_weight_decay = frozenset({"table"})

    def __init__(
        self, site: Site, *, backend: str, heads: int | None, window: int, position_bias: bool, bias: bool
    ) -> None:
        check_number("mixer.window", window, least=1, most=LARGEST, integer=True)
        check_choice("mixer.position_bias", position_bias, (True, False))
        super().__init__(site, backend=backend, heads=heads, bias=check_choice("mixer.bias", bias, (True, False)))
        self.window = window
        self.table: nn.Parameter | None = None
        if position_bias:
            self.table = nn.Parameter(torch.empty(self.heads, 2 * window - 1, 2 * window - 1))
            truncated_normal_(self.table)
        else:
            self.no_weight_decay = frozenset()

    def position_biases(self, rows: Tensor, columns: Tensor) -> Tensor:
        """What is added to the scores of tiles, (P, Q, heads, T T', L L'); zeros for one head without a table.

        Args:
            rows: (P, T, L) by how many rows each of L keys lies below each of T queries, for P rows of tiles.
            columns: (Q, T', L') the same of columns, for Q columns of tiles.
        """
        (tiles_h, queries_h, keys_h), (tiles_w, queries_w, keys_w) = rows.shape, columns.shape
        if self.table is None:
            weight = self.qk.weight
            return torch.zeros(1, 1, 1, 1, 1, dtype=weight.dtype, device=weight.device)
        reach = self.window - 1
        chosen = self.table.index_select(2, (columns + reach).flatten())
        chosen = chosen.index_select(1, (rows + reach).flatten())
        chosen = chosen.view(self.heads, tiles_h, queries_h, keys_h, tiles_w, queries_w, keys_w)
        return chosen.permute(1, 4, 0, 2, 5, 3, 6).reshape(
            tiles_h, tiles_w, self.heads, queries_h * queries_w, keys_h * keys_w
        )


def window_weights(q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
    """softmax(q kᵀ / √d + bias), in at least float32, from q (…, T, d) and k (…, L, d)."""
    scores = (q * q.shape[-1] ** -0.5) @ k.mT + bias
    return scores.softmax(-1, dtype=wide(scores.dtype))
