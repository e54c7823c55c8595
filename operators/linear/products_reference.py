"""Linear attention by its N × N map: plain, and with memory for all pairs of tokens."""

from __future__ import annotations

from torch import Tensor


def mixing_map(q: Tensor, k: Tensor) -> Tensor:
    """(q_i · k_j) / N, (…, N, N): the map of `operators.linear.products.mixed`."""
    return q @ k.mT / k.shape[-2]


def averaging_map(q: Tensor, k: Tensor, eps: float | Tensor) -> Tensor:
    """The same over its rows' sums + ε, (…, N, N): the map of `operators.linear.products.averaged`.

    ε is one number, or one for each row (…, N, 1).
    """
    weights = mixing_map(q, k)
    return weights / (weights.sum(-1, keepdim=True) + eps)
