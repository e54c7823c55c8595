"""The mixer `hyena_nd`: multi-dimensional Hyena, whose filter reaches one quadrant or all four.

With v = u, x1 and x2 maps of x, and for i, j >= 0 (arXiv 2309.13600)

    y = x2 · (K * (x1 · v) + s x1 · v),   K_q[i, j] = exp(−δ t_i) exp(−δ t_j) f(t_i, t_j)

t = i / (H − 1) and j / (W − 1) run from 0 to 1; f is a network of sines, of both coordinates or the product of one for
each axis. K has one quadrant, K_q, as released (`standard`), or is a sum of its four flips with weights of their own.
The released `4dir` comes to the same, with weights that all channels share: it flips the fields, and back. NVIDIA's
HyenaND of 2026 is another operator, `hyena_siren`. Not taken over: there the filter is divided by 2 H, the networks of
both axes share frequencies, and the features of positions, a function here, are learned at a rate of 1e-5.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from operators.card import MixerCard, Site
from operators.errors import check_choice, check_number
from operators.mixers.spectral.gated import GatedConvolution
from operators.precision import wide
from operators.registry import register
from operators.shell.spec import ShellSpec
from operators.spectral.choice import BACKENDS
from operators.spectral.coordinates import FAST, SLOW, SineNetwork, fractions, hyena_features, plane

BANDS = 1
LAYERS = 2


@register(
    MixerCard(
        name="hyena_nd",
        family="spectral",
        title="Multi-dimensional Hyena",
        source="arXiv 2309.13600; Itamarzimm/HyenaND timm/models/layers/hyena2d.py at e8b875e",
        year=2023,
        equation="y = x2 · (K * (x1 · u) + s x1 · u), K a windowed network of sines over quadrants, x1, x2 = W x + b",
        code="Itamarzimm/HyenaND at e8b875e, less its factor 1 / 2H: outputs, gradients within 3e-15 (relative RMS)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        extensive=True,
        fp32_core=True,
        backends=BACKENDS,
        shells={"published": ShellSpec(gate="none", norm="none", bias=True)},
        preset_params={"published": {"conv": 3}},
        exempt={
            "extensive": "the kernel's sum grows with the grid, the skip's share does not: 2.9, where 3 is asked for"
        },
    )
)
class HyenaNd(GatedConvolution):
    """Multi-dimensional Hyena of order 2: a long 2-D convolution between two gates, zeros beyond the border.

    Filter and window span the image whatever the grid is, and are not divided by the number of tokens: the output of a
    finer image grows with it (`extensive`).

    Args:
        site: where the core stands.
        backend: `compiled_fft` (CPU), `fft`, `reference` (sums over all pairs of tokens), or `auto`.
        directions: 1 for a filter that reaches down and right only, 4 for a learned sum of its four flips.
        separable: f is the product of a network for each axis; else it is one network of both coordinates.
        hidden: width of the networks.
        conv: side of a depthwise convolution of u, x1 and x2; 0 for none; None for 3 in the published shell and none in
            any other.

    Raises:
        InputError: directions other than 1 and 4, a hidden width below 1, a convolution that is not known.
    """

    implicit = ("filter", "row_filter", "s", "directions_weight")
    decay: Tensor

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        directions: int = 4,
        separable: bool = False,
        hidden: int = 64,
        conv: int | None = None,
    ) -> None:
        check_choice("mixer.directions", directions, (1, 4))
        check_choice("mixer.separable", separable, (True, False))
        check_number("mixer.hidden", hidden, least=1, most=4096, integer=True)
        super().__init__(site, backend=backend, conv=conv, bias=True)
        features = 1 + 2 * BANDS
        widths = [features if separable else 2 * features, *[hidden] * (1 + LAYERS), site.width]
        self.filter = SineNetwork(widths, frequencies=1, bias=False)
        self.row_filter = SineNetwork(widths, frequencies=1, bias=False) if separable else None
        self.s = nn.Parameter(torch.randn(site.width))
        self.directions_weight = (
            nn.Parameter(torch.empty(4, site.width).uniform_(-0.5, 0.5)) if directions == 4 else None
        )
        self.register_buffer("decay", torch.linspace(SLOW, FAST, site.width))
        self._ask_for_no_decay()

    def skip(self) -> Tensor:
        return self.s if self.directions_weight is None else self.s * self.directions_weight.sum(0)

    def quadrant(self, height: int, width: int) -> Tensor:
        """K_q at the offsets 0 … H − 1 and 0 … W − 1, (H, W, D)."""
        decay = self.decay.to(wide(self.s.dtype))
        rows, columns = (hyena_features(side, BANDS, decay) for side in (height, width))
        window_rows, window_columns = ((-fractions(n, decay)[:, None] * decay).exp() for n in (height, width))
        if self.row_filter is None:
            values: Tensor = self.filter(plane(rows, columns))
            return values * window_rows[:, None] * window_columns
        down: Tensor = self.row_filter(rows) * window_rows
        return down[:, None] * (self.filter(columns) * window_columns)

    def kernel(self, height: int, width: int) -> Tensor:
        quadrant = self.quadrant(height, width)
        kernel = torch.nn.functional.pad(quadrant, (0, 0, width - 1, 0, height - 1, 0))
        if self.directions_weight is None:
            return kernel
        flips = (kernel, kernel.flip(0, 1), kernel.flip(1), kernel.flip(0))
        weights = self.directions_weight.to(kernel.dtype).unbind()
        return sum((w * k for w, k in zip(weights, flips, strict=True)), kernel.new_zeros(()))
