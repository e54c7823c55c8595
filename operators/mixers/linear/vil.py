"""The mLSTM of Vision-LSTM (ViL, arXiv 2406.04303), along one order of a grid.

For each head of width d, with c = SiLU(DW u) or the field u itself,

    q, k = B_q c, B_k c,   v = B_v u                        maps of `block` channels to as many, with bias
    i, f = W [q | k | v] + b                                one input gate and one forget gate per head
    C_t = σ(f_t) C_{t-1} + e^{i_t} k_t v_tᵀ / √d,   n_t = σ(f_t) n_{t-1} + e^{i_t} k_t / √d
    h_t = C_tᵀ q_t / max(|n_t · q_t|, 1)

and with `skip` y = LayerNorm of each head of h, plus a number per channel times c; y = h otherwise. Gates i are not
bounded, so all is relative to e^{m_t}, m_t = max(log σ(f_t) + m_{t-1}, i_t), the greatest weight so far: in this frame
1 becomes e^{−m_t}, and 1e-6 is added to the denominator.

With F_t the sum of log σ(f) up to t, m_t − F_t is the running maximum M_t of i − F. The recurrence of C and n in its
frame then is one of decays e^{M_{t-1} − M_t} ≤ 1 and keys times e^{i_t − F_t − M_t} ≤ 1: the scalar decay of
`operators.linear.decayed`, in chunks, where nothing overflows.

ViL's blocks read the image in turn from the top left and from the bottom right.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import InputError, check_choice, check_number
from operators.linear.decayed import decayed, exact_sums, scalar_macs
from operators.linear.fla import Problem
from operators.mixers.duality.vssd import check_convolution
from operators.mixers.heads import check_heads, divisors
from operators.mixers.ordered import wide_linear
from operators.mixers.positions import LocalValues
from operators.mixers.recurrent import RecurrentCore
from operators.precision import full_precision, wide
from operators.registry import register
from operators.scan import orders
from operators.shell.spec import ShellSpec

MOST = 4
"""Heads, and channels of a block, of the released models of any width."""
EPS = 1e-6
"""Added to the denominator, in the frame of the greatest weight."""
FORGET = (3.0, 6.0)
"""Biases of the forget gates at the start, of the first and the last head."""
_VIL = "NX-AI/vision-lstm README.md"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


class BlockDiagonal(nn.Module):
    """Linear maps of neighbouring channels, `block` at a time, with bias.

    Args:
        width: channels.
        block: of which each map takes and makes so many.
        maps: how many such layers of the same input.
    """

    def __init__(self, width: int, block: int, maps: int) -> None:
        super().__init__()
        self.maps = maps
        self.weight = nn.Parameter(torch.empty(maps, width // block, block, block))
        self.bias = nn.Parameter(torch.zeros(maps, width))
        with torch.no_grad():
            self.weight.normal_(std=(3 * block) ** -0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Outputs (B, N, D), one for each map of x (B, N, D)."""
        _, blocks, block, _ = self.weight.shape
        columns = x.reshape(-1, blocks, block).transpose(0, 1)  # (blocks, tokens, channels in)
        weight = self.weight.permute(1, 3, 0, 2).flatten(2)  # (blocks, channels in, maps and channels out)
        made = torch.bmm(columns, weight).view(blocks, -1, self.maps, block).permute(2, 1, 0, 3)
        return tuple(part.reshape(x.shape) + bias for part, bias in zip(made.unbind(), self.bias, strict=True))

    def macs(self, tokens: int) -> int:
        """One for each weight and token."""
        return tokens * self.weight.numel()


