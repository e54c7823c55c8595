"""Bi-WKV of Vision-RWKV (arXiv 2403.02308): for each channel a mean over all tokens, by e^k and by distance.

With v the value field u, keys k = W x̃ of N tokens, and for each channel two learned numbers w and b

    y_t = Σ_i p_ti v_i,   p_ti ∝ exp(k_i − (|t − i| − 1) w / N) for i ≠ t,   p_tt ∝ exp(k_t + b / N)

where t and i are places along an order, and weights sum to one over i. Weights fade with distance for w > 0 and grow
with it for w < 0, as at the start in a third of the channels. What keys are made of is shifted (Q-shift):

    x̃ = μ x + (1 − μ) x',   x' = x of the token to the left, right, above, below, by quarters of the channels

with zeros beyond the border. The sums take a scan from the first token and one from the last: inside chunks as sums of
weighted terms, between chunks as states that fade, all relative to the greatest key so far.

The released CUDA kernel adds 1e-6 to the sum of the weights, relative to the greatest of them, which is left out here;
and it deviates from its formula by about 1e-3, since parts of the sequence disagree on whether |t − i| or |t − i| − 1
counts. Compared was the released module with the formula in place of the kernel. Its other two maps, of values and of
the gate, read shifted inputs of their own: no switch of the shell says that, and `layer` has them, as in the
`published` preset.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import InputError, check_choice
from operators.initialisation import linear_init
from operators.mixer import Core
from operators.mixers.ordered import wide_linear
from operators.precision import full_precision, wide
from operators.registry import register
from operators.scan import orders
from operators.scan.chunked import recurrence
from operators.shell.spec import BARE

CHUNK = 16
"""Most tokens of a chunk; exponents inside it reach |w| CHUNK / N on either side."""
_VRWKV = "OpenGVLab/Vision-RWKV README.md"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


def shifted(x: Tensor) -> Tensor:
    """Each token's left, right, upper and lower neighbour in a quarter of the channels each, of x (B, H, W, C)."""
    channels = x.shape[-1]
    left, right, above, below = x.split([channels * (i + 1) // 4 - channels * i // 4 for i in range(4)], dim=-1)
    return torch.cat(
        [
            F.pad(left, (0, 0, 1, -1)),
            F.pad(right, (0, 0, -1, 1)),
            F.pad(above, (0, 0, 0, 0, 1, -1)),
            F.pad(below, (0, 0, 0, 0, -1, 1)),
        ],
        dim=-1,
    )


def chunks(tokens: int) -> tuple[int, int]:
    """Number and length of the chunks of a sequence."""
    count = math.ceil(tokens / CHUNK)
    return count, math.ceil(tokens / count)


def log_weights(k: Tensor, decay: Tensor, own: Tensor, token: int | None = None) -> Tensor:
    """Logarithms of all weights, (B, N, N, D), or of those with which one token reads, (B, 1, N, D).

    Args:
        k: (B, N, D).
        decay: w / N, (D).
        own: b / N, (D).
        token: which reads; all unless given.
    """
    place = torch.arange(k.shape[1], device=k.device)
    reader = place if token is None else place[token : token + 1]
    distance = (reader[:, None] - place).abs()[..., None].to(k.dtype)
    return k[:, None] + torch.where(distance == 0, own, (1 - distance) * decay)


def wkv_reference(k: Tensor, v: Tensor, decay: Tensor, own: Tensor) -> Tensor:
    """As `wkv`, by the weights of all pairs of tokens."""
    return (log_weights(k, decay, own).softmax(2) * v[:, None]).sum(2)


def wkv(k: Tensor, v: Tensor, decay: Tensor, own: Tensor) -> Tensor:
    """The means y (B, N, D) of v with the weights above, in time and memory that are linear in N.

    Args:
        k: (B, N, D).
        v: (B, N, D).
        decay: w / N, (D).
        own: b / N, (D).
    """
    tokens = k.shape[1]
    count, length = chunks(tokens)
    missing = count * length - tokens
    if missing:
        k = F.pad(k, (0, 0, 0, missing), value=-math.inf)
        v = F.pad(v, (0, 0, 0, missing))
    k, v = (t.unflatten(1, (count, length)) for t in (k, v))  # (B, chunks, T, D)
    top = k.detach().amax(2)
    weights = (k - top[:, :, None]).exp()
    terms = torch.stack([weights, weights * v], 3)  # the sum of the weights beside that of the values
    place = torch.arange(length, device=k.device, dtype=k.dtype)[:, None, None]
    centred = place - (length - 1) / 2
    rising, falling = (decay * centred).exp(), (-decay * centred).exp()
    lower = torch.ones(length, length, device=k.device, dtype=k.dtype).tril(-1)
    ahead, back = terms * rising, terms * falling
    sums, gain, own = [_sums(lower, ahead), _sums(lower.mT, back)], decay.exp(), own.exp()
    if count > 1:
        # What leaves a chunk, as the first token behind it reads it; then what enters one, as its middle reads it.
        leaving = (-decay * ((length - 1) / 2)).exp()
        before = _entering(ahead.sum(2) * leaving, top, decay, length)
        after = [t.flip(1) for t in _entering((back.sum(2) * leaving).flip(1), top.flip(1), decay, length)]
        scale = torch.maximum(top, torch.maximum(before[1], after[1]))
        smaller = (top - scale).exp()[:, :, None, None]
        gain, own = gain * smaller, own * smaller
        states = ((state * leaving * (each - scale).exp()[:, :, None])[:, :, None] for state, each in (before, after))
        sums = [torch.addcmul(state, part, gain) for state, part in zip(states, sums, strict=True)]
    else:
        sums = [part * gain for part in sums]
    mixed = torch.addcmul(torch.addcmul(terms * own, sums[0], falling), sums[1], rising)
    total, y = mixed.unbind(3)
    return (y / total).flatten(1, 2)[:, :tokens]


def _sums(triangle: Tensor, terms: Tensor) -> Tensor:
    """The sums over tokens of a chunk (B, chunks, T, 2, D) that a triangle (T, T) of ones picks."""
    flat = terms.flatten(0, 1).flatten(2)
    return torch.bmm(triangle.expand(len(flat), -1, -1), flat).view(terms.shape)


def _entering(leaving: Tensor, top: Tensor, decay: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """What enters each chunk from those before it, over an exponential, and its exponent.

    Shapes are those of the first two arguments.

    Args:
        leaving: what leaves each chunk, (B, chunks, 2, D), over the exponential of `top`.
        top: (B, chunks, D).
        decay: per token.
        length: of a chunk.
    """
    with torch.no_grad():
        chunk = torch.arange(top.shape[1] - 1, device=top.device, dtype=top.dtype)[:, None] * length * decay
        most = (top[:, :-1] + chunk).cummax(1).values - chunk + (-decay * (length - 1)).clamp(min=0)
    fade = (most[:, :-1] - most[:, 1:] - length * decay).exp()
    fade = torch.cat([torch.ones_like(fade[:, :1]), fade], 1) if fade.shape[1] else torch.ones_like(most)
    added = leaving[:, :-1] * (top[:, :-1] - most).exp()[:, :, None]
    states = recurrence(fade[:, :, None].transpose(0, 1), added.transpose(0, 1), torch.zeros_like(added[:, 0]))
    return F.pad(states.transpose(0, 1), (0, 0, 0, 0, 1, 0)), F.pad(most, (0, 0, 1, 0), value=-math.inf)


@register(
    MixerCard(
        name="vision_rwkv",
        family="linear",
        title="Bi-WKV (Vision-RWKV)",
        source="arXiv 2403.02308; OpenGVLab/Vision-RWKV classification/mmcls_custom/…/vrwkv.py at 0e0e38a",
        year=2024,
        equation="y_t = Σ_i p_ti u_i, p_ti ∝ exp(k_i − (|t − i| − 1) w / N), p_tt ∝ exp(k_t + b / N), k of Q-shifted x",
        code="OpenGVLab/Vision-RWKV at 0e0e38a, formula for kernel: outputs and gradients within 2e-15 (float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        backends=("chunked", "reference"),
        shells={"published": BARE},
        preset_params={"published": {"layer": True}},
        published=(
            Published("VRWKV-T", _TOP1, 75.1, _VRWKV),
            Published("VRWKV-S", _TOP1, 80.1, _VRWKV),
            Published("VRWKV-B", _TOP1, 82.0, _VRWKV),
        ),
    )
)
class VisionRWKV(Core):
    """For each channel a mean of the field u over all tokens, by keys made of x and by distance along an order.

    Args:
        site: where the core stands.
        backend: `chunked`, `reference` (all pairs of tokens), or `auto`, which is `chunked`.
        order: the order (`operators.scan.orders`), read from both ends.
        shift: whether keys are made of tokens mixed with their shifted neighbours.
        layer: whether the core has the other maps of the released layer too: values and a gate σ(r) are maps of u and
            x, mixed with their neighbours like the keys' input, and the gated output is mapped; None for true in the
            published preset and false in any other.

    Raises:
        InputError: an unknown order, or a reversed one.

    Initial values are those of the released models halfway through their depth: w from −5 to 3, b in turn log 0.3,
    log 0.3 + ½ and log 0.3 − ½, μ from 0 to 1 over the channels.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        order: str = "row",
        shift: bool = True,
        layer: bool | None = None,
    ) -> None:
        super().__init__(site, backend=backend)
        self.order, backwards = orders.base(str(order))
        if backwards:
            raise InputError(f"mixer.order={order!r} must be an order without {orders.REVERSED!r}: both ways are read")
        self.shift = check_choice("mixer.shift", shift, (True, False))
        check_choice("mixer.layer", layer, (None, True, False))
        width = site.width
        self.key = nn.Linear(site.dim, width, bias=False)
        place = torch.arange(width, dtype=torch.float32)
        self.decay = nn.Parameter(8 * (place / max(1, width - 1)) ** 1.35 - 5)
        self.own = nn.Parameter(math.log(0.3) + 0.5 * ((place + 1) % 3 - 1))
        mixes = {"mix_key": (site.dim, 0.5, 0.0)}
        self.value: nn.Linear | None = None
        if layer:
            self.value = nn.Linear(width, width, bias=False)
            self.receptance = nn.Linear(site.dim, width, bias=False)
            self.output = nn.Linear(width, width, bias=False)
            mixes |= {"mix_value": (width, 0.5, 0.15), "mix_gate": (site.dim, 0.25, 0.0)}
        for linear in self._linears():
            linear_init(linear)
        if self.shift:
            for name, (channels, power, more) in mixes.items():
                start = (torch.arange(channels, dtype=torch.float32) / channels) ** power + more
                self.register_parameter(name, nn.Parameter(start))
        self.no_weight_decay = frozenset({"decay", "own", *(mixes if self.shift else ())})

    def _linears(self) -> list[nn.Linear]:
        return [self.key] if self.value is None else [self.key, self.value, self.receptance, self.output]

    def _mixed(self, x: Tensor, name: str) -> Tensor:
        """Tokens x (B, H, W, C) mixed with its shifted neighbours."""
        if not self.shift:
            return x
        mix = self.get_parameter(name).to(x.dtype)
        return torch.lerp(shifted(x), x, mix.expand_as(x))

    def _rates(self, tokens: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return w / N and b / N."""
        return self.decay.to(dtype) / tokens, self.own.to(dtype) / tokens

    def keys(self, x: Tensor) -> Tensor:
        """Keys (B, N, D) along the order, in at least float32, of x (B, H, W, C)."""
        return orders.gather(wide_linear(self._mixed(x, "mix_key"), self.key), self.order)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D)."""
        height, width = u.shape[1:3]
        k = self.keys(x)
        v = u if self.value is None else self.value(self._mixed(u, "mix_value"))
        means = wkv if self.backend == "chunked" else wkv_reference
        with full_precision(u):
            v = orders.gather(v.to(wide(v.dtype)), self.order)
            y = orders.scatter(means(k, v, *self._rates(height * width, k.dtype)), self.order, height, width)
        if self.value is not None:
            y = self.output(torch.sigmoid(self.receptance(self._mixed(x, "mix_gate"))) * y)
        return y.to(u.dtype)

    def core_cost(self, height: int, width: int) -> Cost:
        """The maps, and two sums of 2 D channels within chunks; the state is 2 D numbers from either end."""
        count, length = chunks(height * width)
        return Cost(
            projection_macs=height * width * sum(linear.weight.numel() for linear in self._linears()),
            mixing_macs=4 * count * length**2 * self.site.width,
            state_elements=4 * self.site.width,
        )

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`influence` (B, D, H, W), the weights by which the token at the grid's centre reads all, in every channel."""
        height, width = u.shape[1:3]
        token = int(orders.inverse(self.order, height, width)[height // 2 * width + width // 2])
        k = self.keys(x)
        with full_precision(u):
            weights = log_weights(k, *self._rates(height * width, k.dtype), token)[:, 0].softmax(1)
        return {"influence": orders.scatter(weights, self.order, height, width).movedim(-1, 1)}
