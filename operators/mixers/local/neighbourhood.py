"""Neighbourhood attention: each token attends to the k × k tokens nearest to it (arXiv 2204.07143, 2209.15001).

Along an axis of n tokens with dilation d, token i = r + d g stands at place g among the n_r = ⌈(n − r) / d⌉ tokens of
its class r, and sees

    r + d (start + 0 … k − 1),   start = min(max(g − ⌊k/2⌋, 0), n_r − k)

At the border the window moves inwards: all tokens see equally many, and near the border the window is not centred. For
each head of width e with q, k = W x + b, v = u, and a learned table B by steps of d

    y_i = Σ_j softmax_j(q_i · k_j / √e + B[(j − i) / d]) v_j   over the tokens that i sees

NATTEN refuses grids with k d > n. Here a window is clipped to its class then: a token sees the min(k, n_r) tokens that
there are. The layer of the released models pads such grids with tokens of zeros instead.

The backend `tiled` cuts each class into tiles of neighbouring queries, which share the keys of all their windows;
scores of keys outside a query's own window are masked. It multiplies two to four times as many numbers as there are in
windows, and holds no N × N map. `reference` gathers each query's own keys; costs are those of that.

In the `published` shell this is `NeighborhoodAttention2D` of SHI-Labs/NATTEN at 3b54c76, version 0.14.6
(`src/natten/natten2d.py`), on grids that it serves without padding: with copied weights, and its kernels replaced by
plain ones, outputs and gradients agree to 9e-16 (relative RMS, float64). Windows and places in the table are those of
that version's own functions (`src/natten/csrc/cpu/natten_cpu_commons.h`, compiled) at all of 7,500 places, with k of 3
to 9 and d of 1 to 5; further tests hold outputs and gradients against a loop over tokens, with the expression for the
first key of the current kernels (`csrc/include/natten/cuda/reference/mask.hpp` at 8c8729f).
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import check_choice, check_number
from operators.mixers.local.windowed import WindowedAttention, window_weights
from operators.precision import wide
from operators.registry import register
from operators.shell.spec import ShellSpec

TILE = 8
"""Most queries of a tile along an axis."""
_NAT = "SHI-Labs NAT.md"
_DINAT = "SHI-Labs DiNAT.md"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


class Tiles(NamedTuple):
    """Tiles of neighbouring queries along an axis, and the keys that they see.

    Attributes:
        queries: (P, T) tokens of P tiles; any token where there are fewer.
        keys: (P, L) tokens that each tile reads.
        steps: (P, T, L) by how many steps of the dilation a key lies after a query, cut at k − 1.
        seen: (P, T, L) whether it is in the query's window.
        places: (n,) where each token is among all queries.
    """

    queries: Tensor
    keys: Tensor
    steps: Tensor
    seen: Tensor
    places: Tensor

    @property
    def whole(self) -> bool:
        """Whether one tile has all tokens in their order, as queries and as keys."""
        return len(self.queries) == 1


def first_seen(place: Tensor, length: Tensor, window: int) -> Tensor:
    """Where the window of a place begins, in a class of so many tokens."""
    return torch.minimum((place - window // 2).clamp(min=0), (length - window).clamp(min=0))


def tiles(length: int, window: int, dilation: int, most: int, device: torch.device) -> Tiles:
    """Tiles of at most `most` queries, at least 2, along an axis of so many tokens."""
    dilation = min(dilation, length)  # each token is a class of its own
    longest = -(-length // dilation)
    count = -(-longest // most)
    queries = -(-longest // count)
    keys = min(queries + window - 1, longest)
    first = torch.arange(count, device=device) * queries
    place = first[:, None] + torch.arange(queries, device=device)
    read = (first - window // 2).clamp(0, longest - keys)[:, None] + torch.arange(keys, device=device)
    remainder = torch.arange(dilation, device=device)[:, None, None]
    of_class = (length - remainder + dilation - 1) // dilation
    start = first_seen(place, of_class, window)[..., None]
    seen = (read[:, None] >= start) & (read[:, None] < start + of_class[..., None].clamp(max=window))
    steps = (read[:, None] - place[..., None]).clamp(1 - window, window - 1)
    token = torch.arange(length, device=device)
    return Tiles(
        queries=(remainder + dilation * place).clamp(max=length - 1).flatten(0, 1),
        keys=(remainder + dilation * read).clamp(max=length - 1).flatten(0, 1),
        steps=steps.expand(dilation, -1, -1, -1).flatten(0, 1),
        seen=seen.flatten(0, 1),
        places=(token % dilation) * count * queries + token // dilation,
    )


def by_tile(field: Tensor, rows: Tiles, columns: Tiles, what: str, parts: int, heads: int) -> tuple[Tensor, ...]:
    """The parts (B, tiles, heads, tokens, d) of a field (B, H, W, parts · heads · d).

    Args:
        field: what to cut.
        rows: tiles along the first axis.
        columns: tiles along the second axis.
        what: `queries` or `keys`, which tokens each tile gets.
        parts: how many maps lie side by side.
        heads: of each.
    """
    for axis, along in enumerate((rows, columns), start=1):
        if not along.whole:
            field = field.index_select(axis, getattr(along, what).flatten())
    (tiles_h, height), (tiles_w, width) = getattr(rows, what).shape, getattr(columns, what).shape
    batch, channels = field.shape[0], field.shape[-1] // (parts * heads)
    split = field.reshape(batch, tiles_h, height, tiles_w, width, parts, heads, channels)
    cut = split.permute(5, 0, 1, 3, 6, 2, 4, 7)
    return cut.reshape(parts, batch, tiles_h * tiles_w, heads, height * width, channels).unbind(0)


def from_tiles(mixed: Tensor, rows: Tiles, columns: Tiles) -> Tensor:
    """The field (B, H, W, heads · d) of what queries of tiles have read, (B, tiles, heads, tokens, d)."""
    (tiles_h, height), (tiles_w, width) = rows.queries.shape, columns.queries.shape
    batch, _, heads, _, channels = mixed.shape
    split = mixed.reshape(batch, tiles_h, tiles_w, heads, height, width, channels).permute(0, 1, 4, 2, 5, 3, 6)
    field = split.reshape(batch, tiles_h * height, tiles_w * width, heads * channels)
    for axis, along in enumerate((rows, columns), start=1):
        if not along.whole:
            field = field.index_select(axis, along.places)
    return field


class Neighbours(NamedTuple):
    """The tokens that each token of an axis sees.

    Attributes:
        tokens: (n, K) their numbers; K is less than k on short axes.
        steps: (n, K) by how many steps of the dilation they lie after it.
        there: (n, K) whether there is such a token, in classes of fewer.
    """

    tokens: Tensor
    steps: Tensor
    there: Tensor


def neighbours(length: int, window: int, dilation: int, device: torch.device) -> Neighbours:
    """The tokens that each of so many tokens sees along an axis."""
    dilation = min(dilation, length)
    token = torch.arange(length, device=device)
    place, remainder = token // dilation, token % dilation
    of_class = (length - remainder + dilation - 1) // dilation
    count = min(window, -(-length // dilation))
    seen = first_seen(place, of_class, window)[:, None] + torch.arange(count, device=device)
    there = seen < of_class[:, None]
    tokens = torch.where(there, remainder[:, None] + dilation * seen, token[:, None])
    return Neighbours(tokens, torch.where(there, seen - place[:, None], 0), there)


@register(
    MixerCard(
        name="neighbourhood",
        family="local",
        title="Neighbourhood attention (NATTEN)",
        source="arXiv 2204.07143, section 3; 2209.15001, section 3; SHI-Labs/NATTEN src/natten/natten2d.py at 3b54c76",
        year=2022,
        equation="y_i = Σ_j softmax_j(q_i·k_j / √d + B[j − i]) v_j over the k × k tokens nearest to i, per head",
        code="SHI-Labs/NATTEN at 3b54c76, whole layer, its own functions for windows and places in the table (C++ for "
        "CPUs) in plain kernels: outputs and gradients within 9e-16 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant="interior",
        linear=False,
        backends=("tiled", "reference"),
        shells={"published": ShellSpec(gate="none", norm="none", bias=True)},
        published=(
            Published("NAT-Mini", _TOP1, 81.8, _NAT),
            Published("NAT-Tiny", _TOP1, 83.2, _NAT),
            Published("NAT-Small", _TOP1, 83.7, _NAT),
            Published("NAT-Base", _TOP1, 84.3, _NAT),
            Published("DiNAT-Tiny (dilated in every other block)", _TOP1, 82.7, _DINAT),
            Published("DiNAT-Base (dilated in every other block)", _TOP1, 84.4, _DINAT),
            Published("isotropic NAT-S", _TOP1, 80.0, _DINAT),
            Published("isotropic DiNAT-S (dilated in every other block)", _TOP1, 80.8, _DINAT),
        ),
    )
)
class Neighbourhood(WindowedAttention):
    """Softmax attention of each token to those nearest to it, with a window that moves inwards at the border.

    Args:
        site: where the core stands.
        backend: `tiled`, `reference`, or `auto`, which is `tiled`.
        heads: number of heads; None for `default_heads`. The released models' are of 32 channels.
        window: side k of a window; of an even one, more lies before the token than after it.
        dilation: d, the step from one token of a window to the next.
        alternate: the dilation is that of every second block with this mixer of a trunk alone, as in DiNAT; in the
            others, and elsewhere, it is 1.
        position_bias: whether scores have the table of biases by relative position.
        bias: whether the maps q and k have a bias.

    Raises:
        InputError: heads that do not divide the width, or a value out of range.
    """

    canonical: ClassVar[dict[str, str]] = {"backend": "reference"}
    """Parameters with which an operation counter sees the canonical cost."""

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        heads: int | None = None,
        window: int = 7,
        dilation: int = 1,
        alternate: bool = False,
        position_bias: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__(site, backend=backend, heads=heads, window=window, position_bias=position_bias, bias=bias)
        check_number("mixer.dilation", dilation, least=1, most=4096, integer=True)
        check_choice("mixer.alternate", alternate, (True, False))
        self.dilation = 1 if alternate and site.block_index % 2 == 0 else dilation

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        y = self._tiled(u, x) if self.backend == "tiled" else self._gathered(u, x)
        return y.to(u.dtype)

    def _tiled(self, u: Tensor, x: Tensor) -> Tensor:
        rows, columns = (tiles(length, self.window, self.dilation, TILE, u.device) for length in u.shape[1:3])
        mapped_q, mapped_k = self.qk(x).chunk(2, dim=-1)
        (q,) = by_tile(mapped_q, rows, columns, "queries", 1, self.heads)
        (k,) = by_tile(mapped_k, rows, columns, "keys", 1, self.heads)
        (v,) = by_tile(u, rows, columns, "keys", 1, self.heads)
        seen = rows.seen[:, None, :, None, :, None] & columns.seen[None, :, None, :, None, :]
        seen = seen.flatten(4, 5).flatten(2, 3)[:, :, None]
        bias = self.position_biases(rows.steps, columns.steps).masked_fill(~seen, -torch.inf).flatten(0, 1)
        return from_tiles(window_weights(q, k, bias).to(v.dtype) @ v, rows, columns)

    def _neighbours(self, grid: tuple[int, int], device: torch.device) -> tuple[Neighbours, Neighbours]:
        """The tokens that each row and each column sees."""
        rows, columns = (neighbours(length, self.window, self.dilation, device) for length in grid)
        return rows, columns

    def _seen(self, field: Tensor, rows: Neighbours, columns: Neighbours) -> Tensor:
        """What each token sees of a field (B, H, W, D), (B, H, W, heads, K K', d)."""
        seen = field[:, rows.tokens[:, None, :, None], columns.tokens[None, :, None, :]]
        return seen.unflatten(-1, (self.heads, -1)).flatten(3, 4).transpose(3, 4)

    def _weights(self, x: Tensor, rows: Neighbours, columns: Neighbours) -> Tensor:
        """Weights (B, H, W, heads, K K') of the tokens that each token sees."""
        q, k = self.qk(x).chunk(2, dim=-1)
        q = q.unflatten(-1, (self.heads, -1)) * self.head_width**-0.5
        scores = (self._seen(k, rows, columns) @ q[..., None]).squeeze(-1)
        if self.table is not None:
            reach = self.window - 1
            bias = self.table[:, rows.steps[:, None, :, None] + reach, columns.steps[None, :, None, :] + reach]
            scores = scores + bias.flatten(3, 4).movedim(0, 2)
        there = (rows.there[:, None, :, None] & columns.there[None, :, None, :]).flatten(2, 3)[:, :, None]
        return scores.masked_fill(~there, -torch.inf).softmax(-1, dtype=wide(scores.dtype))

    def _gathered(self, u: Tensor, x: Tensor) -> Tensor:
        rows, columns = self._neighbours((u.shape[1], u.shape[2]), u.device)
        weights = self._weights(x, rows, columns).to(u.dtype)
        return (weights[..., None, :] @ self._seen(u, rows, columns)).flatten(3)

    def core_cost(self, height: int, width: int) -> Cost:
        """Maps q and k: 2 N C D; scores and weighted sum: for each token 2 D for each that it sees."""
        seen = [min(self.window, -(-length // min(self.dilation, length))) for length in (height, width)]
        return Cost(
            projection_macs=height * width * self.qk.weight.numel(),
            mixing_macs=2 * height * width * seen[0] * seen[1] * self.site.width,
        )

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`map` (B, heads, N, N), rows summing to one, and the table `bias`."""
        height, width = u.shape[1:3]
        rows, columns = self._neighbours((height, width), u.device)
        weights = self._weights(x, rows, columns).flatten(1, 2).transpose(1, 2)
        seen = (rows.tokens[:, None, :, None] * width + columns.tokens[None, :, None, :]).flatten(2, 3).flatten(0, 1)
        full = weights.new_zeros(len(u), self.heads, height * width, height * width)
        shown = {"map": full.scatter_add(3, seen.expand_as(weights), weights)}
        return shown if self.table is None else {**shown, "bias": self.table}
