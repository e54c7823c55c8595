"""The selective scan S6 (Mamba, arXiv 2312.00752, algorithm 2), as a pure function."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from operators.cpu import availability as compiled
from operators.errors import InputError, check_choice
from operators.precision import full_precision, wide
from operators.runtime.differentiation import differentiated
from operators.scan import cuda, ops, reference

BACKENDS = ("mamba_ssm", "chunked", "cpu", "reference")
TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

__all__ = ["BACKENDS", "availability", "selective_scan", "serving"]


def availability() -> dict[str, str | None]:
    """For each of `BACKENDS` None, or the reason why it cannot serve on this machine."""
    reason: str | None
    if torch.cuda.is_available():
        reason = cuda.refusal(torch.device("cuda"), torch.float32)
    else:
        reason = "; and ".join(
            filter(None, ["it serves CUDA tensors only, and there is no CUDA device", cuda.unbuilt()])
        )
    return {**dict.fromkeys(BACKENDS), "mamba_ssm": reason, "cpu": _compiled_refusal()}


def _compiled_refusal() -> str | None:
    reason = compiled.refusal()
    return None if reason is None else f"it {reason}"


def serving(backend: str, device: torch.device, dtype: torch.dtype, *, states: bool = False) -> str:
    """Which of `BACKENDS` serves a call with `backend` on tensors of that device and type.

    Args:
        backend: one of `BACKENDS`; `cuda`: `mamba_ssm` where it serves the call, else `chunked`; `auto`: `cuda` on CUDA
            tensors, `cpu` on those of the CPU (and of the meta device) where compiled code runs, else `chunked`.
        device: where the tensors are.
        dtype: in which the recurrence is computed, float32 or float64.
        states: whether an initial state is given or the last one wanted.

    Raises:
        InputError: the backend cannot serve such a call; says why.
    """
    check_choice("backend of the scan", backend, ("auto", "cuda", *BACKENDS))
    if backend == "auto":
        runs_compiled = device.type in ("cpu", "meta") and compiled.refusal() is None
        backend = "cpu" if runs_compiled else "cuda" if device.type == "cuda" else "chunked"
    if backend in ("cuda", "mamba_ssm"):
        reason = cuda.refusal(device, dtype)
        if reason is None and states:
            reason = "it takes no initial state and gives the last one no gradient"
        if backend == "cuda" and device.type == "cuda":
            return "chunked" if reason else "mamba_ssm"
    else:
        on_cpu = device.type in ("cpu", "meta")
        reason = None
        if backend == "cpu":
            reason = _compiled_refusal() if on_cpu else f"it serves CPU tensors only, and these are on {device.type}"
    if reason is not None:
        raise InputError(f"backend={backend!r} cannot serve this scan: {reason}; use auto, chunked or reference")
    return backend


def _check(tensors: dict[str, Tensor]) -> None:
    """Raise `InputError` unless all tensors have the shapes, types and device that u (B, D, L) and A (D, S) ask for."""
    u, size = tensors["u"], tensors["A"].shape[1]
    sequence = batch, channels, length = tuple(u.shape)
    expected: dict[str, tuple[int, ...]] = {
        "delta": sequence, "z": sequence, "A": (channels, size), "D": (channels,), "delta_bias": (channels,),
        "initial_state": (batch, channels, size),
    }  # fmt: skip
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        if name in expected and shape != expected[name]:
            raise InputError(f"selective_scan takes {name} of shape {expected[name]}, not {shape}")
        if name in ("B", "C"):
            groups = shape[1] if len(shape) == 4 else 1
            if len(shape) not in (3, 4) or (shape[0], *shape[-2:]) != (batch, size, length) or groups < 1:
                raise InputError(
                    f"selective_scan takes {name} of shape {(batch, size, length)} or "
                    f"({batch}, groups, {size}, {length}), not {shape}"
                )
            if channels % groups:
                raise InputError(f"selective_scan: the {groups} groups of {name} must divide the {channels} channels")
        if tensor.dtype not in TYPES:
            names = ", ".join(str(dtype).removeprefix("torch.") for dtype in TYPES)
            raise InputError(f"selective_scan takes {names}; {name} is {tensor.dtype}")
        if tensor.device != u.device:
            raise InputError(
                f"selective_scan takes tensors on one device: u is on {u.device}, {name} on {tensor.device}"
            )
    if tensors["B"].shape != tensors["C"].shape:
        b, c = (tuple(tensors[name].shape) for name in "BC")
        raise InputError(f"selective_scan takes B and C of one shape, not {b} and {c}")


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    return_last_state: bool = False,
    backend: str = "auto",
    reverse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan u along its last axis with a recurrence whose coefficients change from step to step.

        dt_t = softplus(delta_t + delta_bias)                   (softplus only with `delta_softplus`)
        h_t  = exp(dt_t A) h_{t-1} + dt_t B_t u_t
        y_t  = (C_t · h_t + D u_t) SiLU(z_t)                    (what is None is left out)

    A is discretised by zero-order hold, B by the Euler rule. The recurrence and its exponentials are computed in
    float32, under autocast too, or in float64 where a tensor is float64. Every tensor has a gradient; gradients of
    gradients, forward-mode ones and those of `torch.func`, only with the backend `reference`, which `auto` means in
    forward mode and in the latter.

    Args:
        u: (B, D, L).
        delta: (B, D, L).
        A: (D, S); negative for a memory that fades.
        B: (B, S, L), or (B, G, S, L) where each of G groups of neighbouring channels has its own.
        C: like B.
        D: (D).
        z: (B, D, L).
        delta_bias: (D).
        delta_softplus: whether softplus makes the steps positive.
        initial_state: (B, D, S), the state before the first step; zero without.
        return_last_state: whether to return the state after the last step too.
        backend: `auto`, `cuda`, or one of `BACKENDS`, see `serving`. All but `reference` store O(B·L·D·S / 64).
        reverse: scan from the last step to the first; `initial_state` then stands after the last.

    Returns:
        y (B, D, L) in the type of u; with `return_last_state`, y and the state (B, D, S) after the scan's last step.

    Raises:
        InputError: shapes, types or devices that do not fit, or a backend that cannot serve the call; when
            differentiated, derivatives that the backend lacks.

    Source:
        arXiv 2312.00752, algorithm 2. Shapes and options are those of `selective_scan_fn` of state-spaces/mamba.
        Compared with its `selective_scan_ref` at commit e9594ce1c7, computed in float64, with all options (2 images, 24
        channels in 4 groups, 16 states, 257 steps): relative errors of the backend `cpu` 2e-16 in the outputs and at
        most 9e-16 in the gradients in float64, 1e-7 and 3.2e-7 in float32.
    """
    if u.ndim != 3 or A.ndim != 2 or min(*u.shape[1:], *A.shape) < 1:
        raise InputError(
            f"selective_scan takes u (B, D, L) and A (D, S) with D, L, S > 0, not {tuple(u.shape)} and {tuple(A.shape)}"
        )
    options = {"D": D, "z": z, "delta_bias": delta_bias, "initial_state": initial_state}
    given = {name: tensor for name, tensor in options.items() if tensor is not None}
    tensors = {"u": u, "delta": delta, "A": A, "B": B, "C": C, **given}
    _check(tensors)
    dtype = wide(u.dtype)
    for tensor in tensors.values():
        dtype = torch.promote_types(dtype, tensor.dtype)
    if backend == "auto" and differentiated():
        engine = "reference"
    else:
        engine = serving(backend, u.device, dtype, states=initial_state is not None or return_last_state)
    if engine != "reference" and differentiated():
        raise InputError(
            f"backend={engine!r} has no forward-mode derivatives, nor those of torch.func; use auto or reference"
        )
    with full_precision(u):
        x, dt, A, B, C = (tensor.to(dtype) for tensor in (u, delta, A, B, C))
        if delta_bias is not None:
            dt = dt + delta_bias.to(dtype)[:, None]
        if delta_softplus:
            dt = F.softplus(dt)
        B, C = (shared if shared.ndim == 4 else shared[:, None] for shared in (B, C))
        if initial_state is None:
            initial_state = u.new_zeros(*u.shape[:2], A.shape[1])
        initial = initial_state.to(dtype)
        if engine == "reference":
            y, last = reference.scan(x, dt, A, B, C, initial, reverse)
        else:
            y, last, _ = ops.scan(x, dt, A, B, C, initial, reverse, engine)
        if D is not None:
            y = y + D.to(dtype)[:, None] * x
        if z is not None:
            y = y * F.silu(z.to(dtype))
    return (y.to(u.dtype), last) if return_last_state else y.to(u.dtype)