@register(
    MixerCard(
        name="vil",
        family="linear",
        title="mLSTM along an order (Vision-LSTM)",
        source="arXiv 2406.04303; mLSTM of arXiv 2405.04517; NX-AI/vision-lstm vision_lstm/vision_lstm2.py at 381ba95",
        year=2024,
        equation="h_t = C_tᵀ q_t / max(|n_t·q_t|, 1), C_t = σ(f_t) C_{t-1} + e^{i_t} k_t v_tᵀ / √d, n_t of k_t alike",
        code="NX-AI/vision-lstm at 381ba95, whole layer, both directions: outputs and gradients within 3e-14 (float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        causal_along="row",
        fp32_core=True,
        backends=("fla", "chunked", "reference"),
        shells={"published": ShellSpec(expand=2, norm="none", bias=True)},
        preset_params={"published": {"conv": 3, "skip": True}},
        published=(
            Published("ViL-T (second version)", _TOP1, 78.3, _VIL),
            Published("ViL-S (second version)", _TOP1, 81.5, _VIL),
            Published("ViL-B (second version)", _TOP1, 82.4, _VIL),
        ),
    )
)
class ViL(RecurrentCore):
    """Causal linear attention of the field u with exponential input gates and sigmoid forget gates; all maps are of u.

    Args:
        site: where the core stands.
        backend: `fla` (CUDA only), `chunked`, `reference` (a loop over tokens), or `auto`: fla where it serves the
            call, `chunked` otherwise.
        order: the order (`operators.scan.orders`); None for `row` and `row_r` in turn over the blocks of a trunk.
        heads: number of heads; None for four, or the greatest number below that divides the width.
        block: channels that the maps of q, k and v take at a time; None for four, or the greatest divisor below.
        conv: side of a depthwise convolution with SiLU in front of q and k; 0 for none; None for 3 in the published
            shell and none in any other.
        skip: whether each head is normalised and what q and k are made of is added; None for true in the published
            shell and false in any other.

    Raises:
        InputError: an unknown order, heads or blocks that do not divide the width, or an even convolution.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        order: str | None = None,
        heads: int | None = None,
        block: int | None = None,
        conv: int | None = None,
        skip: bool | None = None,
    ) -> None:
        super().__init__(site, backend=backend)
        self.order, self.backwards = orders.base(
            ("row", "row_r")[site.block_index % 2] if order is None else str(order)
        )
        width = site.width
        few = max(divisor for divisor in divisors(width) if divisor <= MOST)
        self.heads = self.value_heads = few if heads is None else heads
        check_heads(self.heads, width)
        block = few if block is None else block
        check_number("mixer.block", block, least=1, integer=True)
        if width % block:
            near = ", ".join(map(str, divisors(width)))
            raise InputError(f"mixer.block={block} must divide the width {width}: allowed are {near}")
        check_convolution("mixer.conv", conv or 0)
        check_choice("mixer.skip", skip, (None, True, False))
        self.query_key, self.value = BlockDiagonal(width, block, 2), BlockDiagonal(width, block, 1)
        self.gates = nn.Linear(3 * width, 2 * self.heads)
        with torch.no_grad():
            self.gates.weight.zero_()
            self.gates.bias[: self.heads].normal_(std=0.1)
            self.gates.bias[self.heads :] = torch.linspace(*FORGET, self.heads)
        self.conv = LocalValues(width, conv) if conv else None
        self.norm = nn.GroupNorm(self.heads, width) if skip else None
        self.skip = nn.Parameter(torch.ones(width)) if skip else None
        self.no_weight_decay = frozenset({"gates.bias", *(("skip",) if skip else ())})

    @property
    def problem(self) -> Problem:
        """What recurs, in sizes: beside the values runs a channel that sums up the weights."""
        head = self.site.width // self.heads
        return Problem("decayed", "head", self.heads, head, head + 1)

    def _along(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """c, q, k and v (B, N, D) along the order, and logarithms of input and forget gates (B, N, heads)."""
        c = orders.gather(u if self.conv is None else F.silu(self.conv(u)), self.order)
        q, k = self.query_key(c)
        (v,) = self.value(orders.gather(u, self.order))
        gates = wide_linear(torch.cat([q, k, v], -1), self.gates)
        log_input, forget = gates.chunk(2, -1)
        return c, q, k, v, log_input, F.logsigmoid(forget)

    def _frame(self, log_input: Tensor, log_forget: Tensor) -> tuple[Tensor, Tensor]:
        """Return i − F and its running maximum M, (B, N, heads), in the order of reading, to the digits of the sums."""
        sums = exact_sums(log_forget.mT).mT
        relative = log_input.to(sums.dtype) - sums
        return relative, relative.cummax(1).values

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D)."""
        dtype = self.note(x)
        height, width = u.shape[1:3]
        c, q, k, v, log_input, log_forget = self._along(u)
        with full_precision(u):
            q, k, v = (t.to(wide(t.dtype)).unflatten(-1, (self.heads, -1)) for t in (q, k, v))
            if self.backwards:
                log_input, log_forget = log_input.flip(1), log_forget.flip(1)
            relative, top = self._frame(log_input, log_forget)
            # Only ε depends on the frame: with its gradient the frame itself needs none.
            frame = top.detach()
            eps = EPS * (top - frame).exp()
            decay = F.pad(frame[:, :-1] - frame[:, 1:], (0, 0, 1, 0))
            strength = (relative - frame).exp()
            most = math.log(torch.finfo(v.dtype).max) - 8
            floor = (relative - log_input - frame).clamp(max=most).exp()  # e^{−m}
            parts = [t.to(v.dtype) for t in (decay, strength, floor, eps)]
            decay, strength, floor, eps = (t.flip(1) if self.backwards else t for t in parts)
            with_ones = torch.cat([v, torch.ones_like(v[..., :1])], -1)
            k = k * (strength * k.shape[-1] ** -0.5)[..., None]
            mixed = decayed(q, k, with_ones, decay, reverse=self.backwards, backend=self.requested_backend, dtype=dtype)
            values, total = mixed[..., :-1], mixed[..., -1]
            y = (values / (torch.maximum(total.abs(), floor) + eps)[..., None]).flatten(2)
            if self.norm is not None and self.skip is not None:
                weight, bias = self.norm.weight.to(y.dtype), self.norm.bias.to(y.dtype)
                y = F.group_norm(y.flatten(0, 1), self.heads, weight, bias, self.norm.eps).view(y.shape)
                y = torch.addcmul(y, self.skip.to(y.dtype), c.to(y.dtype))
        return orders.scatter(y, self.order, height, width).to(u.dtype)

    def core_cost(self, height: int, width: int) -> Cost:
        """The maps, the convolution, and the recurrence of D + heads channels of values."""
        tokens, head = height * width, self.site.width // self.heads
        maps = self.query_key.macs(tokens) + self.value.macs(tokens) + tokens * self.gates.weight.numel()
        cost = Cost(
            projection_macs=maps,
            mixing_macs=scalar_macs(tokens, self.heads, self.heads, head, head + 1),
            state_elements=self.site.width * (head + 1) + self.heads,
        )
        return cost if self.conv is None else cost + self.conv.cost(tokens, self.site.width)

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """By heads, (B, heads, H, W): `forget` σ(f), `input` i, and `influence`: how much each token counts at the

        grid's centre, |q_t · k_s| e^{…} over the denominator there.
        """
        height, width = u.shape[1:3]
        token = int(orders.inverse(self.order, height, width)[height // 2 * width + width // 2])
        _, q, k, _, log_input, log_forget = self._along(u)
        q, k = (t.to(log_input.dtype).unflatten(-1, (self.heads, -1)) for t in (q, k))
        with full_precision(u):
            read = slice(token, None) if self.backwards else slice(token + 1)
            i, f = (t[:, read].flip(1) if self.backwards else t[:, read] for t in (log_input, log_forget))
            relative, top = self._frame(i, f)
            weight = (relative - top[:, -1:]).exp().to(q.dtype)
            weight = weight.flip(1) if self.backwards else weight
            products = (q[:, token, None] * k[:, read]).sum(-1) * q.shape[-1] ** -0.5 * weight
            floor = (relative - i - top)[:, -1:].exp().to(q.dtype)
            products = products / (torch.maximum(products.sum(1, keepdim=True).abs(), floor) + EPS)
            missing = (token, 0) if self.backwards else (0, len(q[0]) - token - 1)
            influence = F.pad(products.abs(), (0, 0, *missing))
        shown = {"forget": log_forget.exp(), "input": log_input, "influence": influence}
        return {key: orders.scatter(t, self.order, height, width).movedim(-1, 1) for key, t in shown.items()}
