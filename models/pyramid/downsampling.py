"""What halves the grid between two stages of a pyramid: (B, H, W, C) becomes (B, ⌈H / 2⌉, ⌈W / 2⌉, C')."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.pyramid.parts import NORM_LAYERS, GridConv, TokenLinear, padded, reduced
from models.pyramid.spec import PyramidSpec
from models.pyramid.stems import ConvNorm


class Downsampling(nn.Module):
    """Base class of all that halves grids: a subclass says what it makes of a grid and what that costs."""

    def macs(self, grid: tuple[int, int]) -> int:
        """Multiply-accumulates for one image whose grid was `grid` before."""
        raise NotImplementedError


class ConvDown(Downsampling):
    """A 3 × 3 convolution of stride 2, with a norm before or behind it or none."""

    def __init__(self, spec: PyramidSpec, dim: int, out_dim: int) -> None:
        super().__init__()
        before = spec.norm if spec.down_norm == "pre" else "none"
        behind = {"post": spec.norm, "batch": "batch"}.get(spec.down_norm, "none")
        self.pre_norm = NORM_LAYERS[before](dim, spec.eps)
        self.conv = GridConv(dim, out_dim, stride=2, bias=spec.down_bias)
        self.norm = NORM_LAYERS[behind](out_dim, spec.eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C)."""
        return self.norm(self.conv(self.pre_norm(x)))

    def macs(self, grid: tuple[int, int]) -> int:
        rows, columns = reduced(grid, 2)
        return self.conv.macs(rows * columns)


class PatchMerging(Downsampling):
    """Linear(LN(the 2 × 2 tokens of a square side by side)), without bias (Swin, arXiv 2103.14030, section 3.1)."""

    def __init__(self, spec: PyramidSpec, dim: int, out_dim: int) -> None:
        super().__init__()
        self.norm = NORM_LAYERS[spec.norm](4 * dim, spec.eps)
        self.linear = TokenLinear(4 * dim, out_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C)."""
        x = padded(x, 2)
        parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.linear(self.norm(torch.cat(parts, dim=-1)))

    def macs(self, grid: tuple[int, int]) -> int:
        rows, columns = reduced(grid, 2)
        return self.linear.macs(rows * columns)


class InvertedDown(Downsampling):
    """Linear to 4 C', ReLU, depthwise 3 × 3 of stride 2, ReLU, linear to C', batch norm (MILA)."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, 4 * out_dim)
        self.conv = GridConv(4 * out_dim, 4 * out_dim, stride=2, depthwise=True)
        self.down = ConvNorm(4 * out_dim, out_dim, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C)."""
        return self.down(F.relu(self.conv(F.relu(self.up(x)))))

    def macs(self, grid: tuple[int, int]) -> int:
        rows, columns = reduced(grid, 2)
        inside = self.conv.macs(rows * columns) + self.down.conv.macs(rows * columns)
        return grid[0] * grid[1] * self.up.weight.numel() + inside


class SqueezeDown(Downsampling):
    """`InvertedDown` with batch norms and squeeze-and-excitation, between two depthwise residuals (EfficientViM)."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        inner, squeezed = 4 * out_dim, out_dim
        self.before = ConvNorm(dim, dim, depthwise=True)
        self.up = ConvNorm(dim, inner, 1, activation="relu")
        self.conv = ConvNorm(inner, inner, stride=2, depthwise=True, activation="relu")
        self.squeeze = nn.Linear(inner, squeezed)
        self.excite = nn.Linear(squeezed, inner)
        self.down = ConvNorm(inner, out_dim, 1)
        self.behind = ConvNorm(out_dim, out_dim, depthwise=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C)."""
        x = x + self.before(x)
        z = self.conv(self.up(x))
        attention = self.excite(F.relu(self.squeeze(z.mean(dim=(1, 2), keepdim=True))))
        z = self.down(z * attention.sigmoid())
        return z + self.behind(z)

    def macs(self, grid: tuple[int, int]) -> int:
        before, (rows, columns) = grid[0] * grid[1], reduced(grid, 2)
        wide = self.before.conv.macs(before) + self.up.conv.macs(before)
        narrow = sum(part.conv.macs(rows * columns) for part in (self.conv, self.down, self.behind))
        return wide + narrow + self.squeeze.weight.numel() + self.excite.weight.numel()


def create_down(spec: PyramidSpec, dim: int, out_dim: int) -> Downsampling:
    """What `spec` puts between a stage of width `dim` and one of width `out_dim`."""
    if spec.down == "conv":
        return ConvDown(spec, dim, out_dim)
    if spec.down == "merge":
        return PatchMerging(spec, dim, out_dim)
    return InvertedDown(dim, out_dim) if spec.down == "mila" else SqueezeDown(dim, out_dim)
