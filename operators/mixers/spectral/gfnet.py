"""The mixer `gfnet`: every wave of every channel has a factor of its own.

For each channel (arXiv 2107.00645)

    y = irfft2(K · rfft2(u)),   K complex, (H, W // 2 + 1)

which is a circular convolution with the kernel irfft2(K). The unitary factors of the transforms cancel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import InputError
from operators.mixers.spectral.filtering import FilterCore
from operators.precision import wide
from operators.registry import register
from operators.shell.spec import BARE
from operators.spectral.choice import BACKENDS
from operators.spectral.filters import filter_macs

STD = 0.02
_GFNET = "raoyongming/GFNet README.md"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


@register(
    MixerCard(
        name="gfnet",
        family="spectral",
        title="Global filter (GFNet)",
        source="arXiv 2107.00645; raoyongming/GFNet gfnet.py at 2de48b6",
        year=2021,
        equation="y = irfft2(K · rfft2(u)), K complex, (H, W // 2 + 1) for each channel",
        code="raoyongming/GFNet at 2de48b6: outputs and all gradients within 6e-16 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant="circular",
        linear=True,
        fixed_grid=True,
        fp32_core=True,
        backends=BACKENDS,
        shells={"published": BARE},
        published=(
            Published("GFNet-Ti", _TOP1, 74.6, _GFNET),
            Published("GFNet-XS", _TOP1, 78.6, _GFNET),
            Published("GFNet-S", _TOP1, 80.0, _GFNET),
            Published("GFNet-B", _TOP1, 80.7, _GFNET),
            Published("GFNet-H-Ti", _TOP1, 80.1, _GFNET),
            Published("GFNet-H-S", _TOP1, 81.5, _GFNET),
            Published("GFNet-H-B", _TOP1, 82.9, _GFNET),
        ),
    )
)
class GFNet(FilterCore):
    """Global filter: one complex factor for each wave and channel, of deviation 0.02 to start with.

    It serves the grid that it was made for, as the released module does; the authors interpolate `filter` (bicubic,
    corners aligned) between two trainings at different resolutions and not within a model. In the columns 0 and W / 2
    half of the factors act on nothing, because a real field's waves are conjugates there; they keep their initial
    value, as in the released module. `filter` asks for no weight decay, unlike there.

    Args:
        site: where the core stands, with a grid.
        backend: `compiled_fft` (CPU), `fft`, `reference` (sums over all pairs of pixels), or `auto`.

    Raises:
        InputError: the site has no grid.
    """

    boundary = "periodic"
    no_weight_decay = frozenset({"filter"})

    def __init__(self, site: Site, *, backend: str = "auto") -> None:
        super().__init__(site, backend=backend)
        if site.grid is None:
            raise InputError("mixer gfnet depends on the grid: give grid=(H, W)")
        height, width = site.grid
        self.filter = nn.Parameter(STD * torch.randn(2, height, width // 2 + 1, site.width))

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.apply_filter(u, self.filter.to(wide(self.filter.dtype)))

    def core_cost(self, height: int, width: int) -> Cost:
        """A transform there, one back, a complex product; the waves of a real image are as many numbers as it has."""
        return Cost(
            mixing_macs=round(self.site.width * filter_macs(height, width, self.boundary)),
            state_elements=height * width * self.site.width,
        )

    @torch.no_grad()
    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`kernel` (D, H, W), the response to a unit at the centre, and `gain` (D, H, W // 2 + 1), the size of K."""
        height, width = u.shape[1:3]
        point = torch.zeros_like(u[:1])
        point[:, height // 2, width // 2] = 1
        gain = self.filter.square().sum(0).sqrt()
        return {"kernel": self(point, x=x)[0].movedim(-1, 0), "gain": gain.movedim(-1, 0)}
