"""Log-linear attention as it is written down: loops over pairs of tokens, differentiated by autograd."""

from __future__ import annotations

import torch
from torch import Tensor


def log_linear(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, scales: Tensor) -> Tensor:
    """The outputs y (B, N, H, V); arguments as in `operators.linear.levels.log_linear`."""
    heads, groups = v.shape[2], q.shape[2]
    q, k = (shared.repeat_interleave(heads // groups, dim=2) for shared in (q, k))
    outputs = []
    for t in range(v.shape[1]):
        total = torch.zeros_like(v[:, 0])
        for s in range(t + 1):
            kept = log_decay[:, s + 1 : t + 1].sum(1).exp() * (q[:, t] * k[:, s]).sum(-1)
            total = total + (scales[:, t, :, (t ^ s).bit_length()] * kept)[..., None] * v[:, s]
        outputs.append(total)
    return torch.stack(outputs, dim=1)
