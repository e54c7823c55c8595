"""`propagate`: the convection-diffusion-reaction equation solved over a time, as a pure function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from operators.errors import InputError, check_choice, check_number
from operators.pde.boundary import check_boundary
from operators.pde.choice import FORCINGS, METHODS, UNITS, Call, choose, refuse_boundary
from operators.pde.plane import reaches_too_far
from operators.pde.routes import ROUTES
from operators.pde.symbols import LEAST_DECAY, Coefficients
from operators.precision import full_precision
from operators.runtime.differentiation import differentiated

TWICE = ("kyy", "kxx", "kxy", "vy", "vx", "r")
"""Coefficients that the equation of second order takes times the squared time."""


def propagate(
    field: Tensor,
    *,
    diffusion: Tensor | None = None,
    velocity: Tensor | None = None,
    reaction: Tensor | None = None,
    time: float | Tensor = 1.0,
    boundary: str | Sequence[str] = "periodic",
    forcing: str = "initial",
    order: int = 1,
    damping: Tensor | None = None,
    initial_velocity: Tensor | None = None,
    units: str = "pixel",
    method: str = "auto",
) -> Tensor:
    """Solve du/dt = div(K grad u) - v·grad u + r u per channel, over a time.

    Of second order in time, d²u/dt² + a du/dt takes the place of du/dt: waves of speed sqrt(K).

    Args:
        field: (..., M, H, W), real floating point. The state at time 0 for `forcing="initial"`, else the source.
        diffusion: K as (M,) isotropic, (M, 2) diagonal (row, column) or (M, 2, 2) full; only the symmetric part of a
            full tensor acts. In `units`² per unit of time. A K that is not positive semi-definite amplifies.
        velocity: v (M, 2) as (row, column): content moves by +v·time. In `units` per unit of time.
        reaction: r (M,), per unit of time; positive grows.
        time: elapsed time >= 0, a number or a tensor of no dimensions. Without effect on `forcing="steady"`.
        boundary: extends the input: `periodic` wraps, `neumann` evenly and `dirichlet` oddly about the pixels' outer
            edges, `absorbing` by zeros to an unbounded plane. The free propagator then acts and the result is cropped.
            Two words, [row axis, column axis], extend each axis in its own way: `["neumann", "periodic"]` has edges
            above and below, and wraps from right to left.
        forcing: `initial`, `constant` (u(0) = 0, the field a constant source) or `steady` (the limit of that).
        order: of the equation in time, 1 or 2; 2 has initial forcing, and a boundary that is not `absorbing`. K, v and
            r are then per unit of time squared.
        damping: a (M,) of the second order, not negative, per unit of time; None for zero. With a velocity waves grow,
            unless a² (k·K k - r) >= (v·k)² for every wave number k.
        initial_velocity: du/dt at time 0 of the second order, over the field, (M,) per unit of time; None for zero.
        units: `pixel` (spacing 1) or `image` (spacing 1/sqrt(H W): the image has area 1 at every resolution).
        method: `fft`, `separable` (diagonal K, initial forcing, first order), `reference` (slow), or `auto` for the
            faster of the first two; on the CPU also `compiled_fft` and `compiled`, made for channels that come last, as
            in the mixer.

    Returns:
        (..., M, H, W), in the field's dtype. Half precision is computed in float32.

    Raises:
        InputError: unknown names, wrong shapes, negative time, `steady` without decay, an impossible method.

    Source:
        PDE-SSM, arXiv 2603.13663, with velocity v = -b; boundaries and the rule for the Nyquist wave number are ours.
    """
    extension = check_boundary("boundary", boundary)
    check_choice("forcing", forcing, FORCINGS)
    check_choice("order", order, (1, 2))
    check_choice("units", units, UNITS)
    check_choice("method", method, METHODS)
    given = [t for t in (diffusion, velocity, reaction, damping, initial_velocity) if t is not None]
    if not field.is_floating_point() or field.ndim < 3:
        raise InputError(f"field must be real, (..., M, H, W); got {tuple(field.shape)} of {field.dtype}")
    if 0 in field.shape[-3:]:
        raise InputError(f"field must have at least one channel and one pixel; got {tuple(field.shape)}")
    dtype = torch.float64 if torch.float64 in [t.dtype for t in (field, *given)] else torch.float32
    coefficients = _coefficients(field, diffusion, velocity, reaction, damping, initial_velocity, dtype)
    if order == 2 and damping is None:
        coefficients = replace(coefficients, damping=torch.zeros(field.shape[-3], dtype=dtype, device=field.device))
    _check_order(order, damping, initial_velocity, forcing)
    _check_values(coefficients, time, forcing)
    height, width = field.shape[-2:]
    coefficients = coefficients.in_pixels((height, width), units)
    if forcing != "steady":
        coefficients = coefficients.map(lambda value: value * time)
    if order == 2:
        twice = {
            name: value * time for name, value in vars(coefficients).items() if name in TWICE and value is not None
        }
        coefficients = replace(coefficients, **twice)

    call = Call(
        boundary=extension,
        forcing=forcing,
        spatial=coefficients.spatial,
        full=coefficients.kxy is not None,
        order=order,
        channels_last=False,
        device=field.device.type,
        grid=(height, width),
        differentiated=differentiated(),
    )
    refuse_boundary(call, "boundary")
    route = choose(method, call, "method")
    with full_precision(field):
        work = field.to(dtype)
        if work.numel():
            if call.boundary == "absorbing" and route in ("fft", "compiled_fft"):
                _refuse_far_reach(call, coefficients, work)
            one_state = coefficients.map(lambda value: value[..., None])
            weight = torch.ones(work.shape[-3], 1, 1, dtype=dtype, device=work.device)
            prepared = ROUTES[route].prepare(call, one_state, weight, None)
            output = ROUTES[route].apply(call, prepared, work)
        else:
            output = work
        if forcing == "constant":
            output = output * time
    return output.to(field.dtype)


def _coefficients(
    field: Tensor, diffusion: Tensor | None, velocity: Tensor | None, reaction: Tensor | None, damping: Tensor | None,
    initial_velocity: Tensor | None, dtype: torch.dtype,
) -> Coefficients:  # fmt: skip
    channels = field.shape[-3]
    shapes: dict[str, tuple[Tensor | None, list[tuple[int, ...]]]] = {
        "diffusion": (diffusion, [(channels,), (channels, 2), (channels, 2, 2)]),
        "velocity": (velocity, [(channels, 2)]),
        "reaction": (reaction, [(channels,)]),
        "damping": (damping, [(channels,)]),
        "initial_velocity": (initial_velocity, [(channels,)]),
    }
    for name, (value, allowed) in shapes.items():
        if value is not None and tuple(value.shape) not in allowed:
            listed = " or ".join(str(shape) for shape in allowed)
            raise InputError(f"{name} has shape {tuple(value.shape)}; for {channels} channels it must be {listed}")
        if value is not None and not value.is_floating_point():
            raise InputError(f"{name} must be real floating point, not {value.dtype}")
    k = None if diffusion is None else diffusion.to(dtype)
    v = None if velocity is None else velocity.to(dtype)
    kyy = kxx = kxy = None
    if k is not None:
        if k.ndim == 1:
            kyy = kxx = k
        elif k.ndim == 2:
            kyy, kxx = k.unbind(-1)
        else:
            kyy, kxx, kxy = k[:, 0, 0], k[:, 1, 1], (k[:, 0, 1] + k[:, 1, 0]) / 2
    return Coefficients(
        kyy=kyy,
        kxx=kxx,
        kxy=kxy,
        vy=None if v is None else v[:, 0],
        vx=None if v is None else v[:, 1],
        r=None if reaction is None else reaction.to(dtype),
        damping=None if damping is None else damping.to(dtype),
        initial_velocity=None if initial_velocity is None else initial_velocity.to(dtype),
    )


def _check_order(order: int, damping: Tensor | None, initial_velocity: Tensor | None, forcing: str) -> None:
    if order == 1:
        for name, value in (("damping", damping), ("initial_velocity", initial_velocity)):
            if value is not None:
                raise InputError(f"{name} belongs to equations of second order in time: give order=2, or leave it out")
    elif forcing != "initial":
        raise InputError(f"order=2 needs forcing='initial', not {forcing!r}")


def _refuse_far_reach(call: Call, coefficients: Coefficients, field: Tensor) -> None:
    """Raise `InputError` if a kernel of an unbounded plane, which is no product of two, cannot be computed."""
    if not call.product and reaches_too_far(coefficients, *call.plane, call.forcing, field):
        raise InputError(
            "boundary='absorbing': the wave numbers of a kernel, its quadrature nodes do not fit; use less velocity, "
            "more diffusion or decay, boundary='periodic', or diagonal K with forcing='initial'"
        )


def _check_values(coefficients: Coefficients, time: float | Tensor, forcing: str) -> None:
    if not isinstance(time, Tensor):
        check_number("time", time, least=0)
    elif time.ndim:
        raise InputError(f"time must be a number or a tensor of no dimensions, not of shape {tuple(time.shape)}")
    if torch.compiler.is_compiling():
        return
    if isinstance(time, Tensor) and not time.is_meta:
        check_number("time", time.detach().item(), least=0)
    if forcing != "steady":
        return
    r = coefficients.r
    if r is None:
        raise InputError("forcing='steady' needs decay: give a reaction (r <= -0.0001 in every channel)")
    if not r.is_meta and not bool((r <= -LEAST_DECAY).all()):
        raise InputError(
            f"forcing='steady' needs decay: reaction must be <= -{LEAST_DECAY:g}, the largest is {r.max():g}"
        )
