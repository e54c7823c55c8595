"""What the mixers around one depthwise convolution have in common."""

from __future__ import annotations

from torch import Tensor, nn

from operators.card import Site
from operators.cost import Cost
from operators.mixer import Core
from operators.mixers.controls.controls import check_odd


class DepthwiseCore(Core):
    """Owns a depthwise convolution, zeros beyond the border, of images or videos.

    Args:
        site: where the core stands.
        backend: `torch` or `auto`.
        kernel: side of the filters, odd.
        channels: how many channels are convolved; None for those of the field.
        bias: whether each channel gets a constant.

    Raises:
        InputError: an even kernel, or one below 1.
    """

    def __init__(
        self, site: Site, *, backend: str, kernel: int, channels: int | None = None, bias: bool = True
    ) -> None:
        super().__init__(site, backend=backend)
        check_odd("mixer.kernel", kernel, least=1)
        channels = site.width if channels is None else channels
        convolution = nn.Conv2d if site.axes == 2 else nn.Conv3d
        self.conv = convolution(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=bias)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def convolved(self, field: Tensor) -> Tensor:
        """Each channel of a field (B, H, W, channels) correlated with its filter."""
        y: Tensor = self.conv(field.movedim(-1, 1))
        return y.movedim(1, -1)

    def core_cost(self, height: int, width: int) -> Cost:
        """One operation for each tap of a filter and token; nothing is held, since the reach is finite."""
        return Cost(mixing_macs=height * width * self.conv.weight.numel())

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`kernel` (channels, kernel, kernel), of a video (channels, kernel, kernel, kernel): the filters."""
        return {"kernel": self.conv.weight[:, 0]}
