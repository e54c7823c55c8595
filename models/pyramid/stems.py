"""What turns images into the tokens of a pyramid's first stage.

Every stem maps images (B, in_channels, H, W) to tokens (B, ⌈H / s⌉, ⌈W / s⌉, C), s its stride: where s does not divide
a side, zeros beyond the border below and to the right make it up.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from models.pyramid.parts import NORM_LAYERS, GridBatchNorm, GridConv, TokenLinear, padded, reduced
from models.pyramid.spec import PyramidSpec
from operators.errors import InputError


class Stem(nn.Module):
    """Base class of the stems; a subclass fills `layers`, through which tokens go one after the other.

    Args:
        in_channels: of the images.
        stride: pixels between tokens.
    """

    def __init__(self, in_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels, self.stride = in_channels, stride
        self.layers = nn.ModuleList()

    def forward(self, images: Tensor) -> Tensor:
        """Tokens (B, ⌈H / s⌉, ⌈W / s⌉, C) of images (B, in_channels, H, W).

        Raises:
            InputError: another number of axes or channels.
        """
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise InputError(f"the model takes images (B, {self.in_channels}, H, W), not {tuple(images.shape)}")
        x = images.movedim(1, -1)
        for layer in self.layers:
            x = layer(x)
        return x

    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates for one image of height × width pixels."""
        total, grid = 0, (height, width)
        for layer in self.layers:
            convolutions = [part for part in layer.modules() if isinstance(part, GridConv | TokenLinear)]
            for part in convolutions:
                grid = reduced(grid, part.stride[0] if isinstance(part, GridConv) else 1)
                total += part.macs(grid[0] * grid[1])
            if isinstance(layer, Squares):
                grid = reduced(grid, layer.side)
        return total


class Squares(nn.Module):
    """Cuts a grid into squares: (B, H, W, C) becomes (B, ⌈H / side⌉, ⌈W / side⌉, C side²), channels first in order."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C)."""
        x = padded(x, self.side)
        batch, height, width, channels = x.shape
        cut = x.reshape(batch, height // self.side, self.side, width // self.side, self.side, channels)
        return cut.permute(0, 1, 3, 5, 2, 4).flatten(3)


class Padding(nn.Module):
    """Zeros below and to the right of a grid, so that `multiple` divides its sides."""

    def __init__(self, multiple: int) -> None:
        super().__init__()
        self.multiple = multiple

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C)."""
        return padded(x, self.multiple)


class ConvNorm(nn.Module):
    """A convolution without bias, a batch norm and, if asked for, `relu`, `gelu` or `gelu_tanh`."""

    def __init__(
        self, in_channels: int, channels: int, kernel: int = 3, *, stride: int = 1, depthwise: bool = False,
        bias: bool = False, activation: str = "none", eps: float = 1e-5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = GridConv(in_channels, channels, kernel, stride=stride, depthwise=depthwise, bias=bias)
        self.norm = GridBatchNorm(channels, eps=eps)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C)."""
        x = self.norm(self.conv(x))
        if self.activation == "none":
            return x
        if self.activation == "relu":
            return F.relu(x)
        return F.gelu(x, approximate="tanh" if self.activation == "gelu_tanh" else "none")


class ResidualPair(nn.Module):
    """x + two 3 × 3 convolutions of x with batch norms, ReLU between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first = ConvNorm(dim, dim, activation="relu")
        self.second = ConvNorm(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C)."""
        return x + self.second(self.first(x))


def create_stem(spec: PyramidSpec, in_channels: int) -> Stem:
    """The stem that `spec` asks for, for images of so many channels."""
    dim, stride, half = spec.dims[0], spec.patch, max(1, spec.dims[0] // 2)
    stem = Stem(in_channels, stride)

    def norm(width: int) -> nn.Module:
        return NORM_LAYERS[spec.stem_norm](width, spec.eps)

    layers: list[nn.Module]
    match spec.stem:
        case "patch":
            layers = [Squares(stride), TokenLinear(in_channels * stride**2, dim), norm(dim)]
        case "conv7":
            conv = GridConv(in_channels, dim, 7, stride=stride, padding=(8 - stride) // 2)
            layers = [Padding(stride), conv, norm(dim)]
        case "two":
            first = GridConv(in_channels, half, stride=min(stride, 2))
            second = GridConv(half, dim, stride=max(1, stride // 2))
            layers = [first, norm(half), nn.GELU(), second, norm(dim)]
        case "four":
            strides = (2, 1, 1, stride // 2)
            around = [(in_channels, half), (half, half), (half, half), (half, dim)]
            layers = [
                ConvNorm(*channels, stride=step, bias=True, activation="gelu" if last < 3 else "none")
                for last, (channels, step) in enumerate(zip(around, strides, strict=True))
            ]
        case "mila":
            layers = [
                ConvNorm(in_channels, half, stride=2, activation="relu"),
                ResidualPair(half),
                ConvNorm(half, 4 * dim, stride=2, activation="relu"),
                ConvNorm(4 * dim, dim, 1),
            ]
        case "fast":
            layers = [
                ConvNorm(in_channels, 32, stride=2, activation="relu", eps=1e-4),
                ConvNorm(32, dim, stride=2, activation="relu", eps=1e-4),
            ]
        case _:
            widths = (in_channels, *(max(1, dim // part) for part in (8, 4, 2, 1)))
            layers = [
                ConvNorm(*channels, stride=2, activation="relu" if last < 3 else "none")
                for last, channels in enumerate(pairwise(widths))
            ]
    stem.layers.extend(layers)
    return stem
