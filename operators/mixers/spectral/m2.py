"""The mixer `m2`: the sequence mixer of Monarch Mixer, a long convolution along an order between two gates.

With v = u, x1 and x2 maps of x, tokens along an order (arXiv 2310.12109; HazyResearch/m2 `bert/src/mm`)

    z = v · x1,   y_t = x2_t · (Σ_{s ≤ t} k[t − s] z_s + Σ_{s > t} k'[s − t − 1] z_s + b z_t)

k and k' are networks of sines of the place along the sequence, times exp(−δ t), t from 0 to 1. No learned Monarch
matrix is in it (see `monarch`): in the released model those mix channels. Not taken over: there both networks share
frequencies, the features of places are learned at a rate of 1e-5, and a second long convolution, of x, can be added.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Site
from operators.cost import Cost, complex_product_macs, fft_macs
from operators.errors import check_number
from operators.initialisation import linear_init
from operators.mixer import Core
from operators.precision import exact, full_precision, wide
from operators.registry import register
from operators.scan import orders
from operators.shell.spec import ShellSpec
from operators.spectral.coordinates import FAST, SLOW, SineNetwork, fractions, hyena_features
from operators.spectral.sequences import convolve, convolve_directly

BANDS = 1
LAYERS = 2
FREQUENCY = 10.0


@register(
    MixerCard(
        name="m2",
        family="spectral",
        title="Monarch Mixer's sequence mixer (M2)",
        source="arXiv 2310.12109; HazyResearch/m2 bert/src/mm/monarch_mixer_sequence_mixer.py at 7d359e8",
        year=2023,
        equation="y = x2 · (k * z + b z), z = u · x1, both ways along an order, k a network of sines, x1, x2 = W x + b",
        code="HazyResearch/m2 at 7d359e8: outputs and gradients within 5e-16 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        extensive=True,
        fp32_core=True,
        backends=("fft", "reference"),
        shells={"published": ShellSpec(gate="none", norm="none", bias=True)},
        preset_params={"published": {"conv": 3}},
        exempt={"extensive": "kernel sums grow with the length, the skip's share does not: 2.8, where 3 is asked for"},
    )
)
class M2(Core):
    """Long convolution along an order and against it, each with a filter of its own, between two gates.

    Filter and window span the sequence whatever its length, and are not divided by it (`extensive`).

    Args:
        site: where the core stands.
        backend: `fft`, `reference` (stores an N × N matrix for each channel), or `auto`.
        order: scan order (`operators.scan.orders`).
        hidden: width of the networks.
        conv: width of a causal depthwise convolution of v, x1 and x2 along the order; 0 for none; None for 3 in the
            published shell and none in any other.

    Raises:
        InputError: an order that is not known, a hidden width below 1, a negative width of the convolution.
    """

    decay: Tensor

    def __init__(
        self, site: Site, *, backend: str = "auto", order: str = "row", hidden: int = 16, conv: int | None = None
    ) -> None:
        super().__init__(site, backend=backend)
        orders.base(order)
        check_number("mixer.hidden", hidden, least=1, most=4096, integer=True)
        if conv is not None:
            check_number("mixer.conv", conv, least=0, most=64, integer=True)
        self.order = order
        self.maps = nn.Linear(site.dim, 2 * site.width)
        linear_init(self.maps)
        width = 3 * site.width
        self.conv = nn.Conv1d(width, width, conv, groups=width) if conv else None
        widths = [1 + 2 * BANDS, *[hidden] * (1 + LAYERS), site.width]
        self.forward_filter, self.backward_filter = (
            SineNetwork(widths, frequencies=1, start=FREQUENCY, bias=False) for _ in range(2)
        )
        self.skip = nn.Parameter(torch.randn(site.width))
        self.register_buffer("decay", torch.linspace(SLOW, FAST, site.width))
        filters = ("forward_filter", "backward_filter", "skip")
        self.no_weight_decay = frozenset(name for name, _ in self.named_parameters() if name.startswith(filters))

    def filters(self, length: int) -> tuple[Tensor, Tensor]:
        """Filters k and k' (N, D), in at least float32.

        The networks run in float64 where the device has it: in float32, three layers of sines of ten times their
        argument leave gradients an error of 1e-5.
        """
        dtype = wide(self.skip.dtype)
        decay = self.decay.to(exact(self.decay))
        features = hyena_features(length, BANDS, decay)
        window = (-fractions(length, decay)[:, None] * decay).exp()
        forward, backward = self.forward_filter(features) * window, self.backward_filter(features) * window
        return forward.to(dtype), backward.to(dtype)

    def fields(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fields v, x1 and x2 (B, N, D) along the order, convolved where asked for, in at least float32."""
        a, b = self.maps(x).chunk(2, dim=-1)
        together = orders.gather(torch.cat([u.to(a.dtype), a, b], dim=-1), self.order)
        if self.conv is not None:
            padded = F.pad(together.mT, (self.conv.weight.shape[-1] - 1, 0))
            together = self.conv(padded).mT
        v, a, b = together.to(wide(together.dtype)).chunk(3, dim=-1)
        return v, a, b

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        height, width = u.shape[1:3]
        v, a, b = self.fields(u, x)
        apply = convolve_directly if self.backend == "reference" else convolve
        with full_precision(u):
            z = v * a
            y = b * (apply(z, *self.filters(height * width)) + self.skip.to(z.dtype) * z)
        return orders.scatter(y, self.order, height, width).to(u.dtype)

    def core_cost(self, height: int, width: int) -> Cost:
        """The maps: 2 N C D; per channel two real transforms of 2 N numbers, a complex product, the taps."""
        tokens, channels = height * width, self.site.width
        taps = 0 if self.conv is None else 3 * self.conv.weight.shape[-1]
        mixing = 2 * fft_macs(2 * tokens) + complex_product_macs(tokens + 1)
        return Cost(
            projection_macs=tokens * self.maps.weight.numel(),
            mixing_macs=round(channels * mixing) + taps * tokens * channels,
            state_elements=tokens * channels,
        )

    @torch.no_grad()
    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`forward` and `backward` (D, N), the filters by distance, and the gates `x1` and `x2` (B, N, D)."""
        ahead, back = self.filters(u.shape[1] * u.shape[2])
        _, a, b = self.fields(u, x)
        return {"forward": ahead.mT, "backward": back.mT, "x1": a, "x2": b}
