"""The selective scan as it is written down: a loop over steps, differentiated by autograd."""

from __future__ import annotations

import torch
from torch import Tensor


def scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Output y (B, D, L) and the last state (B, D, S); arguments as in `operators.scan.ops.scan`."""
    channels, length = u.shape[1:]
    B, C = (shared.repeat_interleave(channels // shared.shape[1], dim=1) for shared in (B, C))
    h, outputs = initial, []
    for t in reversed(range(length)) if reverse else range(length):
        step = delta[:, :, t, None]
        h = torch.exp(step * A) * h + step * u[:, :, t, None] * B[..., t]
        outputs.append((C[..., t] * h).sum(-1))
    return torch.stack(outputs[::-1] if reverse else outputs, dim=-1), h
