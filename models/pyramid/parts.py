"""What stems, downsampling, blocks and heads of a pyramid are made of. All map grids (B, H, W, C)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.initialisation import Constant


class GridConv(nn.Conv2d):
    """A convolution of grids (B, H, W, C); of an odd kernel and stride s it makes ⌈H / s⌉ × ⌈W / s⌉ tokens.

    Its output is of the parameters' type, under autocast too: it may become the residual stream.
    """

    def __init__(
        self, in_channels: int, channels: int, kernel: int = 3, *, stride: int = 1, depthwise: bool = False,
        bias: bool = True, padding: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels,
            channels,
            kernel,
            stride=stride,
            padding=kernel // 2 if padding is None else padding,
            groups=channels if depthwise else 1,
            bias=bias,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C)."""
        return super().forward(x.movedim(-1, 1)).movedim(1, -1).to(self.weight.dtype)

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates for so many tokens of the output."""
        return tokens * self.weight.numel()


class TokenLinear(nn.Linear):
    """A linear map of each token whose output is of the parameters' type, under autocast too."""

    def forward(self, x: Tensor) -> Tensor:
        """Map x (…, C)."""
        return super().forward(x).to(self.weight.dtype)

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates for so many tokens."""
        return tokens * self.weight.numel()


class GridBatchNorm(nn.BatchNorm2d):
    """Batch normalisation of grids (B, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C)."""
        return super().forward(x.movedim(-1, 1)).movedim(1, -1).contiguous()


class GridGroupNorm(nn.GroupNorm):
    """GroupNorm of one group: every image is normalised over all its tokens and channels, (B, H, W, C)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__(1, dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C)."""
        return super().forward(x.movedim(-1, 1)).movedim(1, -1).contiguous()


class ChannelAffine(nn.Module):
    """w x + b with two learned numbers for each channel, in the place of a norm (ResMLP, arXiv 2105.03404)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight, self.bias = Constant((dim,), 1.0), Constant((dim,), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C)."""
        return torch.addcmul(self.bias.value, x, self.weight.value)


NORM_LAYERS: dict[str, Callable[[int, float], nn.Module]] = {
    "layer": lambda dim, eps: nn.LayerNorm(dim, eps=eps),
    "layer_no_bias": lambda dim, eps: nn.LayerNorm(dim, eps=eps, bias=False),
    "rms": lambda dim, eps: nn.RMSNorm(dim, eps=eps),
    "group": GridGroupNorm,
    "affine": lambda dim, eps: ChannelAffine(dim),
    "batch": lambda dim, eps: GridBatchNorm(dim),
    "none": lambda dim, eps: nn.Identity(),
}
"""What each norm of a pyramid is."""


class ChannelScale(Constant):
    """Multiplies each channel by a learned factor."""

    def __init__(self, dim: int, start: float) -> None:
        super().__init__((dim,), start)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C)."""
        return x * self.value


class GridFeedForward(nn.Module):
    """Linear(C, hidden), GELU, Linear(hidden, C) with z + DW_3(z) before or after the GELU.

    Args:
        dim: channels C.
        hidden: inner width.
        gelu: `exact`, or its `tanh` approximation.
        first: whether the convolution comes before the GELU.
    """

    def __init__(self, dim: int, hidden: int, gelu: str, *, first: bool) -> None:
        super().__init__()
        self.approximate = "tanh" if gelu == "tanh" else "none"
        self.first = first
        self.up = nn.Linear(dim, hidden)
        self.conv = GridConv(hidden, hidden, depthwise=True)
        self.down = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C)."""
        z = self.up(x)
        if self.first:
            z = z + self.conv(z)
        z = F.gelu(z, approximate=self.approximate)
        if not self.first:
            z = z + self.conv(z)
        return self.down(z)

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates for so many tokens."""
        return self.conv.macs(tokens) + tokens * (self.up.weight.numel() + self.down.weight.numel())


class StarFeedForward(nn.Module):
    """Linear(C, hidden), s ReLU(z)² + b, Linear(hidden, C); no biases (ConvFormer, arXiv 2210.13452).

    The two numbers s and b of StarReLU are learned, and start at 1 and 0 as in sail-sg/metaformer at 64c534a.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, hidden, bias=False)
        self.scale, self.shift = Constant((1,), 1.0), Constant((1,), 0.0)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (…, C)."""
        return self.down(self.scale.value * F.relu(self.up(x)).square() + self.shift.value)

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates for so many tokens."""
        return tokens * (self.up.weight.numel() + self.down.weight.numel())


class BatchFeedForward(nn.Module):
    """Linear(C, hidden), batch norm, ReLU, Linear(hidden, C), batch norm; no biases (EfficientViM)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, hidden, bias=False)
        self.up_norm = GridBatchNorm(hidden)
        self.down = nn.Linear(hidden, dim, bias=False)
        self.down_norm = GridBatchNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C)."""
        return self.down_norm(self.down(F.relu(self.up_norm(self.up(x)))))

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates for so many tokens."""
        return tokens * (self.up.weight.numel() + self.down.weight.numel())


def padded(x: Tensor, multiple: int) -> Tensor:
    """The grid x (B, H, W, C) with zeros below and to the right, so that `multiple` divides both sides."""
    rows, columns = -x.shape[1] % multiple, -x.shape[2] % multiple
    return F.pad(x, (0, 0, 0, columns, 0, rows)) if rows or columns else x


def reduced(grid: tuple[int, int], stride: int) -> tuple[int, int]:
    """The grid that a map of that stride makes of a grid: both sides are rounded up."""
    return -(-grid[0] // stride), -(-grid[1] // stride)
