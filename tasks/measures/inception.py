"""The Inception network of FID: Inception v3 (arXiv 1512.00567) as TensorFlow published it in December 2015.

It differs from the paper's, and the weights know: average pools do not count their padding, the last block takes a
maximum instead of an average, and images are enlarged by TensorFlow 1's bilinear rule. Modules bear the names of the
weight file's entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 299
Layer = tuple[str, int, int | tuple[int, int]]


class InceptionConv(nn.Module):
    """Convolution, batch norm, ReLU. Kernels of odd size keep the grid unless `padded` is False."""

    def __init__(
        self, channels: int, out: int, kernel: int | tuple[int, int], *, stride: int = 1, padded: bool = True
    ) -> None:
        super().__init__()
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (rows // 2, columns // 2) if padded else 0
        self.conv = nn.Conv2d(channels, out, (rows, columns), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


@dataclass(frozen=True)
class InceptionBranch:
    """One path through a block: a pool, layers in a row, layers side by side on what these give.

    Attributes:
        layers: (name, channels, kernel) of each.
        pool: average or max (both 3×3, same grid), or halve (the maximum of 3×3, every second position).
        fork: (name, channels, kernel) of layers whose outputs are joined.
        halve: the last of `layers` has stride 2 and no padding.
    """

    layers: Sequence[Layer] = ()
    pool: str | None = None
    fork: Sequence[Layer] = ()
    halve: bool = False


class InceptionBlock(nn.Module):
    """Branches side by side, their channels joined in order."""

    def __init__(self, channels: int, *branches: InceptionBranch) -> None:
        super().__init__()
        self.branches = branches
        self.channels = 0
        for branch in branches:
            width = channels
            for i, (name, out, kernel) in enumerate(branch.layers):
                halve = branch.halve and i == len(branch.layers) - 1
                self.add_module(name, InceptionConv(width, out, kernel, stride=2 if halve else 1, padded=not halve))
                width = out
            for name, out, kernel in branch.fork:
                self.add_module(name, InceptionConv(width, out, kernel))
            self.channels += sum(out for _, out, _ in branch.fork) or width

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part for branch in self.branches for part in self._through(branch, x)], dim=1)

    def _through(self, branch: InceptionBranch, x: Tensor) -> list[Tensor]:
        if branch.pool == "average":
            x = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        elif branch.pool == "max":
            x = F.max_pool2d(x, 3, stride=1, padding=1)
        elif branch.pool == "halve":
            x = F.max_pool2d(x, 3, stride=2)
        for name, _, _ in branch.layers:
            x = self.get_submodule(name)(x)
        return [self.get_submodule(name)(x) for name, _, _ in branch.fork] or [x]


def _grid35(channels: int, pooled: int) -> InceptionBlock:
    return InceptionBlock(
        channels,
        InceptionBranch([("branch1x1", 64, 1)]),
        InceptionBranch([("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)]),
        InceptionBranch([("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)]),
        InceptionBranch([("branch_pool", pooled, 1)], pool="average"),
    )


def _to_grid17(channels: int) -> InceptionBlock:
    return InceptionBlock(
        channels,
        InceptionBranch([("branch3x3", 384, 3)], halve=True),
        InceptionBranch([("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)], halve=True),
        InceptionBranch(pool="halve"),
    )


def _grid17(channels: int, width: int) -> InceptionBlock:
    row, column = (1, 7), (7, 1)
    single: list[Layer] = [("branch7x7_1", width, 1), ("branch7x7_2", width, row), ("branch7x7_3", 192, column)]
    double: list[Layer] = [
        ("branch7x7dbl_1", width, 1),
        ("branch7x7dbl_2", width, column),
        ("branch7x7dbl_3", width, row),
        ("branch7x7dbl_4", width, column),
        ("branch7x7dbl_5", 192, row),
    ]
    pooled = InceptionBranch([("branch_pool", 192, 1)], pool="average")
    return InceptionBlock(
        channels, InceptionBranch([("branch1x1", 192, 1)]), InceptionBranch(single), InceptionBranch(double), pooled
    )


def _to_grid8(channels: int) -> InceptionBlock:
    separable: list[Layer] = [("branch7x7x3_1", 192, 1), ("branch7x7x3_2", 192, (1, 7)), ("branch7x7x3_3", 192, (7, 1))]
    return InceptionBlock(
        channels,
        InceptionBranch([("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3)], halve=True),
        InceptionBranch([*separable, ("branch7x7x3_4", 192, 3)], halve=True),
        InceptionBranch(pool="halve"),
    )


def _grid8(channels: int, pool: str) -> InceptionBlock:
    def fork(name: str) -> list[Layer]:
        return [(f"{name}a", 384, (1, 3)), (f"{name}b", 384, (3, 1))]

    return InceptionBlock(
        channels,
        InceptionBranch([("branch1x1", 320, 1)]),
        InceptionBranch([("branch3x3_1", 384, 1)], fork=fork("branch3x3_2")),
        InceptionBranch([("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3)], fork=fork("branch3x3dbl_3")),
        InceptionBranch([("branch_pool", 192, 1)], pool=pool),
    )


class Inception(nn.Module):
    """Pixels (B, 3, H, W) in [0, 255] → the 2048 features (B, 2048) that FID compares."""

    num_features = 2048

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = InceptionConv(3, 32, 3, stride=2, padded=False)
        self.Conv2d_2a_3x3 = InceptionConv(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = InceptionConv(32, 64, 3)
        self.Conv2d_3b_1x1 = InceptionConv(64, 80, 1)
        self.Conv2d_4a_3x3 = InceptionConv(80, 192, 3, padded=False)
        self.Mixed_5b = _grid35(192, 32)
        self.Mixed_5c = _grid35(256, 64)
        self.Mixed_5d = _grid35(288, 64)
        self.Mixed_6a = _to_grid17(288)
        self.Mixed_6b = _grid17(768, 128)
        self.Mixed_6c = _grid17(768, 160)
        self.Mixed_6d = _grid17(768, 160)
        self.Mixed_6e = _grid17(768, 192)
        self.Mixed_7a = _to_grid8(768)
        self.Mixed_7b = _grid8(1280, "average")
        self.Mixed_7c = _grid8(2048, "max")

    def forward(self, pixels: Tensor) -> Tensor:
        x = (enlarge(pixels, SIDE) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        x = F.max_pool2d(x, 3, stride=2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean((2, 3))


def enlarge(images: Tensor, side: int) -> Tensor:
    """TensorFlow 1's bilinear rule: output i reads position i · size / side, the first pixel's centre at 0.

    Args:
        images: (B, C, H, W).
        side: of the square result (B, C, side, side).
    """
    rows, columns = (_weights(size, side).to(images) for size in images.shape[-2:])
    return rows @ images @ columns.T


def _weights(size: int, side: int) -> Tensor:
    """Matrix (side, size) that interpolates linearly; positions past the last pixel take its value."""
    position = torch.arange(side, dtype=torch.float64) * size / side
    low = position.floor().long()
    part = (position - low)[:, None]
    eye = torch.eye(size, dtype=torch.float64)
    return (1 - part) * eye[low] + part * eye[(low + 1).clamp(max=size - 1)]
