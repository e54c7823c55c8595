"""The telegraph equation in Fourier space: second order in time, waves that a damping slows and spreads.

With the symbol s of the first-order equation, at each wave number

    u'' + a u' = s u,    u(0) = f,    u'(0) = g f

over one unit of time. With z = a²/4 + s, cosh and sinh of the root of z give

    u(1) = exp(-a/2) (C(z) + (g + a/2) S(z)) f,    C(z) = cosh(sqrt(z)),    S(z) = sinh(sqrt(z)) / sqrt(z)

Both are even in the root and entire in z, so that nothing happens at the critical damping z = 0, between waves (z < 0)
and decay (z > 0). Near it they are their series. Elsewhere, with mu the root of non-negative real part, the growing
exponential is taken into exp(-a/2) first:

    u(1) = exp(p) ((1 + exp(-2 mu)) / 2 + (g + a/2) (1 - exp(-2 mu)) / (2 mu)) f,    p = mu - a/2 = s / (mu + a/2)

No exponent has a positive real part where the equation is stable: for v = 0 and r <= 0, and with a velocity as long as
a² (k·K k - r) >= (v·k)² for every k.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEAR = 1.0
"""Size of z below which the series is taken; there it has converged to float64 after `TERMS` terms."""
TERMS = 10


def telegraph_response(symbol: Tensor, damping: Tensor, rate: Tensor | None) -> Tensor:
    """Transfer function from u(0) to u(1), complex, of the shape of `symbol`.

    Args:
        symbol: s, complex.
        damping: a, real and not negative, of a shape that broadcasts with the symbol's.
        rate: g, the rate of change at time 0 over the value; None for zero.
    """
    half = damping / 2
    lift = half if rate is None else half + rate
    z = half**2 + symbol
    near = z.abs() < NEAR
    inside = torch.where(near, z, torch.zeros_like(z))
    cosh, sinh = torch.ones_like(z), torch.ones_like(z)
    for n in range(TERMS, 0, -1):
        cosh = 1 + inside * cosh / (2 * n * (2 * n - 1))
        sinh = 1 + inside * sinh / (2 * n * (2 * n + 1))
    series = torch.exp(-half) * (cosh + lift * sinh)

    one = torch.ones_like(z)
    mu = torch.where(near, one, z).sqrt()
    # Far from the series' place mu + a/2 is not zero; p is s over it, where mu - a/2 would lose its digits.
    p = torch.where(near, one, symbol) / (mu + half)
    falling = torch.exp(-2 * mu)
    closed = p.exp() * ((1 + falling) / 2 + lift * (1 - falling) / (2 * mu))
    return torch.where(near, series, closed)
