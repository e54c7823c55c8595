"""Position embeddings on a grid: what tells a token where it is. Each module maps (B, H, W, C) to (B, H, W, C).

Both kinds serve every grid, in coordinates fixed by the nominal grid (h0, w0): the centre of row i of H has the
coordinate (i + 1/2) h0 / H - 1/2, columns alike. The same point of the picture thus has the same coordinate at every
resolution, and at the nominal grid coordinates are 0, 1, 2, …
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.spec import POSITIONS
from operators.errors import InputError, check_choice


class SinCosPositions(nn.Module):
    """Adds fixed sines and cosines (arXiv 1706.03762, section 3.5; in two dimensions, arXiv 2205.01580).

    The first half of the channels encodes the row, the second the column; each half is sin(c ω_k), then cos(c ω_k),
    with ω_k = 10000^(-k / (C/4)), k = 0 … C/4 - 1, and c the coordinate of the module's docstring.
    """

    def __init__(self, dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        if dim % 4:
            raise InputError(
                f"model.dim={dim} must be a multiple of 4 with model.positions='sincos'; did you mean {dim + -dim % 4}?"
            )
        self.dim = dim
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, H, W, C) plus the embedding of each of its tokens."""
        height, width = x.shape[1:3]
        rows = self._axis(height, self.grid[0], x.device)[:, None].expand(-1, width, -1)
        columns = self._axis(width, self.grid[1], x.device)[None].expand(height, -1, -1)
        return x + torch.cat((rows, columns), dim=-1).to(x.dtype)

    def _axis(self, length: int, nominal: int, device: torch.device) -> Tensor:
        """Embedding (length, C/2) of one axis, in float32."""
        count = self.dim // 4
        coordinates = (torch.arange(length, device=device, dtype=torch.float32) + 0.5) * (nominal / length) - 0.5
        steps = torch.arange(count, device=device, dtype=torch.float32)
        angles = coordinates[:, None] * torch.exp(steps * (-math.log(10000.0) / count))
        return torch.cat((angles.sin(), angles.cos()), dim=-1)


class LearnedPositions(nn.Module):
    """Adds a learned vector per token of the nominal grid; on other grids the table is interpolated, in float32.

    Interpolation is bicubic in the coordinates of the module's docstring (half-pixel centres), with a wider kernel on
    coarser grids (antialiasing), as timm does for ViTs.
    """

    def __init__(self, dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(*grid, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, H, W, C) plus the embedding of each of its tokens."""
        table: Tensor = self.table
        grid = (x.shape[1], x.shape[2])
        if grid != tuple(table.shape[:2]):
            planes = table.float().movedim(-1, 0)[None]
            table = F.interpolate(planes, grid, mode="bicubic", align_corners=False, antialias=True)[0].movedim(0, -1)
        return x + table.to(x.dtype)


def create(kind: str, dim: int, grid: tuple[int, int]) -> nn.Module:
    """The position embedding `kind` for `dim` channels on the nominal `grid`; `none` passes tokens through.

    Raises:
        InputError: unknown kind, or a `dim` that `sincos` cannot split.
    """
    check_choice("model.positions", kind, POSITIONS)
    if kind == "sincos":
        return SinCosPositions(dim, grid)
    return LearnedPositions(dim, grid) if kind == "learned" else nn.Identity()
