"""Heads and rotary positions, which mixers of several families share."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.errors import InputError, check_number
from operators.mixers.positions import axial_angles, turn

HEAD_WIDTH = 64
ROPE_BASE = 100.0


def divisors(number: int) -> list[int]:
    """The divisors of `number`, ascending."""
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


def default_heads(width: int, head_width: int = HEAD_WIDTH) -> int:
    """The divisor of `width` nearest to width/64, the larger one on a tie: 3, 6, 12 heads for DeiT-Ti, S, B."""
    return min(divisors(width), key=lambda heads: (abs(heads - width / head_width), -heads))


def check_heads(heads: int, width: int, what: str = "mixer.heads") -> None:
    """Raise `InputError` unless `heads` divides `width`; names the divisors on either side."""
    check_number(what, heads, least=1, integer=True)
    if width % heads:
        below = [str(divisor) for divisor in divisors(width) if divisor < heads][-1:]
        above = [str(divisor) for divisor in divisors(width) if divisor > heads][:1]
        near = " and ".join(below + above)
        raise InputError(f"{what}={heads} must divide the width {width}; nearest: {near}")


def rope_angles(*grid: int, head_width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Angles (tokens, d/2), in radians, by which the channel pairs of a head of width d turn at each token of a grid.

    Of a grid with a axes, the first d/(2a) pairs turn with the place along the first axis, the next with that along the
    second, and so on, at 100^(−t/(d/2a)) radians per token, t = 0 … d/(2a) − 1 (axial RoPE for vision transformers,
    arXiv 2403.13298).
    """
    share = head_width // (2 * len(grid))
    frequency = ROPE_BASE ** (-torch.arange(share, device=device, dtype=dtype) / share)
    return axial_angles(*grid, frequency=frequency)


def rotate(q: Tensor, angles: Tensor) -> Tensor:
    """Turn channel pairs (i, i + d/2) of q (B, N, heads, d) by angles (N, d/2)."""
    return turn(q.to(angles.dtype), angles[:, None])
