"""Log-linear attention as it is written down: a loop over tokens, differentiated by autograd."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def log_linear(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, scales: Tensor) -> Tensor:
    """The outputs y (B, N, H, V); arguments as in `operators.linear.levels.log_linear`."""
    heads, groups = v.shape[2], q.shape[2]
    q, k = (shared.repeat_interleave(heads // groups, dim=2) for shared in (q, k))
    outputs = []
    for t in range(v.shape[1]):
        since = F.pad(log_decay[:, 1 : t + 1].flip(1).cumsum(1).flip(1), (0, 0, 0, 1))
        levels = [(t ^ s).bit_length() for s in range(t + 1)]
        kept = scales[:, t, :, levels].mT * since.exp() * (q[:, t, None] * k[:, : t + 1]).sum(-1)
        outputs.append((kept[..., None] * v[:, : t + 1]).sum(1))
    return torch.stack(outputs, dim=1)
