"""The delta rule as it is written down: a loop over tokens and their writes, differentiated by autograd."""

from __future__ import annotations

import torch
from torch import Tensor


def recurrence(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None = None, initial: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The outputs y (B, N, H, V) of `operators.linear.delta.delta_rule`, and the state after every token.

    The states are (B, N, H, K, V).
    """
    batch, tokens, heads, key = q.shape
    writes = k.shape[1] // tokens
    state = v.new_zeros(batch, heads, key, v.shape[-1]) if initial is None else initial.to(v.dtype)
    outputs, states = [], []
    for t in range(tokens):
        if log_decay is not None:
            decay = log_decay[:, t].exp()
            state = state * (decay[..., None] if log_decay.ndim == 4 else decay[..., None, None])
        for s in range(t * writes, (t + 1) * writes):
            held = (state * k[:, s, :, :, None]).sum(-2)
            state = state + k[:, s, :, :, None] * (beta[:, s, :, None] * (v[:, s] - held))[..., None, :]
        outputs.append((state * q[:, t, :, :, None]).sum(-2))
        states.append(state)
    return torch.stack(outputs, 1), torch.stack(states, 1)
