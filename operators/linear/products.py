"""Products of linear attention over all tokens at once, without an order, in the cheaper of their two associations.

For one head with features q, k (…, N, d) and values v (…, N, e); `operators.linear.products_reference` writes the same
with the N × N map:

    summed:   y_i = Σ_j (q_i · k_j) v_j
    mixed:    y_i = (1/N) Σ_j (q_i · k_j) v_j
    averaged: y_i = Σ_j (q_i · k_j) v_j / (Σ_j q_i · k_j + N ε)

Queries may be those of other tokens: N, by which `mixed` and `averaged` divide, is the number of keys.
"""

from __future__ import annotations

from torch import Tensor


def by_pairs(queries: int, keys: int, features: int, values: int) -> bool:
    """Whether (q kᵀ) v takes fewer operations than q (kᵀ v)."""
    return queries * keys * (features + values) < (queries + keys) * features * values


def summed(q: Tensor, k: Tensor, v: Tensor, factor: float = 1.0) -> Tensor:
    """The sum over tokens of (q · k) v, times a factor, (…, N, e)."""
    if by_pairs(q.shape[-2], k.shape[-2], k.shape[-1], v.shape[-1]):
        return (q @ k.mT * factor) @ v
    return q @ (k.mT @ v * factor)


def mixed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The mean over tokens of (q · k) v, (…, N, e): its state keeps its size for any number of tokens."""
    return summed(q, k, v, 1 / k.shape[-2])


def mass(q: Tensor, k: Tensor) -> Tensor:
    """The mean over tokens of q · k, (…, N, 1)."""
    return q @ k.mean(-2, keepdim=True).mT


def averaged(q: Tensor, k: Tensor, v: Tensor, eps: float) -> Tensor:
    """Means of v with the weights q · k, (…, N, e); ε is added to the mean weight."""
    return mixed(q, k, v) / (mass(q, k) + eps)


def present(k: Tensor, mask: Tensor | None) -> Tensor:
    """Keys (…, N, d) by which products weigh tokens of a mask (…, N, 1) alone, with the number of those for N."""
    if mask is None:
        return k
    return k.masked_fill(~mask, 0) * (mask.shape[-2] / mask.sum(-2, keepdim=True).to(k.dtype))


def product_macs(tokens: int, features: int, values: int, keys: int | None = None) -> int:
    """MACs of `summed` or `mixed` for one head; with `keys`, where so many tokens are read by others."""
    keys = tokens if keys is None else keys
    if by_pairs(tokens, keys, features, values):
        return tokens * keys * (features + values)
    return (tokens + keys) * features * values
