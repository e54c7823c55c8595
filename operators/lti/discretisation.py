"""From x' = A x + B u to x_t = w x_{t-1} + b u_t, for diagonal complex A, in pairs of real numbers.

    zoh        w = exp(Δ A),                    b = (exp(Δ A) − 1) / A · B      (input constant between samples)
    bilinear   w = (1 + Δ A / 2) / (1 − Δ A / 2),   b = Δ / (1 − Δ A / 2) · B   (trapezoidal rule)

Both have |w| < 1 where A has a negative real part.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

RULES = ("zoh", "bilinear")
SMALLEST = 1e-30
"""Least |w|² of the bilinear rule, whose w may be zero, where a logarithm has none."""


class Discrete(NamedTuple):
    """A diagonal recurrence x_t = exp(log_size + i angle) x_{t-1} + (real + i imag) u_t.

    Attributes:
        log_size: log |w|, negative.
        angle: arg w, in radians.
        real: real part of b, for B = 1.
        imag: its imaginary part.
    """

    log_size: Tensor
    angle: Tensor
    real: Tensor
    imag: Tensor


def discretise(decay: Tensor, frequency: Tensor, step: Tensor, rule: str) -> Discrete:
    """The recurrence of A = −decay + i frequency at steps Δ that broadcast to it, by one of `RULES`."""
    x, y = -decay * step, frequency * step
    if rule == "zoh":
        # exp(z) − 1 without cancellation for small z.
        half = torch.sin(y / 2)
        real = torch.expm1(x) * torch.cos(y) - 2 * half * half
        imag = torch.exp(x) * torch.sin(y)
        size = decay * decay + frequency * frequency
        return Discrete(x, y, (imag * frequency - real * decay) / size, -(imag * decay + real * frequency) / size)
    outer, turn = 1 - x / 2, y / 2
    size = outer * outer + turn * turn
    ratio = (1 + 2 * x / size).clamp(min=SMALLEST)
    angle = torch.atan2(y, 1 - (x * x + y * y) / 4)
    return Discrete(ratio.log() / 2, angle, step * outer / size, step * turn / size)


def powers(log_size: Tensor, angle: Tensor, exponents: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of w^l, shape (..., L), for w = exp(log_size + i angle) (...) and exponents l (L,)."""
    size = torch.exp(log_size[..., None] * exponents)
    turn = angle[..., None] * exponents
    return size * torch.cos(turn), size * torch.sin(turn)
