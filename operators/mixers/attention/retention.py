"""Manhattan self-attention of RMT: softmax attention whose scores fade with distance on the grid (arXiv 2309.11523).

For each head h of width d, with q, k = W x + b, v = u, tokens i at (r_i, c_i), and rotations R_i

    full:        y = softmax_j(R_i q_i · R_j k_j / √d + (|r_i − r_j| + |c_i − c_j|) log γ_h) v
    decomposed:  the same along each row, then along each column of the result, with the same q and k
    γ_h = 1 − 2^(−a − b h / heads),   h = 0 … heads − 1

with y + DW_5 v, a depthwise convolution of the values (LePE), as an option that the released mixer has. As in the
released code the decay is added to the scores: a product of the softmax and γ^distance would not average. And R_i turns
by i times 10000^(−t / (d/2 − 1)), t = 0 … d/2 − 1, with the token's number i = r_i W + c_i, not its row and column.

In the `published` shell these are `VisionRetentionAll` (full) and `VisionRetentionChunk` (decomposed) of qhfan/RMT at
32ea214 (`classfication_release/RMT.py`): with copied weights, the channels of q and k brought to the order of pairs
used here, outputs and input gradients agree to 7e-16 (relative RMS, float64). The released models
decompose in stages 1 to 3.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import InputError, check_choice, check_number
from operators.mixers.positions import local_values, turn
from operators.mixers.queries import QueryKeyCore, check_rotation
from operators.registry import register
from operators.runtime.differentiation import forward_mode
from operators.shell.spec import ShellSpec

BASE = 10000.0
GAIN = 2**-2.5
FORMS = ("full", "decomposed")
_RMT = "qhfan/RMT README.md"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


def softmax_map(q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
    """softmax(q kᵀ / √d + bias), (…, N, N), from q and k (…, N, d)."""
    return (q @ k.mT / q.shape[-1] ** 0.5 + bias).softmax(-1)


@register(
    MixerCard(
        name="retention_2d",
        family="attention",
        title="Manhattan self-attention (RMT)",
        source="arXiv 2309.11523, section 3; qhfan/RMT classfication_release/RMT.py at 32ea214",
        year=2023,
        equation="y = softmax(R q (R k)ᵀ / √d + (|Δrow| + |Δcolumn|) log γ_h) v, γ_h = 1 − 2^(−a − b h / heads)",
        code="qhfan/RMT at 32ea214, both forms: outputs and input gradients within 7e-16 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        backends=("sdpa", "reference"),
        shells={"published": ShellSpec(gate="none", norm="none", bias=True)},
        preset_params={"published": {"lepe": True}},
        published=(
            Published("RMT-T", _TOP1, 82.4, _RMT),
            Published("RMT-S", _TOP1, 84.1, _RMT),
            Published("RMT-B", _TOP1, 85.0, _RMT),
            Published("RMT-L", _TOP1, 85.5, _RMT),
        ),
    )
)
class Retention2d(QueryKeyCore):
    """Softmax attention with a decay by Manhattan distance, over all tokens at once or along rows and then columns.

    W_q and W_k start as Xavier's normal numbers times 2^(−5/2): at first decays alone tell tokens apart.

    Args:
        site: where the core stands.
        backend: `sdpa`, `reference` (plain, stores all maps), or `auto`: `sdpa` outside forward-mode differentiation.
        heads: number of heads; None for `default_heads`. The released models' are of 16 to 64 channels.
        form: `full`, or `decomposed` along rows and columns.
        slowest: a, by which the first head fades: γ_0 = 1 − 2^(−a).
        spread: b: γ of the last head is nearly 1 − 2^(−a − b). The released models have 4 to 6.
        rope: rotary positions by a token's number; needs heads of even width.
        lepe: a 5 × 5 depthwise convolution of the values, added to the output; None for true in the published shell and
            false in any other.

    Raises:
        InputError: heads that do not divide the width, or a value out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        heads: int | None = None,
        form: str = "full",
        slowest: float = 2.0,
        spread: float = 4.0,
        rope: bool = True,
        lepe: bool | None = None,
    ) -> None:
        super().__init__(site, backend=backend, heads=heads)
        self.form = check_choice("mixer.form", form, FORMS)
        check_number("mixer.slowest", slowest, least=0.001, most=64)
        check_number("mixer.spread", spread, least=0, most=64)
        self.rope = check_choice("mixer.rope", rope, (True, False))
        if rope:
            check_rotation("a head width", self.head_width, 2)
        self.slowest, self.spread = slowest, spread
        self.local = local_values(lepe, site.width, 5)
        for weight in self.qk.weight.chunk(2):
            nn.init.xavier_normal_(weight, gain=GAIN)

    @property
    def backend(self) -> str:
        """What serves a call: `reference` if asked for, or in forward-mode differentiation."""
        if self.requested_backend == "auto":
            return "reference" if forward_mode() else "sdpa"
        return self.requested_backend

    def queries_keys(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps q and k (B, heads, N, d), rotated where asked for, in at least float32."""
        q, k = super().queries_keys(u, x)
        if self.rope:
            pairs = torch.linspace(0, 1, self.head_width // 2, device=q.device, dtype=q.dtype)
            numbers = torch.arange(q.shape[-2], device=q.device, dtype=q.dtype)
            angles = numbers[:, None] * BASE**-pairs
            q, k = turn(q, angles), turn(k, angles)
        return q, k

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Attended values (B, H, W, D).

        Raises:
            InputError: `sdpa` is asked for in forward-mode differentiation.
        """
        if self.backend == "sdpa" and forward_mode():
            raise InputError("mixer.backend='sdpa' has no forward-mode derivatives; use auto or reference")
        q, k = self.queries_keys(u, x)
        (v,) = self._split(u, 1)
        # As in `attention`, products run in the type of the values, or in that of autocast.
        return self._finish(self.mix(q.to(u.dtype), k.to(u.dtype), v.to(u.dtype), (u.shape[1], u.shape[2])), u)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]) -> Tensor:
        if self.form == "full":
            return self._attend(q, k, v, _distances(*grid, q.device))
        for by_line, back, length in ((_rows, _from_rows, grid[1]), (_columns, _from_columns, grid[0])):
            distances = _distances(1, length, q.device)
            v = back(self._attend(by_line(q, grid), by_line(k, grid), by_line(v, grid), distances), grid)
        return v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, distances: Tensor) -> Tensor:
        """Attended values (…, heads, N, d) of q, k, v (…, heads, N, d)."""
        bias = self._fading(distances, q.dtype)
        if self.backend == "sdpa":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return softmax_map(q, k, bias).to(v.dtype) @ v

    def _fading(self, distances: Tensor, dtype: torch.dtype) -> Tensor:
        """Distances (N, N) times each head's log γ, (heads, N, N)."""
        steps = [self.slowest + self.spread * head / self.heads for head in range(self.heads)]
        decays = torch.tensor([math.log1p(-(2**-step)) for step in steps], dtype=dtype, device=distances.device)
        return decays[:, None, None] * distances.to(dtype)

    def mixing_map(self, q: Tensor, k: Tensor, grid: tuple[int, int]) -> Tensor:
        def weights(q: Tensor, k: Tensor, height: int, width: int) -> Tensor:
            return softmax_map(q, k, self._fading(_distances(height, width, q.device), q.dtype))

        if self.form == "full":
            return weights(q, k, *grid)
        rows = weights(_rows(q, grid), _rows(k, grid), 1, grid[1]).unflatten(0, (len(q), grid[0]))
        columns = weights(_columns(q, grid), _columns(k, grid), 1, grid[0]).unflatten(0, (len(q), grid[1]))
        return torch.einsum("bchrs,bshct->bhrcst", columns, rows).flatten(4, 5).flatten(2, 3)

    def core_cost(self, height: int, width: int) -> Cost:
        """Maps q and k: 2 N C D; scores and weighted sum: N D each for every token read; keys and values: 2 N D."""
        tokens, local = height * width, Cost()
        if self.local is not None:
            local = self.local.cost(tokens, self.site.width)
        read = tokens if self.form == "full" else height + width
        return local + Cost(
            projection_macs=tokens * self.qk.weight.numel(),
            mixing_macs=2 * tokens * read * self.site.width,
            state_elements=2 * tokens * self.site.width,
        )


def _distances(height: int, width: int, device: torch.device) -> Tensor:
    """Manhattan distances (H W, H W) of tokens, in steps."""
    rows = torch.arange(height, device=device).repeat_interleave(width)
    columns = torch.arange(width, device=device).repeat(height)
    return (rows[:, None] - rows).abs() + (columns[:, None] - columns).abs()


def _rows(heads: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B H, heads, W, d) of (B, heads, H W, d)."""
    return heads.unflatten(2, grid).transpose(1, 2).flatten(0, 1)


def _from_rows(rows: Tensor, grid: tuple[int, int]) -> Tensor:
    return rows.unflatten(0, (-1, grid[0])).transpose(1, 2).flatten(2, 3)


def _columns(heads: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B W, heads, H, d) of (B, heads, H W, d)."""
    return heads.unflatten(2, grid).permute(0, 3, 1, 2, 4).flatten(0, 1)


def _from_columns(columns: Tensor, grid: tuple[int, int]) -> Tensor:
    return columns.unflatten(0, (-1, grid[1])).permute(0, 2, 3, 1, 4).flatten(2, 3)
