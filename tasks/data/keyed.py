"""Random numbers that are a pure function of (seed, epoch, sample index, purpose).

A counter-based generator: nothing is consumed and no state is kept, so a draw does not depend on the batch it is
made in, on the rank, on the worker or on what else is drawn. The mixing function is the finaliser of splitmix64
(Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014), applied once per key part.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Index = npt.NDArray[np.int64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * _FIRST
    value = (value ^ (value >> np.uint64(27))) * _SECOND
    return value ^ (value >> np.uint64(31))


def bits(seed: int, epoch: int | Index, index: Index, purpose: str, n: int = 1) -> npt.NDArray[np.uint64]:
    """`n` independent 64-bit words for each index.

    Args:
        seed: any integer; taken modulo 2^64.
        epoch: one epoch for all, or one per index (B,).
        index: sample indices (B,).
        purpose: name of the stream ("flip", "mix", …); different names are independent.
        n: words per index.

    Returns:
        uint64 array (B, n). Column j does not depend on n.
    """
    name = int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), "little")
    key = np.array([seed % 2**64], dtype=np.uint64)
    for part in (np.array([name], dtype=np.uint64), np.asarray(epoch), np.asarray(index)):
        # int64 → uint64 wraps negative values onto distinct words
        key = _mix((key ^ part.astype(np.uint64)) + _GOLDEN)
    counter = np.arange(1, n + 1, dtype=np.uint64) * _GOLDEN
    return _mix(_mix(key)[:, None] + counter)


def uniform(seed: int, epoch: int | Index, index: Index, purpose: str, n: int = 1) -> npt.NDArray[np.float64]:
    """Uniform numbers in the open interval (0, 1), as float64 (B, n); arguments as in `bits`."""
    words = bits(seed, epoch, index, purpose, n) >> np.uint64(12)
    return (words.astype(np.float64) + 0.5) * 2.0**-52


def normal(seed: int, epoch: int | Index, index: Index, purpose: str, n: int = 1) -> npt.NDArray[np.float64]:
    """Standard normal numbers, as float64 (B, n), by inversion; arguments as in `bits`."""
    import torch  # here, since checking a configuration needs none of it

    draws = torch.from_numpy(uniform(seed, epoch, index, purpose, n))
    return np.asarray(torch.special.ndtri(draws))


def integers(seed: int, epoch: int | Index, index: Index, purpose: str, high: int, n: int = 1) -> npt.NDArray[np.int64]:
    """Integers in [0, high), as int64 (B, n); the bias is below high · 2^-52."""
    return (uniform(seed, epoch, index, purpose, n) * high).astype(np.int64)


def permutation(seed: int, epoch: int, size: int, purpose: str) -> Index:
    """A permutation of `range(size)`, as int64 (size,), keyed by (seed, epoch, purpose)."""
    words = bits(seed, epoch, np.arange(size), purpose)[:, 0]
    return np.argsort(words, kind="stable").astype(np.int64)
