"""Dormand and Prince's adaptive Runge-Kutta pair 5(4), with a step size for each sample.

The coefficients are SciPy's. torchdiffeq has one step size for the whole batch; torchode has one for each sample, but
ends the integration of all samples as soon as one of them fails.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.integrate import RK45
from torch import Tensor

from tasks.flow.paths import per_sample

ORDER, STAGES = 5, 6
# Step size control, Hairer, Nørsett and Wanner, "Solving Ordinary Differential Equations I", section II.4.
SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0
# A sample fails when it needs a shorter step, as a share of the whole, or more of them.
SHORTEST, MOST = 1e-9, 2000


def dopri5(
    velocity: Callable[[Tensor, Tensor], Tensor], x: Tensor, times: Tensor, tolerance: float, trajectory: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Integrate dx/dt = velocity(x, t) from `times[0]` to `times[-1]`.

    Samples that have arrived or failed stay where they are; they are still evaluated along with the others, so that
    row i always means sample i.

    Args:
        velocity: (x (B, …), t (B,)) → (B, …), evaluated inside the interval only.
        x: (B, …) at `times[0]`.
        times: (T,) increasing, float64.
        tolerance: of the error of a step, RMS over the sample, relative to 1 + |x|.
        trajectory: whether to interpolate the solution at `times`, at fourth order.

    Returns:
        x at `times[-1]`, NaN for samples that failed; x at all `times` (T, B, …), NaN after a failure, or None;
        evaluations (B,) int64.
    """
    start, end = float(times[0]), float(times[-1])
    t = torch.full((len(x),), start, dtype=torch.float64, device=x.device)
    states = None
    if trajectory:
        states = torch.full((len(times), *x.shape), torch.nan, dtype=x.dtype, device=x.device)
        states[0] = x
    evaluations = torch.ones(len(x), dtype=torch.int64, device=x.device)
    failed = torch.zeros_like(t, dtype=torch.bool)
    running = ~failed
    slope = velocity(x, t.to(x.dtype)).to(x.dtype)
    # A step that moves x by a hundredth of its size; the error estimate corrects it.
    step = (0.01 * (1 + _rms(x)) / _rms(slope)).nan_to_num(end - start).clamp(SHORTEST, end - start)

    while bool(running.any()):
        step = torch.where(running, torch.minimum(step, end - t), 0.0)
        slopes, proposal = _stages(velocity, x, t, step, slope, end)
        error = step * _rms(_combine(RK45.E.tolist(), slopes) / (1 + torch.maximum(x.abs(), proposal.abs())))
        error = torch.where(_rms(proposal).isfinite(), error / tolerance, torch.inf).nan_to_num(torch.inf)
        accept = running & (error <= 1)
        evaluations += STAGES * running
        then = torch.where(step == end - t, end, t + step)
        if states is not None:
            _record(states, times, x, slopes, t, then, accept)
        x = torch.where(per_sample(accept, x), proposal, x)
        slope = torch.where(per_sample(accept, x), slopes[-1], slope)
        t = torch.where(accept, then, t)
        step = step * (SAFETY * error ** (-1 / ORDER)).clamp(SHRINK, GROW)
        failed = failed | (running & ~accept & (step < SHORTEST * (end - start)))
        failed = failed | (running & (t < end) & (evaluations > STAGES * MOST))
        running = (t < end) & ~failed

    x = torch.where(per_sample(failed, x), torch.nan, x)
    if states is not None:
        states[-1] = x
    return x, states, evaluations


def _stages(
    velocity: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor, step: Tensor, slope: Tensor, end: float
) -> tuple[list[Tensor], Tensor]:
    """The slopes at the seven nodes of a step, the last at its end, and x there."""
    slopes = [slope]
    length = per_sample(step, x).to(x.dtype)
    nodes = [*zip(RK45.A[1:].tolist(), RK45.C[1:].tolist(), strict=True), (RK45.B.tolist(), 1.0)]
    for weights, node in nodes:
        place = x + length * _combine(weights[: len(slopes)], slopes)
        slopes.append(velocity(place, (t + node * step).clamp(max=end).to(x.dtype)).to(x.dtype))
    return slopes, place


def _record(
    states: Tensor, times: Tensor, x: Tensor, slopes: list[Tensor], t: Tensor, then: Tensor, accept: Tensor
) -> None:
    """Write the solution at those of `times` that the accepted steps from `t` to `then` have passed."""
    for row, time in enumerate(times.tolist()):
        passed = accept & (t < time) & (time <= then)
        if bool(passed.any()):
            share = torch.where(passed, (time - t) / (then - t), 0.0)
            powers = [share, share**2, share**3, share**4]
            value = x
            for weights, slope in zip(RK45.P.tolist(), slopes, strict=True):
                weight = (then - t) * _combine(weights, powers)
                value = value + per_sample(weight, x).to(x.dtype) * slope
            states[row] = torch.where(per_sample(passed, x), value, states[row])


def _combine(weights: list[float], slopes: list[Tensor]) -> Tensor:
    # One after the other: the order in which a reduction adds may depend on the size of the batch.
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=True):
        total = total + weight * slope
    return total


def _rms(x: Tensor) -> Tensor:
    """Root mean square over all dimensions but the first, float64 (B,)."""
    return x.double().square().flatten(1).mean(1).sqrt()
