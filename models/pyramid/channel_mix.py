"""The feed-forward network of Vision-RWKV, which mixes each token with its neighbours first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.initialisation import PowerRamp
from operators.mixers.linear.vision_rwkv import shifted

POWER = 0.5
"""Of the ramp by which channels are mixed: that of the released models halfway through their depth."""


class ChannelMix(nn.Module):
    """σ(Linear(x_r)) Linear(ReLU(Linear(x_k))²) without biases, x_k and x_r = μ x + (1 − μ) x' (arXiv 2403.02308).

    x' is the token to the left, right, above or below, by quarters of the channels; beyond the border it is zero.

    Args:
        dim: channels C.
        hidden: inner width.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)
        self.receptance = nn.Linear(dim, dim, bias=False)
        self.mix_key, self.mix_gate = PowerRamp(dim, POWER), PowerRamp(dim, POWER)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C)."""
        near = shifted(x)
        to_key, to_gate = (
            torch.lerp(near, x, mix.value.to(x.dtype).expand_as(x)) for mix in (self.mix_key, self.mix_gate)
        )
        return torch.sigmoid(self.receptance(to_gate)) * self.down(F.relu(self.up(to_key)).square())

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates for so many tokens."""
        return tokens * sum(linear.weight.numel() for linear in (self.up, self.down, self.receptance))
