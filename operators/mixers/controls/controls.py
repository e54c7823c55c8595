"""Controls: the plainest mixers, against which the others have to show what they are worth."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import InputError, check_number
from operators.initialisation import truncated_normal_
from operators.mixer import Core
from operators.registry import register
from operators.shell.spec import BARE

_METAFORMER = "sail-sg/metaformer README.md"
_POOLFORMER = "sail-sg/poolformer README.md"
_CONVNEXT = "facebookresearch/ConvNeXt README.md"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


def check_odd(what: str, value: int, least: int) -> None:
    """Raise `InputError` unless `value` is an odd integer of at least `least`; names its odd neighbours."""
    check_number(what, value, least=least, integer=True)
    if value % 2 == 0:
        raise InputError(f"{what}={value} must be odd, so that a window has a centre: {value - 1} or {value + 1}")


@register(
    MixerCard(
        name="identity",
        family="controls",
        title="Identity (no mixing)",
        source="arXiv 2210.13452, IdentityFormer",
        year=2022,
        equation="y = u",
        code="none needed: it is torch.nn.Identity",
        position_aware=False,
        permutation_equivariant=True,
        translation_equivariant="circular",
        linear=True,
        axes=(2, 3),
        backends=("torch",),
        shells={"published": BARE},
        published=(
            Published("IdentityFormer-S12", _TOP1, 74.6, _METAFORMER),
            Published("IdentityFormer-S24", _TOP1, 78.2, _METAFORMER),
            Published("IdentityFormer-M48", _TOP1, 80.4, _METAFORMER),
        ),
    )
)
class Identity(Core):
    """Mixes nothing: y = u. What a trunk with it reaches, it reaches without token mixing of its own."""

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """The field u itself, (B, H, W, D)."""
        return u

    def core_cost(self, height: int, width: int) -> Cost:
        """No operations, no state and no parameters."""
        return Cost()


@register(
    MixerCard(
        name="pool",
        family="controls",
        title="Average pooling",
        source="arXiv 2111.11418, section 3.2 (PoolFormer)",
        year=2021,
        equation="y = mean of u over a size × size window, without the pixels beyond the border, − u",
        code="none needed: the definition is torch.nn.AvgPool2d less its input, as in sail-sg/poolformer",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant="interior",
        linear=True,
        backends=("torch",),
        shells={"published": BARE},
        published=(
            Published("PoolFormer-S12", _TOP1, 77.2, _POOLFORMER),
            Published("PoolFormer-S24", _TOP1, 80.3, _POOLFORMER),
            Published("PoolFormer-M48", _TOP1, 82.5, _POOLFORMER),
            Published("PoolFormerV2-S12", _TOP1, 78.0, _METAFORMER),
        ),
    )
)
class Pool(Core):
    """Average over a window minus the centre (the paper's answer to the block's residual).

    Args:
        site: where the core stands.
        size: side of the window, odd, at least 3.
    """

    def __init__(self, site: Site, *, backend: str = "auto", size: int = 3) -> None:
        super().__init__(site, backend=backend)
        check_odd("mixer.size", size, least=3)
        self.size = size

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Local means minus u, (B, H, W, D)."""
        mean = F.avg_pool2d(
            u.movedim(-1, 1), self.size, stride=1, padding=self.size // 2, count_include_pad=False
        ).movedim(1, -1)
        return mean - u

    def core_cost(self, height: int, width: int) -> Cost:
        """size² additions for each element, two of them a MAC."""
        return Cost(mixing_macs=self.size**2 * height * width * self.site.width // 2)

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`kernel` (size, size): what an interior pixel is correlated with."""
        kernel = u.new_full((self.size, self.size), self.size**-2)
        kernel[self.size // 2, self.size // 2] -= 1
        return {"kernel": kernel}


@register(
    MixerCard(
        name="conv",
        family="controls",
        title="Depthwise convolution",
        source="arXiv 2201.03545, section 2.5 (ConvNeXt)",
        year=2022,
        equation="y = K ⋆ u + b, one kernel × kernel filter for each channel, zeros beyond the border",
        code="none needed: it is torch.nn.Conv2d, which the authors use",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant="interior",
        linear=True,
        axes=(2, 3),
        backends=("torch",),
        shells={"published": BARE},
        published=(
            Published("ConvNeXt-T", _TOP1, 82.1, _CONVNEXT),
            Published("ConvNeXt-S", _TOP1, 83.1, _CONVNEXT),
            Published("ConvNeXt-B", _TOP1, 83.8, _CONVNEXT),
            Published("isotropic ConvNeXt-S", _TOP1, 78.7, _CONVNEXT),
            Published("isotropic ConvNeXt-B", _TOP1, 82.0, _CONVNEXT),
        ),
    )
)
class Conv(Core):
    """Depthwise convolution, linear up to its bias; truncated normal of 0.02 and zero bias to start with (ConvNeXt).

    Args:
        site: where the core stands.
        kernel: side of the filters, odd.
    """

    def __init__(self, site: Site, *, backend: str = "auto", kernel: int = 7) -> None:
        super().__init__(site, backend=backend)
        check_odd("mixer.kernel", kernel, least=1)
        self.kernel = kernel
        convolution = nn.Conv2d if site.axes == 2 else nn.Conv3d
        self.conv = convolution(site.width, site.width, kernel, padding=kernel // 2, groups=site.width)
        truncated_normal_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """The field u correlated with each channel's filter, (B, H, W, D)."""
        y: Tensor = self.conv(u.movedim(-1, 1))
        return y.movedim(1, -1)

    def video_cost(self, frames: int, height: int, width: int) -> Cost:
        """kernel³ for each element."""
        return Cost(mixing_macs=self.kernel**3 * frames * height * width * self.site.width)

    def core_cost(self, height: int, width: int) -> Cost:
        """kernel² for each element."""
        return Cost(mixing_macs=self.kernel**2 * height * width * self.site.width)

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`kernel` (D, kernel, kernel), of a video (D, kernel, kernel, kernel): the filters."""
        return {"kernel": self.conv.weight[:, 0]}


@register(
    MixerCard(
        name="random",
        family="controls",
        title="Fixed random token matrix",
        source="arXiv 2210.13452, RandFormer",
        year=2022,
        equation="y = R u over tokens, R = softmax(U) by rows, U uniform on [0, 1)^(N × N), never trained",
        code="none needed: a product by a fixed matrix",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=True,
        fixed_grid=True,
        backends=("torch",),
        shells={"published": BARE},
        published=(
            Published("RandFormer-S12 (mixes in the last two of four stages)", _TOP1, 76.6, _METAFORMER),
            Published("RandFormer-S24 (mixes in the last two of four stages)", _TOP1, 78.2, _METAFORMER),
            Published("RandFormer-M48 (mixes in the last two of four stages)", _TOP1, 81.4, _METAFORMER),
        ),
    )
)
class Random(Core):
    """Mixes tokens by one random matrix, drawn at construction, saved with the model and never trained.

    Raises:
        InputError: the site has no grid.
    """

    matrix: Tensor

    def __init__(self, site: Site, *, backend: str = "auto") -> None:
        super().__init__(site, backend=backend)
        if site.grid is None:
            raise InputError("mixer random depends on the grid: give grid=(H, W)")
        tokens = site.grid[0] * site.grid[1]
        self.register_buffer("matrix", torch.rand(tokens, tokens).softmax(dim=-1))

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """The matrix times the tokens of u, (B, H, W, D)."""
        return (self.matrix @ u.flatten(1, 2)).reshape(u.shape)

    def core_cost(self, height: int, width: int) -> Cost:
        """N² for each channel; all tokens are held, since every output reads every one of them."""
        elements = height * width * self.site.width
        return Cost(mixing_macs=height * width * elements, state_elements=elements)

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`map` (N, N): the matrix, rows summing to one."""
        return {"map": self.matrix}
