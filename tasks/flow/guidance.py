"""Classifier-free guidance (arXiv 2207.12598) inside an interval of times (arXiv 2404.07724)."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.errors import InputError, check_number
from tasks.flow.prediction import Model
from tasks.flow.solvers import Velocity


def guide(
    model: Model, label: Tensor, null: int, weight: float = 1.0, interval: tuple[float, float] = (0.0, 1.0)
) -> Velocity:
    """The velocity v_null + weight (v_label − v_null) at times inside the interval, and v_label outside it.

    The model is called once: with B rows where one of the two is enough — everywhere for weight 1, which is no
    guidance, and for weight 0, which is unconditional inside the interval — and with one row more for each sample that
    needs both, 2B if all do.

    Args:
        model: predicts the velocity, see `prediction.velocity_model`.
        label: (B,), of the samples.
        null: number of the null class.
        weight: 0 unconditional, 1 conditional, above 1 guided. (2207.12598 counts from the conditional one: its w is
            weight − 1.)
        interval: times (first, last), both included; 0 is noise, 1 data.

    Returns:
        (x (B, …), t (B,)) → velocity (B, …).

    Raises:
        InputError: a negative weight, an interval that is not ordered within [0, 1].
    """
    check_number("guidance", weight, least=0)
    first, last = interval
    if not 0 <= first <= last <= 1:
        raise InputError(f"guidance interval={interval!r} must be (first, last) with 0 <= first <= last <= 1")

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        if weight == 1:
            return model(x, t, label)
        inside = (t >= first) & (t <= last)
        if weight == 0:
            return model(x, t, torch.where(inside, null, label))
        rows = inside.nonzero()[:, 0]
        nulls = torch.full_like(label[rows], null)
        both = model(torch.cat([x, x[rows]]), torch.cat([t, t[rows]]), torch.cat([label, nulls])).to(x.dtype)
        conditional, unconditional = both[: len(x)], both[len(x) :]
        guided = unconditional + weight * (conditional[rows] - unconditional)
        return conditional.index_copy(0, rows, guided)

    return velocity
