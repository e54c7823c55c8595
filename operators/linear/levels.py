"""Log-linear attention (arXiv 2506.04761): a decayed recurrence whose past is split into blocks, each with its weight.

With tokens numbered from 0, the level of a pair s < t is the number of bits of t xor s, and 0 for s = t. Token t then
sees at level l one block of 2^(l−1) tokens, or none, and all its levels together are its past. With scales λ_t^(l)

    y_t = Σ_{s≤t} λ_t^(level(t, s)) exp(c_t − c_s) q_tᵀ k_s v_s,   c_t = log a_1 + … + log a_t

Inside a chunk the sum is computed as written; the larger levels pass a state from the first half of every 2^l tokens to
the second. Time is O(N log N). Nothing overflows, as in `operators.linear.decayed`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from operators.linear.decayed import ends, exact_sums, pair_sums
from operators.precision import full_precision, wide

CHUNK = 64
"""Tokens of a chunk, or the power of two that holds all of them if that is less."""
MOST_BITS = 32
"""Of a place in a sequence."""


def levels(tokens: int) -> int:
    """How many levels a sequence has."""
    return (tokens - 1).bit_length() + 1


def level_macs(tokens: int, heads: int, groups: int, key: int, value: int) -> int:
    """MACs of `log_linear` for one sequence."""
    padded = 1 << (tokens - 1).bit_length()
    length = min(CHUNK, padded)
    within = padded * length * (groups * key + heads * value)
    return within + (padded // length - 1).bit_length() * padded * heads * key * value


def pair_levels(t: Tensor, s: Tensor) -> Tensor:
    """Levels, int64, of pairs of places t and s, int64: the number of bits of t xor s."""
    # Counted in int64 throughout: frexp gives int32, which Inductor cannot widen on every processor (torch 2.13).
    powers = 1 << torch.arange(MOST_BITS, device=t.device)
    return ((t ^ s)[..., None] >= powers).sum(-1)


def log_linear(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, scales: Tensor) -> Tensor:
    """Log-linear attention with one decay per head.

    Args:
        q: (B, N, G, K); each of the G groups serves H / G neighbouring heads.
        k: like q.
        v: (B, N, H, V).
        log_decay: log a (B, N, H), finite and at most 0.
        scales: λ (B, N, H, L), with L at least `levels(N)`.

    Returns:
        y (B, N, H, V), in at least float32.
    """
    tokens, groups = q.shape[1:3]
    share = v.shape[2] // groups
    padded = 1 << (tokens - 1).bit_length()
    with full_precision(v):
        q, k, v, log_decay, scales = (_padded(t, padded) for t in (q, k, v, log_decay, scales))
        v = v.unflatten(2, (groups, share))
        log_decay, scales = (t.unflatten(2, (groups, share)) for t in (log_decay, scales))
        length = min(CHUNK, padded)
        y = _within_chunks(q, k, v, log_decay, scales, length)
        half = length
        while half < padded:
            y = y + _across_halves(q, k, v, log_decay, scales[..., half.bit_length()], half)
            half *= 2
        return y.flatten(2, 3)[:, :tokens]


def _padded(tensor: Tensor, tokens: int) -> Tensor:
    tensor = tensor.to(wide(tensor.dtype))
    return F.pad(tensor, (0, 0) * (tensor.ndim - 2) + (0, tokens - tensor.shape[1]))


def _within_chunks(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, scales: Tensor, length: int) -> Tensor:
    """What tokens read of those of their chunk, (B, N, G, H/G, V)."""
    q, k, v, log_decay, scales = (t.unflatten(1, (-1, length)) for t in (q, k, v, log_decay, scales))
    kept = pair_sums(exact_sums(log_decay.movedim(2, -1)), reverse=False).to(v.dtype).exp()  # (B, chunks, G, H/G, T, T)
    place = torch.arange(length, device=v.device)
    at_level = pair_levels(place[:, None], place).expand(*kept.shape)
    weights = kept * scales.movedim(2, 4).gather(-1, at_level)
    scores = (q.transpose(2, 3) @ k.transpose(2, 3).mT)[:, :, :, None] * weights
    return (scores @ v.movedim(2, 4)).movedim(4, 2).flatten(1, 2)


def _across_halves(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, scale: Tensor, half: int) -> Tensor:
    """What the second half of every 2 · half tokens reads of the first, (B, N, G, H/G, V), through one state."""
    share, value = v.shape[3:]
    (_, q), (k, _), (v, _), (first, second), (_, scale) = (
        t.unflatten(1, (-1, 2, half)).unbind(2) for t in (q, k, v, log_decay, scale)
    )
    leaving = ends(exact_sums(first.movedim(2, -1)), reverse=False)[1].to(v.dtype).movedim(-1, 2)
    entering = second.cumsum(2).exp() * scale
    state = k.movedim(2, -1) @ (v * leaving.exp()[..., None]).flatten(4).transpose(2, 3)  # (B, pairs, G, K, H/G · V)
    read = (q.transpose(2, 3) @ state).transpose(2, 3).unflatten(-1, (share, value)) * entering[..., None]
    return F.pad(read, (0, 0) * 3 + (half, 0)).flatten(1, 2)
