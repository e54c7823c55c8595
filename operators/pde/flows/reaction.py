"""Reactions that are not linear, and their splitting from the linear equation.

    u_t = L u + rho R(u)

for the pointwise reactions R below, whose own flow over one unit of time has a closed form:

    kind        R(u)        flow from u                                keeps
    logistic    u (1 - u)   u / (u + (1 - u) exp(-rho))                [0, 1]
    allen_cahn  u - u³      u / sqrt(exp(-2 rho) + (1 - exp(-2 rho)) u²)   [-1, 1], and draws everything else there

Strang's splitting takes half a step of L, a step of the reaction and half a step of L, again and again: it errs by the
square of a step's length, and not at all where one of the two is off.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def react(u: Tensor, rate: Tensor, nonlinearity: str) -> Tensor:
    """The flow of a reaction over one unit of time, pointwise.

    Args:
        u: values. `logistic` brings those beyond [0, 1] to its ends first: below 0 the solution ends in finite time.
        rate: rho >= 0, of a shape that broadcasts with u's.
        nonlinearity: `logistic` or `allen_cahn`.
    """
    if nonlinearity == "logistic":
        u = u.clamp(0, 1)
        return u / (u + (1 - u) * torch.exp(-rate))
    # The length of a vector of two parts, whose squares do not overflow.
    return u / torch.hypot(torch.exp(-rate), torch.sqrt(-torch.expm1(-2 * rate)) * u)


def strang(
    u: Tensor,
    steps: int,
    half: Callable[[Tensor], Tensor],
    whole: Callable[[Tensor], Tensor],
    flow: Callable[[Tensor], Tensor],
) -> Tensor:
    """Take `steps` steps of Strang's splitting: `half` and `whole` solve the linear equation over a step's part.

    Halves that meet are one whole: there are steps + 1 solutions of the linear equation.
    """
    u = half(u)
    for step in range(steps):
        u = flow(u)
        u = whole(u) if step < steps - 1 else half(u)
    return u
