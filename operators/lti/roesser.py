"""Diagonal 2-D state spaces after Roesser, with the normalisation of the 2-D SSM layer, as kernels on any grid.

Each of S states has a part h that moves along rows and a part v that moves down (arXiv 2306.06635)

    h[i, j] = A1 h[i, j−1] + A2 v[i, j−1] + B1 u[i, j],   v[i, j] = A3 h[i−1, j] + A4 v[i−1, j] + B2 u[i, j]
    y[i, j] = Σ_s C1 h[i, j] + C2 v[i, j]

The response to a unit has both parts at the unit and off its row and column; in its row there is h alone, in its column
v alone. A step from a place with both parts is multiplied by a share c, that its sum may stay bounded; what is read in
the unit's row and column, the unit's own place aside, is divided by c. The layer has c = 1/2; c = 1 is the recurrence.
As a recurrence of the whole image this has four parts: with p = A1 B1 + A2 B2 and q = A3 B1 + A4 B2

    r[i, j] = A1 r[i, j−1] + c p u[i, j−1],   d[i, j] = A4 d[i−1, j] + c q u[i−1, j]
    h[i, j] = c (A1 h + A2 v)[i, j−1] + A2 d[i, j−1],   v[i, j] = c (A3 h + A4 v)[i−1, j] + A3 r[i−1, j]
    y = Σ_s (C1 B1 + C2 B2) u + (C1 r + C2 d) / c + C1 h + C2 v
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def states(A: Sequence[Tensor], B: Sequence[Tensor], height: int, width: int, share: float) -> Tensor:
    """The parts h and v (2, H, W, …, S) of the response to a unit at the first token, for A1 … A4 and B1, B2 (…, S)."""
    (a1, a2, a3, a4), (b1, b2) = A, B
    row = share * (a1 * b1 + a2 * b2) * _powers(a1, width - 1)  # h in the first row, from the second place on
    column = share * (a3 * b1 + a4 * b2) * _powers(a4, height - 1)
    lags = torch.arange(width - 1, device=a1.device)
    distance = lags[:, None] - lags - 1
    fade = _powers(share * a1, width - 1)
    # What v at one place of a line gives to h at a later one.
    passed = torch.where((distance >= 0)[(...,) + (None,) * a1.ndim], fade[distance.clamp(min=0)], 0) * (share * a2)
    passed = passed.movedim((0, 1), (-2, -1))
    zero = torch.zeros_like(b1)[None]
    first_h = torch.cat([b1[None], row / share])
    first_v = torch.cat([b2[None], zero.expand_as(row)])
    lines_h, lines_v, v = [first_h], [first_v], a3 * row
    for i in range(height - 1):
        h = fade * (a2 * column[i]) + (passed @ v.movedim(0, -1)[..., None])[..., 0].movedim(-1, 0)
        lines_h.append(torch.cat([zero, h]))
        lines_v.append(torch.cat([column[i : i + 1] / share, v]))
        v = share * (a3 * h + a4 * v)
    return torch.stack([torch.stack(lines_h), torch.stack(lines_v)])


def _powers(base: Tensor, count: int) -> Tensor:
    """base⁰ … of shape (count, …)."""
    exponents = torch.arange(count, device=base.device, dtype=base.real.dtype)
    return base ** exponents[(...,) + (None,) * base.ndim]


def run(A: Sequence[Tensor], B: Sequence[Tensor], C: Sequence[Tensor], u: Tensor, share: float) -> Tensor:
    """The definition: y (B, H, W, D) of u (B, H, W, D), token by token, for A1 … A4, B1, B2, C1 and C2 (D, S)."""
    (a1, a2, a3, a4), (b1, b2), (c1, c2) = A, B, C
    height, width = u.shape[1:3]
    zero = u.new_zeros(len(u), *b1.shape).to(b1.dtype)
    parts: dict[tuple[int, int], tuple[Tensor, ...]] = {}
    lines = []
    for i in range(height):
        line = []
        for j in range(width):
            here = u[:, i, j, :, None]
            r1, d1, h1, v1, u1 = parts.get((i, j - 1), (zero,) * 5)
            r2, _, h2, v2, u2 = parts.get((i - 1, j), (zero,) * 5)
            d2 = parts.get((i - 1, j), (zero,) * 5)[1]
            r = a1 * r1 + share * (a1 * b1 + a2 * b2) * u1
            d = a4 * d2 + share * (a3 * b1 + a4 * b2) * u2
            h = share * (a1 * h1 + a2 * v1) + a2 * d1
            v = share * (a3 * h2 + a4 * v2) + a3 * r2
            parts[i, j] = (r, d, h, v, here)
            line.append(((c1 * b1 + c2 * b2) * here + (c1 * r + c2 * d) / share + c1 * h + c2 * v).sum(-1))
        lines.append(torch.stack(line, 1))
    y = torch.stack(lines, 1)
    return y.real if y.is_complex() else y
