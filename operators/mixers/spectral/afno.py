"""The mixer `afno`: one network of two layers acts on the channels of every wave.

With unitary transforms, CReLU the rectifier of real and imaginary part, S that of `softshrink` (arXiv 2111.13587)

    X = rfft2(u),   O = S(CReLU(X W1 + b1) W2 + b2),   y = u + irfft2(O)

W1 and W2 are complex and block-diagonal, and the same for all waves. The released module keeps fewer columns of waves
if its `hard_thresholding_fraction` is below 1 (which counts by tokens, not by columns); here all are kept, as there by
default.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Site
from operators.cost import Cost, fft_macs
from operators.errors import InputError, check_number
from operators.mixer import Core
from operators.mixers.heads import divisors
from operators.pde.propagators import permuted
from operators.precision import full_precision, wide
from operators.registry import register
from operators.shell.spec import BARE
from operators.spectral.waves import field, waves

STD = 0.02


@register(
    MixerCard(
        name="afno",
        family="spectral",
        title="Adaptive Fourier neural operator (AFNO)",
        source="arXiv 2111.13587; NVlabs/AFNO-transformer afno/afno2d.py at 941e924",
        year=2021,
        equation="y = u + irfft2(S_λ(CReLU(X W1 + b1) W2 + b2)), X = rfft2(u), W1, W2 complex, block-diagonal",
        code="NVlabs/AFNO-transformer at 941e924: outputs and all gradients within 3e-16 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        backends=("fft",),
        shells={"published": BARE},
    )
)
class Afno(Core):
    """Adaptive Fourier neural operator: a two-layer network on the spectrum, shared by all waves, plus u itself.

    A shift turns the phases of waves, with which rectifier, biases and shrinkage do not commute: it is no convolution.
    All weights and biases are normal numbers of deviation 0.02 to start with.

    Args:
        site: where the core stands.
        backend: `fft` or `auto`.
        blocks: blocks of the weights' diagonal; channels of different blocks do not meet.
        hidden: width of the hidden layer over that of the input.
        sparsity: λ, by which real and imaginary parts are shrunk towards zero, at least 0.

    Raises:
        InputError: blocks that do not divide the width, a hidden width below 1, a negative λ.
    """

    def __init__(
        self, site: Site, *, backend: str = "auto", blocks: int = 8, hidden: int = 1, sparsity: float = 0.01
    ) -> None:
        super().__init__(site, backend=backend)
        check_number("mixer.blocks", blocks, least=1, integer=True)
        check_number("mixer.hidden", hidden, least=1, most=64, integer=True)
        check_number("mixer.sparsity", sparsity, least=0)
        if site.width % blocks:
            fitting = ", ".join(map(str, divisors(site.width)))
            raise InputError(f"mixer.blocks={blocks} must divide the width {site.width}: allowed are {fitting}")
        self.blocks, self.sparsity = blocks, sparsity
        block, wider = site.width // blocks, site.width // blocks * hidden
        self.w1 = nn.Parameter(STD * torch.randn(2, blocks, block, wider))
        self.b1 = nn.Parameter(STD * torch.randn(2, blocks, wider))
        self.w2 = nn.Parameter(STD * torch.randn(2, blocks, wider, block))
        self.b2 = nn.Parameter(STD * torch.randn(2, blocks, block))

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        with full_precision(u):
            spectrum = waves(u.to(wide(u.dtype)), "ortho")
            mixed = field(self.transform(spectrum), u.shape[2], "ortho")
        return u + mixed.to(u.dtype)

    def transform(self, spectrum: Tensor) -> Tensor:
        """The network on waves (B, H, W // 2 + 1, D, 2); of a block, real and imaginary parts are neighbours."""
        tokens = permuted(spectrum.reshape(-1, self.blocks, 2 * self.site.width // self.blocks), 1, 0, 2)
        hidden = F.relu(torch.baddbmm(_pairs(self.b1, tokens), tokens, _real(self.w1, tokens)))
        made = torch.baddbmm(_pairs(self.b2, tokens), hidden, _real(self.w2, tokens))
        return permuted(F.softshrink(made, self.sparsity), 1, 0, 2).reshape(spectrum.shape)

    def core_cost(self, height: int, width: int) -> Cost:
        """A transform there and one back, and of each wave of the half plane two complex products by blocks."""
        products = 4 * (self.w1[0].numel() + self.w2[0].numel())
        transforms = 2 * self.site.width * fft_macs(height * width)
        return Cost(
            mixing_macs=round(transforms) + height * (width // 2 + 1) * products,
            state_elements=height * width * self.site.width,
        )

    @torch.no_grad()
    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`before` and `after` (B, H, W // 2 + 1): the size of waves, root mean square over channels."""
        spectrum = waves(u.to(wide(u.dtype)), "ortho")
        shown = {"before": spectrum, "after": self.transform(spectrum)}
        return {name: value.square().sum(-1).mean(-1).sqrt() for name, value in shown.items()}


def _real(weight: Tensor, like: Tensor) -> Tensor:
    """The real matrices (blocks, 2 in, 2 out) of complex ones (2, blocks, in, out), for pairs of numbers."""
    real, imaginary = weight.to(like.dtype)
    rows = torch.stack([torch.stack([real, imaginary], -1), torch.stack([-imaginary, real], -1)], 2)
    return rows.flatten(1, 2).flatten(2)


def _pairs(bias: Tensor, like: Tensor) -> Tensor:
    return bias.to(like.dtype).movedim(0, -1).flatten(1)[:, None]
