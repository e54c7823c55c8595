"""The mixer `hyena_pixel`: Hyena for pixels, whose filter is centred and has a fixed number of offsets.

With q = u, k and v maps of x (arXiv 2402.19305; spravil/HyenaPixel `nn/hyenapixel.py`)

    z = LN(q · k),   h = K * z + s z,   y = h · v

    K = g(Z) · (exp(−|p| |δ|) + c),   g(Z) = W3 sin(f2 · (W2 sin(f1 · (W1 Z + b1)) + b2))

p is the offset in tokens, δ and c are numbers of each channel, and Z, 32 numbers for each offset, is learned; it starts
as sines and cosines of both coordinates. The layer normalisation LN has no bias; the norm of y is the shell's.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.errors import InputError, check_choice, check_number
from operators.mixers.controls.controls import check_odd
from operators.mixers.spectral.gated import GatedConvolution
from operators.precision import wide
from operators.registry import register
from operators.shell.spec import ShellSpec
from operators.spectral.choice import BACKENDS
from operators.spectral.coordinates import SineNetwork, centred, sinusoids

EPS = 1e-5
LARGEST = 1023
"""Offsets along a side: a grid of 512 tokens a side has no more."""
SLOW, FAST = math.log(1e-2) / 1.5, math.log(1e-2) / 0.3
"""Decay δ of the first and of the last channel, by which a filter falls to a hundredth 1.5 and 0.3 of its side away."""
_HYENA_PIXEL = "spravil/HyenaPixel README.md"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


@register(
    MixerCard(
        name="hyena_pixel",
        family="spectral",
        title="HyenaPixel",
        source="arXiv 2402.19305; spravil/HyenaPixel src/hyenapixel/nn/hyenapixel.py at 191ffab",
        year=2024,
        equation="y = (K * z + s z) · v, z = LN(u · k), K = g(Z) (exp(−|p| |δ|) + c), k, v = W x + b",
        code="spravil/HyenaPixel at 191ffab: outputs and gradients within 7e-15 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        backends=BACKENDS,
        shells={"published": ShellSpec(gate="none", norm="layer", bias=True)},
        preset_params={"published": {"conv": 5}},
        published=(
            Published("hpx_former_s18", _TOP1, 83.2, _HYENA_PIXEL),
            Published("hpx_a_former_s18 (attention in two of four stages)", _TOP1, 83.6, _HYENA_PIXEL),
            Published("hpx_former_b36", _TOP1, 84.9, _HYENA_PIXEL),
        ),
    )
)
class HyenaPixel(GatedConvolution):
    """A long convolution between two gates, with a centred filter of kernel × kernel offsets, zeros beyond the border.

    Of a filter larger than the grid's 2H − 1 by 2W − 1 offsets the centre serves; a smaller one leaves tokens out of
    reach. The authors have 111, 55, 27 and 13 offsets along sides of 56, 28, 14 and 7.

    Args:
        site: where the core stands.
        backend: `compiled_fft` (CPU), `fft`, `reference` (sums over all pairs of tokens), or `auto`.
        kernel: offsets along a side, odd.
        features: numbers Z for each offset, a multiple of 4; the network is twice as wide.
        norm: whether z is normalised (as in the released models, not by the released module's default).
        conv: side of a depthwise convolution of q, k and v; 0 for none; None for 5 in the published shell and none in
            any other.

    Raises:
        InputError: an even kernel or one above 1023, features that are no multiple of 4, an unknown convolution.
    """

    implicit = ("places", "network", "decay", "shift", "s", "scale")

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        kernel: int = 27,
        features: int = 32,
        norm: bool = True,
        conv: int | None = None,
    ) -> None:
        check_number("mixer.kernel", kernel, least=1, most=LARGEST, integer=True)
        check_odd("mixer.kernel", kernel, least=1)
        check_number("mixer.features", features, least=4, most=4096, integer=True)
        check_choice("mixer.norm", norm, (True, False))
        if features % 4:
            near = features - features % 4
            raise InputError(f"mixer.features={features} must be a multiple of 4: {near} or {near + 4}")
        super().__init__(site, backend=backend, conv=conv, bias=True)
        self.places = nn.Parameter(sinusoids(features, kernel))
        self.network = SineNetwork([features, 2 * features, 2 * features, site.width], frequencies=2, bias=False)
        self.decay = nn.Parameter(torch.linspace(SLOW, FAST, site.width) / kernel)
        self.shift = nn.Parameter(torch.zeros(site.width))
        self.s = nn.Parameter(torch.randn(site.width))
        self.scale = nn.Parameter(torch.ones(site.width)) if norm else None
        self._ask_for_no_decay()

    def skip(self) -> Tensor:
        return self.s

    def kernel(self, height: int, width: int) -> Tensor:
        places = self.places.to(wide(self.places.dtype))
        half = len(places) // 2
        cut = [max(half + 1 - side, 0) for side in (height, width)]
        places = places[cut[0] : len(places) - cut[0], cut[1] : len(places) - cut[1]]
        offsets = [centred((side + 1) // 2, 1, places) for side in places.shape[:2]]
        distance = (offsets[0].square()[:, None] + offsets[1].square()).sqrt()[..., None]
        window = (-distance * self.decay.to(places.dtype).abs()).exp() + self.shift.to(places.dtype)
        missing = [max(side - 1 - half, 0) for side in (height, width)]
        return F.pad(self.network(places) * window, (0, 0, missing[1], missing[1], missing[0], missing[0]))

    def enter(self, u: Tensor, a: Tensor) -> Tensor:
        z = u * a
        return z if self.scale is None else F.layer_norm(z, (z.shape[-1],), self.scale.to(z.dtype), None, EPS)
