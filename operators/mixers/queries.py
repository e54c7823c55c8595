"""The base of mixers whose heads read values through maps q and k of the tokens."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import Site
from operators.cost import Cost
from operators.errors import InputError
from operators.initialisation import linear_init
from operators.mixer import Core
from operators.mixers.heads import check_heads, default_heads
from operators.mixers.positions import LocalValues
from operators.precision import full_precision, wide


class QueryKeyCore(Core):
    """Projects q and k, and mixes the field u as values v of each head; a subclass says how, in `mix` or `attend`.

    All that follows the projection is computed in at least float32. With `local`, a convolution of the values is added
    to what is mixed.

    Args:
        site: where the core stands.
        backend: `torch` or `auto`.
        heads: number of heads; None for `default_heads`.
        key_width: channels d of a head's q and k; None for those of its values.
        source: what q and k are projected from: the mixer's input `x`, or the field `u`.
        bias: whether that projection has a bias.

    Raises:
        InputError: heads that do not divide the width.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str,
        heads: int | None,
        key_width: int | None = None,
        source: str = "x",
        bias: bool = True,
    ) -> None:
        super().__init__(site, backend=backend)
        self.heads = default_heads(site.width) if heads is None else heads
        check_heads(self.heads, site.width)
        self.value_heads = self.heads
        self.head_width = site.width // self.heads
        self.key_width = self.head_width if key_width is None else key_width
        self.source = source
        self.local: LocalValues | None = None
        self.qk = nn.Linear(site.dim if source == "x" else site.width, 2 * self.heads * self.key_width, bias=bias)
        linear_init(self.qk)

    def queries_keys(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps q and k (B, heads, N, d) in at least float32."""
        q, k = self._split(self.qk(x if self.source == "x" else u), 2)
        return q, k

    def mix(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]) -> Tensor:
        """Mixed values (B, heads, N, e) of q, k (B, heads, N, d) and v (B, heads, N, e) on a grid (H, W).

        Unless a subclass heeds the grid, what `attend` makes of them, and a video is served too.
        """
        return self.attend(q, k, v)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """What queries q (B, heads, N, d) read from keys k (B, heads, M, d) and values v (B, heads, M, e), wherever.

        `mask` (B, 1, M, 1) says which keys are there. For cores of videos, and those that read a context.
        """
        raise NotImplementedError

    def mixing_map(self, q: Tensor, k: Tensor, grid: tuple[int, int]) -> Tensor:
        """The same as a matrix for each head, (B, heads, N, N)."""
        raise NotImplementedError

    def mix_cost(self, tokens: int) -> Cost:
        """Cost of `mix` for all heads of one image."""
        return self.attend_cost(tokens, tokens)

    def attend_cost(self, queries: int, keys: int) -> Cost:
        """Cost of `attend` for all heads of one image."""
        raise NotImplementedError

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        q, k = self.queries_keys(u, x)
        (v,) = self._split(u, 1)
        with full_precision(q):
            mixed = self.mix(q, k, v, (u.shape[-3], u.shape[-2]))
        return self._finish(mixed, u)

    def read(
        self, u: Tensor, *, x: Tensor, context: Tensor, mask: Tensor | None = None, cond: Tensor | None = None
    ) -> Tensor:
        """What queries of x read from keys of the context and its values u, (B, H, W, D)."""
        weight_q, weight_k = self.qk.weight.chunk(2)
        bias_q, bias_k = (None, None) if self.qk.bias is None else self.qk.bias.chunk(2)
        (q,) = self._split(F.linear(x, weight_q, bias_q), 1)
        (k,) = self._split(F.linear(context, weight_k, bias_k), 1)
        (v,) = self._split(u, 1)
        with full_precision(q):
            mixed = self.attend(q, k, v, None if mask is None else mask[:, None, :, None])
        return mixed.transpose(1, 2).reshape(*x.shape[:-1], self.site.width).to(u.dtype)

    def read_cost(self, height: int, width: int, tokens: int) -> Cost:
        """The projections of q and k, half of the map's each, and `attend_cost`."""
        queries = height * width
        projection = (queries + tokens) * self.qk.weight.numel() // 2
        return Cost(projection_macs=projection) + self.attend_cost(queries, tokens)

    def _finish(self, mixed: Tensor, u: Tensor) -> Tensor:
        """The heads (B, heads, N, e) side by side, and the convolution of the values, as u (B, H, W, D)."""
        y = mixed.transpose(1, 2).reshape(u.shape).to(u.dtype)
        return y if self.local is None else (y + self.local(u)).to(u.dtype)

    def _split(self, channels: Tensor, parts: int) -> tuple[Tensor, ...]:
        """The parts (B, heads, N, d) of (B, …, parts · heads · d), with N tokens, each in one piece of memory."""
        batch, *grid, total = channels.shape
        split = channels.reshape(batch, math.prod(grid), parts, self.heads, total // (parts * self.heads))
        return split.permute(2, 0, 3, 1, 4).to(wide(channels.dtype)).contiguous().unbind(0)

    def core_cost(self, height: int, width: int) -> Cost:
        """The projection of q and k, `mix_cost`, and the convolution of the values."""
        tokens = height * width
        cost = Cost(projection_macs=tokens * self.qk.weight.numel()) + self.mix_cost(tokens)
        return cost if self.local is None else cost + self.local.cost(tokens, self.site.width)

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`map` (B, heads, N, N), which takes values to outputs, a convolution of the values apart."""
        q, k = self.queries_keys(u, x)
        with full_precision(q):
            return {"map": self.mixing_map(q, k, (u.shape[-3], u.shape[-2]))}


def check_rotation(what: str, number: int, divisor: int) -> None:
    """Raise `InputError` unless the number of channels `what` can be rotated: `divisor` divides it."""
    if number % divisor:
        raise InputError(f"mixer.rope=True needs {what} divisible by {divisor}, not {number}")
