"""The mixer `fno`: low waves are mixed by a matrix each, all tokens by one matrix.

For the waves k with |k_y| <= m_y and |k_x| <= m_x (arXiv 2010.08895; its activation is left to the trunk)

    y = W u + b + irfft2(R(k) rfft2(u))

The transform has the factor 1 / (H W) and its inverse none, so that a field with these waves alone gives the same field
at any resolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Site
from operators.cost import Cost, fft_macs
from operators.errors import InputError, check_number
from operators.initialisation import linear_init
from operators.mixer import Core
from operators.pde.propagators import permuted
from operators.precision import full_precision, wide
from operators.registry import register
from operators.shell.spec import BARE
from operators.spectral.waves import field, waves


@register(
    MixerCard(
        name="fno",
        family="spectral",
        title="Fourier neural operator layer (FNO)",
        source="arXiv 2010.08895; neuraloperator/neuraloperator neuralop/layers/spectral_convolution.py at 93d3f063",
        year=2020,
        equation="y = W u + b + irfft2(R(k) rfft2(u)) for |k_y| <= m_y, |k_x| <= m_x, R(k) a complex D × D matrix",
        code="neuraloperator/neuraloperator at 93d3f063, W apart: outputs and gradients within 3e-16 (relative RMS)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant="circular",
        linear=True,
        fp32_core=True,
        backends=("fft",),
        shells={"published": BARE},
    )
)
class Fno(Core):
    """Fourier layer: a dense complex matrix for each low wave, and one real matrix for each token.

    It has 2 (2 m_y + 1)(m_x + 1) D² numbers in R; waves that a grid lacks are left out. Each entry of R is a complex
    normal number of variance 1 / D to start with (neuraloperator's rule). At an even side's highest wave, which is its
    own conjugate, R(-m_y) serves.

    Args:
        site: where the core stands.
        backend: `fft` or `auto`.
        modes: m_y and m_x, the highest waves along rows and columns, at least 0 (the paper has 12 at 32 channels).

    Raises:
        InputError: modes that are not two integers of at least 0.
    """

    no_weight_decay = frozenset({"matrices"})

    def __init__(self, site: Site, *, backend: str = "auto", modes: Sequence[int] = (4, 4)) -> None:
        super().__init__(site, backend=backend)
        self.modes = _check_modes(modes)
        rows, columns = self.modes
        size = (2 * rows + 1, columns + 1, site.width, 2, site.width)
        self.matrices = nn.Parameter(torch.randn(size) * (2 * site.width) ** -0.5)
        self.pointwise = nn.Linear(site.width, site.width)
        linear_init(self.pointwise)

    def _kept(self, height: int, width: int) -> tuple[int, int, int]:
        """How many waves of either sign a grid keeps: below 0 and above it along rows, and along columns."""
        rows, columns = self.modes
        return min(rows, height // 2), min(rows, (height - 1) // 2), min(columns, width // 2)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        pointwise: Tensor = self.pointwise(u)
        with full_precision(u):
            mixed = self.spectral(u.to(wide(u.dtype)))
        return (pointwise + mixed).to(u.dtype)

    def spectral(self, u: Tensor) -> Tensor:
        """irfft2(R(k) rfft2(u)), (B, H, W, D)."""
        batch, height, width, channels = u.shape
        below, above, columns = self._kept(height, width)
        low = waves(u, "forward")[:, :, : columns + 1]
        low = torch.cat([low[:, height - below :], low[:, : above + 1]], dim=1)
        middle, _ = self.modes
        matrices = self.matrices.to(u.dtype)[middle - below : middle + above + 1, : columns + 1]
        parts = permuted(low, 1, 2, 4, 0, 3).flatten(2, 3).flatten(0, 1)
        products = torch.bmm(parts, matrices.flatten(3).flatten(0, 1)).view(
            len(matrices) * (columns + 1), 2, batch, 2, channels
        )
        (rr, ri), (ir, ii) = (part.unbind(2) for part in products.unbind(1))
        mixed = torch.stack([rr - ii, ri + ir], -1).unflatten(0, (below + above + 1, columns + 1))
        mixed = permuted(mixed, 2, 0, 1, 3, 4)
        missing = mixed.new_zeros(batch, height - below - above - 1, columns + 1, channels, 2)
        spectrum = torch.cat([mixed[:, below:], missing, mixed[:, :below]], dim=1)
        return field(F.pad(spectrum, (0, 0, 0, 0, 0, width // 2 - columns)), width, "forward")

    def core_cost(self, height: int, width: int) -> Cost:
        """N D² for W; two transforms, and 4 D² for each wave kept, whose numbers are the state."""
        below, above, columns = self._kept(height, width)
        channels, rows = self.site.width, below + above + 1
        # In the columns 0 and W / 2 a wave's conjugate is kept as well.
        numbers = rows * (2 * (columns + 1) - 1 - (2 * columns == width))
        return Cost(
            projection_macs=height * width * channels**2,
            mixing_macs=round(2 * channels * fft_macs(height * width)) + 4 * rows * (columns + 1) * channels**2,
            state_elements=numbers * channels,
        )

    @torch.no_grad()
    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`gain` (2 m_y + 1, m_x + 1): the size of R(k), root mean square of its entries, k_y = 0 in the middle."""
        return {"gain": self.matrices.square().sum(3).mean((2, 3)).sqrt()}


def _check_modes(modes: Sequence[int]) -> tuple[int, int]:
    if isinstance(modes, str) or not isinstance(modes, Sequence) or len(modes) != 2:
        raise InputError(f"mixer.modes={modes!r} must be two integers, the highest waves along rows and columns")
    rows, columns = modes
    for axis, highest in enumerate((rows, columns)):
        check_number(f"mixer.modes[{axis}]", highest, least=0, most=1024, integer=True)
    return rows, columns
