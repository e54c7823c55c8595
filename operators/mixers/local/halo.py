"""Attention of blocks to themselves and a halo around them: HaloNet (arXiv 2103.12731).

The grid is cut into blocks of b × b tokens, those at the bottom and on the right less where b does not divide it. The
tokens of a block all see the same tokens: its own, and those at most h rows and h columns away from it. For each head
of width d with q, k = W x, v = u, and learned tables R and S, one vector for every offset, which all heads share

    y_i = Σ_j softmax_j(q_i · k_j / √d + q_i · (R[row of j − row of i] + S[column of j − column of i])) v_j

Nobody sees what lies beyond the border: the paper's attention reads zeros there, and the STM evaluation masks them.

In the `published` shell this is `HaloAttn` of OpenGVLab/STM-Evaluation at b62c471 (`classification/models/blocks/
halonet.py`, `pos_embed_type="query_related"`), but that its tables have vectors for offsets that no pair of tokens has
(6 of 25 with b = 7 and h = 3), and that values have a bias here, which is one with that of W_out. With copied weights
U-HaloNet micro agrees as a whole, at 224 × 224 pixels: outputs to 4e-16, input gradients to 4e-15 (relative RMS,
float64).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import check_choice, check_number
from operators.mixers.local.neighbourhood import Tiles, by_tile, from_tiles
from operators.mixers.local.windowed import LARGEST, window_weights
from operators.mixers.queries import QueryKeyCore
from operators.registry import register
from operators.shell.spec import ShellSpec

_STM = "OpenGVLab/STM-Evaluation README.md"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


def blocks(length: int, side: int, halo: int, device: torch.device) -> Tiles:
    """Blocks of so many tokens along an axis, and what they see; steps are cut at those of a block and its halo."""
    side = min(side, length)
    count = min(side + 2 * halo, length)
    first = torch.arange(-(-length // side), device=device)[:, None] * side
    query = first + torch.arange(side, device=device)
    key = (first - halo).clamp(0, length - count) + torch.arange(count, device=device)
    seen = (key >= first - halo) & (key < first + side + halo)
    reach = side + halo - 1
    return Tiles(
        queries=query.clamp(max=length - 1),
        keys=key,
        steps=(key[:, None] - query[..., None]).clamp(-reach, reach),
        seen=seen[:, None].expand(-1, side, -1),
        places=torch.arange(length, device=device),
    )


@register(
    MixerCard(
        name="halo",
        family="local",
        title="Halo attention (HaloNet)",
        source="arXiv 2103.12731, section 3; OpenGVLab/STM-Evaluation classification/models/blocks/halonet.py",
        year=2021,
        equation="y_i = Σ_j softmax_j(q_i·k_j / √d + q_i·(R[Δrow] + S[Δcolumn])) v_j in i's block and halo, per head",
        code="OpenGVLab/STM-Evaluation at b62c471, a whole model, the bias of values zero: outputs and input gradients "
        "within 4e-15 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        backends=("torch",),
        shells={"published": ShellSpec(gate="none", norm="none", bias=True)},
        published=(
            Published("U-HaloNet micro", _TOP1, 75.8, _STM),
            Published("U-HaloNet tiny", _TOP1, 83.0, _STM),
            Published("U-HaloNet small", _TOP1, 84.0, _STM),
            Published("U-HaloNet base", _TOP1, 84.6, _STM),
        ),
    )
)
class Halo(QueryKeyCore):
    """Softmax attention of the tokens of a block to those of the block and of a halo around it.

    The tables `rows` and `columns` (2 (b + h) − 1, d) hold, at b + h − 1 + i, the vector for a key that lies i rows
    below, or columns to the right of, its query. They start normal, of the deviation 1 / √d, and ask for no decay.

    Args:
        site: where the core stands.
        backend: `torch` or `auto`.
        heads: number of heads; None for `default_heads`. The released models' are of 32 channels.
        block: side b of a block.
        halo: h, rows and columns of tokens around it that it sees.
        relative: whether scores have the term of the tables.
        bias: whether the maps q and k have a bias.

    Raises:
        InputError: heads that do not divide the width, or a value out of range.
    """

    no_weight_decay = frozenset({"rows", "columns"})

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        heads: int | None = None,
        block: int = 7,
        halo: int = 3,
        relative: bool = True,
        bias: bool = False,
    ) -> None:
        check_number("mixer.block", block, least=1, most=LARGEST, integer=True)
        check_number("mixer.halo", halo, least=0, most=LARGEST, integer=True)
        check_choice("mixer.relative", relative, (True, False))
        super().__init__(site, backend=backend, heads=heads, bias=check_choice("mixer.bias", bias, (True, False)))
        self.block, self.halo = block, halo
        self.rows: nn.Parameter | None = None
        self.columns: nn.Parameter | None = None
        if relative:
            shape = 2 * (block + halo) - 1, self.head_width
            self.rows, self.columns = (nn.Parameter(torch.randn(shape) * shape[1] ** -0.5) for _ in range(2))
        else:
            self.no_weight_decay = frozenset()

    def blocks(self, height: int, width: int) -> tuple[Tiles, Tiles]:
        """How the rows and the columns of a grid are cut, and what blocks see of them."""
        down, across = (blocks(side, self.block, self.halo, self.qk.weight.device) for side in (height, width))
        return down, across

    def _terms(self, q: Tensor, down: Tiles, across: Tiles) -> Tensor:
        """What is added to scores, (B or 1, blocks, heads or 1, tokens or 1, tokens that are seen)."""
        seen = down.seen[:, None, 0, :, None] & across.seen[None, :, 0, None]
        mask = torch.zeros_like(seen, dtype=q.dtype).masked_fill(~seen, -torch.inf).flatten(2).flatten(0, 1)
        mask = mask[None, :, None, None]
        if self.rows is None or self.columns is None:
            return mask
        (count_h, height), (count_w, width) = down.queries.shape, across.queries.shape
        split = q.unflatten(3, (height, width)).unflatten(1, (count_h, count_w))
        reach = self.block + self.halo - 1
        rows, columns = (
            table.to(q.dtype).index_select(0, (reach + tiles.steps).flatten()).view(*tiles.steps.shape, -1)
            for table, tiles in ((self.rows, down), (self.columns, across))
        )
        by_row = torch.einsum("bpqhtsd,ptld->bpqhtsl", split, rows)
        by_column = torch.einsum("bpqhtsd,qsld->bpqhtsl", split, columns)
        terms = by_row[..., None] + by_column[..., None, :]
        return terms.flatten(6).flatten(4, 5).flatten(1, 2) + mask

    def _weights(self, x: Tensor, down: Tiles, across: Tiles) -> Tensor:
        """Weights (B, blocks, heads, tokens, tokens that are seen)."""
        mapped_q, mapped_k = self.qk(x).chunk(2, dim=-1)
        (q,) = by_tile(mapped_q, down, across, "queries", 1, self.heads)
        (k,) = by_tile(mapped_k, down, across, "keys", 1, self.heads)
        return window_weights(q, k, self._terms(q, down, across))

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        down, across = self.blocks(u.shape[1], u.shape[2])
        (v,) = by_tile(u, down, across, "keys", 1, self.heads)
        weights = self._weights(x, down, across)
        return from_tiles(weights.to(v.dtype) @ v, down, across).to(u.dtype)

    def core_cost(self, height: int, width: int) -> Cost:
        """Maps q and k: 2 N C D; for each token of a block, absent ones too, 2 D for each that it sees, D for each

        row and each column that it sees with the tables.
        """
        down, across = self.blocks(height, width)
        tokens = down.queries.numel() * across.queries.numel()
        rows, columns = down.keys.shape[1], across.keys.shape[1]
        terms = 0 if self.rows is None else rows + columns
        return Cost(
            projection_macs=height * width * self.qk.weight.numel(),
            mixing_macs=tokens * (2 * rows * columns + terms) * self.site.width,
        )

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`map` (B, heads, N, N), rows summing to one, and the tables `rows` and `columns`."""
        height, width = u.shape[1:3]
        down, across = self.blocks(height, width)
        weights = self._weights(x, down, across)
        keys = (down.keys[:, None, :, None] * width + across.keys[None, :, None]).flatten(2).flatten(0, 1)
        full = weights.new_zeros(*weights.shape[:-1], height * width)
        full = full.scatter_add(4, keys[None, :, None, None].expand_as(weights), weights)
        by_token = from_tiles(full, down, across).unflatten(-1, (self.heads, -1))
        shown = {"map": by_token.flatten(1, 2).transpose(1, 2)}
        if self.rows is None or self.columns is None:
            return shown
        return {**shown, "rows": self.rows, "columns": self.columns}
