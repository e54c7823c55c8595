"""The feed-forward network of U-DiT (arXiv 2405.02730): depthwise convolutions, and products of maps in training."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from models.pyramid.parts import GridConv


class ConvFeedForward(nn.Module):
    """Linear(Linear(g + DW_5(g) + DW_3(g) + DW_1(g))), g = GELU(Linear(Linear(x))); C wide between two linear maps.

    After training, the three convolutions and the residual are one, and so are two linear maps after one another: as
    in `FeedForward` of YuchuanTian/U-DiT at 7fcce5e (`udit_models.py`), where the inner width is 2 C.

    Args:
        dim: channels C.
        hidden: inner width.
        gelu: `exact`, or its `tanh` approximation.
    """

    def __init__(self, dim: int, hidden: int, gelu: str = "exact") -> None:
        super().__init__()
        self.approximate = "tanh" if gelu == "tanh" else "none"
        self.up = nn.Sequential(nn.Linear(dim, dim), nn.Linear(dim, hidden))
        self.convs = nn.ModuleList(GridConv(hidden, hidden, kernel, depthwise=True) for kernel in (5, 3, 1))
        self.down = nn.Sequential(nn.Linear(hidden, dim), nn.Linear(dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C)."""
        z = F.gelu(self.up(x), approximate=self.approximate)
        five, three, one = self.convs
        return self.down(z + five(z) + three(z) + one(z))

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates for so many tokens."""
        return tokens * sum(parameter.numel() for name, parameter in self.named_parameters() if name.endswith("weight"))
