"""The mixer `hyena_siren`: NVIDIA's HyenaND, a long convolution whose kernel is a SIREN of the offset.

With q = u, k and v maps of x (NVIDIA-BioNeMo/nvSubquadratic `hyena_nd.py`, `ckconv_nd.py`, `kernels_nd.py`)

    z = RMSNorm(q / |q| · SiLU(k)),   h = K * z + s z,   y = h · sigmoid(v)

    K[p] = m(p) (W4 sin(W3 sin(W2 sin(W1 p + b1) + b2) + b3) + b4)

p is the offset over the side of the nominal grid, less one token, so that it lies in [−1, 1]² there; on a larger grid p
goes beyond, on a smaller one the centre serves. m is 1, or a Gaussian of learned widths σ. It is not the `hyena_nd`
of 2023. The released module clamps its parameter σ in place at every call; here the value that is used is clamped.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.errors import check_choice, check_number
from operators.mixers.spectral.gated import GatedConvolution
from operators.precision import wide
from operators.registry import register
from operators.shell.spec import ShellSpec
from operators.spectral.choice import BACKENDS, DEFAULT_GRID
from operators.spectral.coordinates import SineNetwork, centred, plane

EPS = 1e-6
LEAST_NORM = 1e-12
OMEGA = 10.0
"""Largest rate of the first layer at the start, in turns of 2π over the nominal image, halved for two coordinates."""
NARROW, WIDE, WIDEST = (1 / math.sqrt(-2 * math.log(value)) for value in (0.1, 0.1, 0.95))
"""σ at which the Gaussian is 0.1 a step from the centre (in steps), 0.1 and 0.95 at p = 1."""
_VIT5 = "NVIDIA-BioNeMo/nvSubquadratic gap_film_regs/TRACKER.md"


@register(
    MixerCard(
        name="hyena_siren",
        family="spectral",
        title="HyenaND (SIREN kernel)",
        source="NVIDIA-BioNeMo/nvSubquadratic nvsubquadratic/modules/hyena_nd.py at 5129112",
        year=2026,
        equation="y = (K * z + s z) · sigmoid(v), z = RMSNorm(q / |q| · SiLU(k)), K[p] = SIREN(p), q = u, k, v = W x",
        code="NVIDIA-BioNeMo/nvSubquadratic at 5129112, in torch: outputs and gradients within 9e-15 (relative RMS)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        extensive=True,
        fp32_core=True,
        backends=BACKENDS,
        shells={"published": ShellSpec(gate="none", norm="rms")},
        preset_params={"published": {"conv": 3}},
        published=(Published("ViT-5-S with HyenaND", "ImageNet-1k top-1 %, 224 px", 81.5, _VIT5),),
    )
)
class HyenaSiren(GatedConvolution):
    """A long convolution between two gates, its kernel a network of sines of the offset.

    The sum of a kernel without a window grows with the number of offsets, and the output with it (`extensive`).

    Args:
        site: where the core stands. Its nominal grid (16 × 16 without one) is the unit of offsets.
        backend: `compiled_fft` (CPU), `fft`, `reference` (sums over all pairs of tokens), or `auto`.
        boundary: `absorbing` for zeros beyond the border, `periodic` for a grid without one, whose kernel has no more
            offsets than the grid has tokens.
        window: `none`, or `gaussian` for a factor exp(−|p / σ|² / 2), σ learned for each axis and channel.
        hidden: width of the network.
        conv: side of a depthwise convolution of q, k and v; 0 for none; None for 3 in the published shell and none in
            any other.

    Raises:
        InputError: words that are not known, a hidden width below 1.
    """

    implicit = ("network", "skip_factor", "sigma", "norm")

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        boundary: str = "absorbing",
        window: str = "none",
        hidden: int = 32,
        conv: int | None = None,
    ) -> None:
        check_choice("mixer.boundary", boundary, ("absorbing", "periodic"))
        check_choice("mixer.window", window, ("none", "gaussian"))
        check_number("mixer.hidden", hidden, least=1, most=4096, integer=True)
        self.boundary = boundary
        super().__init__(site, backend=backend, conv=conv, bias=False)
        sides = [self._reach(side) for side in site.grid or DEFAULT_GRID]
        self.steps = [1 / max(side - 1, 1) for side in sides]
        self.network = SineNetwork([2, hidden, hidden, hidden, site.width], frequencies=0, bias=True)
        self.skip_factor = nn.Parameter(torch.empty(site.width).uniform_(-1, 1) / math.sqrt(site.width))
        self.norm = nn.Parameter(torch.ones(site.width))
        self.sigma = self._initial_sigma() if window == "gaussian" else None
        _siren_init(self.network, math.prod(sides))
        self._ask_for_no_decay()
        # Its readout is decayed, as in the released module.
        self.no_weight_decay -= {"network.layers.3.weight"}

    def _reach(self, side: int) -> int:
        """Offsets along an axis on either side, 0 among them."""
        return side if self.boundary == "absorbing" else (side + 1) // 2

    def _initial_sigma(self) -> nn.Parameter:
        lows = [math.log(min(NARROW * step, WIDEST)) for step in self.steps]
        return nn.Parameter(torch.stack([torch.linspace(low, math.log(WIDE), self.site.width).exp() for low in lows]))

    def skip(self) -> Tensor:
        return self.skip_factor

    def kernel(self, height: int, width: int) -> Tensor:
        like = self.norm.new_empty((), dtype=wide(self.norm.dtype))
        reach = [self._reach(side) for side in (height, width)]
        rows, columns = (centred(side, step, like) for side, step in zip(reach, self.steps, strict=True))
        values: Tensor = self.network(plane(rows[:, None], columns[:, None]))
        if self.sigma is not None:
            sigma = self.sigma.to(like.dtype)
            down, along = (
                (-(places[:, None] / s.clamp(NARROW * step, WIDEST)).square() / 2).exp()
                for places, s, step in zip((rows, columns), sigma, self.steps, strict=True)
            )
            values = values * down[:, None] * along
        missing = height - reach[0], width - reach[1]
        return F.pad(values, (0, 0, missing[1], missing[1], missing[0], missing[0]))

    def enter(self, u: Tensor, a: Tensor) -> Tensor:
        gated = F.normalize(u, dim=-1, eps=LEAST_NORM) * F.silu(a)
        return F.rms_norm(gated, (gated.shape[-1],), self.norm.to(gated.dtype), EPS)

    def leave(self, h: Tensor, b: Tensor) -> Tensor:
        return h * b.sigmoid()


@torch.no_grad()
def _siren_init(network: SineNetwork, volume: int) -> None:
    """Weights and biases as released; the readout is divided by the root of `volume`, the kernel's nominal size."""
    first, *others = network.linears()
    first.weight.uniform_(-1, 1).mul_(2 * math.pi * OMEGA / first.in_features)
    for layer in others:
        layer.weight.uniform_(-1, 1).mul_(math.sqrt(6 / layer.in_features))
    others[-1].weight.mul_(volume**-0.5)
    for layer in network.linears():
        layer.bias.zero_()
