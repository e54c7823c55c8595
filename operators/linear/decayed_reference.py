"""The decayed recurrence as it is written down: a loop over tokens, differentiated by autograd."""

from __future__ import annotations

import torch
from torch import Tensor


def recurrence(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, *, reverse: bool = False, initial: Tensor | None = None
) -> Tensor:
    """The outputs y (B, N, H, V) of S_t = diag(exp(log_decay_t)) S_{t-1} + k_t v_tᵀ, y_t = q_tᵀ S_t.

    Args:
        q: (B, N, G, K); each of the G groups serves H / G neighbouring heads.
        k: like q.
        v: (B, N, H, V).
        log_decay: (B, N, H), or (B, N, H, K) where every key channel has a decay of its own.
        reverse: whether the last token comes first.
        initial: (B, H, K, V), the state before the first token that is read; zero without.
    """
    heads, groups = v.shape[2], q.shape[2]
    q, k = (shared.repeat_interleave(heads // groups, dim=2) for shared in (q, k))
    decay = (log_decay if log_decay.ndim == 4 else log_decay[..., None]).exp()
    state = v.new_zeros(v.shape[0], heads, q.shape[-1], v.shape[-1]) if initial is None else initial
    outputs = []
    for t in reversed(range(v.shape[1])) if reverse else range(v.shape[1]):
        state = decay[:, t, :, :, None] * state + k[:, t, :, :, None] * v[:, t, :, None]
        outputs.append((q[:, t, :, :, None] * state).sum(2))
    return torch.stack(outputs[::-1] if reverse else outputs, dim=1)
