"""What a U-shaped generator has besides its blocks. All map grids (B, H, W, C) unless they say otherwise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.blocks import check_patch
from models.initialisation import StillConv
from models.isotropic.conditioning import ModulatedNorm, Modulation, TimeEmbedding
from models.pyramid.parts import GridConv, TokenLinear
from models.pyramid.stems import Squares
from operators import InputError
from operators.precision import full_precision


class ConvStem(GridConv):
    """A convolution of the patches of images: (B, in_channels, H, W) become tokens (B, H / patch, W / patch, C).

    The numbers of a patch are in the order channel, row, column. `in_channels` is that of the images.
    """

    def __init__(self, in_channels: int, dim: int, patch: int, kernel: int) -> None:
        super().__init__(in_channels * patch**2, dim, kernel)
        self.in_channels = in_channels
        self.squares = Squares(patch)

    def forward(self, images: Tensor) -> Tensor:
        """Tokens of images.

        Raises:
            InputError: another number of axes or channels, or a size that the patch does not divide.
        """
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise InputError(f"the model takes images (B, {self.in_channels}, H, W), not {tuple(images.shape)}")
        check_patch(self.squares.side, (images.shape[2], images.shape[3]))
        return super().forward(self.squares(images.movedim(1, -1)))

    def macs(self, height: int, width: int) -> int:  # type: ignore[override]
        """Multiply-accumulates for one image of height × width pixels."""
        return super().macs(height * width // self.squares.side**2)


class UnshuffledDown(nn.Module):
    """Halves a grid and doubles its channels: a convolution to C / 2, then squares of 2 × 2 tokens become one.

    Where a side is odd, a line of zeros below or on the right makes it even.
    """

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.conv = GridConv(dim, dim // 2, kernel, bias=False)
        self.squares = Squares(2)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C) to (B, ⌈H / 2⌉, ⌈W / 2⌉, 2 C)."""
        return self.squares(self.conv(x))

    def macs(self, grid: tuple[int, int]) -> int:
        """Multiply-accumulates for one image whose grid was `grid` before."""
        return self.conv.macs(grid[0] * grid[1])


class ShuffledUp(nn.Module):
    """Doubles a grid and joins the skip connection: Linear([shuffle(conv(x)) | skip]).

    A convolution to 2 C, every token becomes a square of 2 × 2, of C / 2; lines that the skip connection does not have
    are cut off.

    Args:
        dim: channels C of what comes from below.
        out_dim: channels of what leaves.
        kernel: side of the convolution.
    """

    def __init__(self, dim: int, out_dim: int, kernel: int) -> None:
        super().__init__()
        self.conv = GridConv(dim, 2 * dim, kernel, bias=False)
        self.fuse = TokenLinear(dim, out_dim)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map x (B, H, W, C) and skip (B, 2 H or 2 H - 1, 2 W or 2 W - 1, C / 2) to the grid of `skip`."""
        z = self.conv(x).unflatten(-1, (-1, 2, 2)).permute(0, 1, 4, 2, 5, 3)
        z = z.flatten(3, 4).flatten(1, 2)[:, : skip.shape[1], : skip.shape[2]]
        return self.fuse(torch.cat((z, skip), dim=-1))

    def macs(self, below: tuple[int, int], grid: tuple[int, int]) -> int:
        """Multiply-accumulates for one image whose grid was `below` before and is `grid` now."""
        return self.conv.macs(below[0] * below[1]) + self.fuse.macs(grid[0] * grid[1])


class Condition(nn.Module):
    """A conditioning vector (B, C) from times and labels (B,), each of which has an embedding of its own."""

    def __init__(self, dim: int, labels: int, time_scale: float) -> None:
        super().__init__()
        self.time = TimeEmbedding(dim, time_scale)
        self.label = nn.Embedding(labels, dim)

    def forward(self, time: Tensor, label: Tensor) -> Tensor:
        """The vector, in the parameters' type under autocast too."""
        with full_precision(time):
            return self.time(time) + self.label(label)


class ModulatedConvHead(nn.Module):
    """conv((1 + s) * LN(x) + b), with s, b = Linear(SiLU(c)); convolution and linear layer start at zero."""

    def __init__(self, dim: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.norm = ModulatedNorm(dim)
        self.modulation = Modulation(dim, 2)
        self.conv = StillConv(dim, channels, kernel)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Map x (B, H, W, C) to (B, H, W, channels), given cond (B, C)."""
        # Half precision would round what the solver adds up over its steps; the layer costs next to nothing.
        with full_precision(x):
            return self.conv(self.norm(x, *self.modulation(cond)))

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates for one image of `tokens` tokens."""
        return self.modulation.macs() + tokens * self.conv.weight.numel()
