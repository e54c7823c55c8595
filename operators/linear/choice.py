"""Which backend serves a recurrence of this folder."""

from __future__ import annotations

import torch

from operators.errors import InputError, check_choice
from operators.linear import fla
from operators.linear.fla import Problem
from operators.runtime.differentiation import transformed

BACKENDS = ("fla", "chunked", "reference")


def availability() -> dict[str, str | None]:
    """For each of `BACKENDS` None, or the reason why it cannot serve on this machine."""
    reason: str | None = "it serves CUDA tensors only, and there is no CUDA device"
    if torch.cuda.is_available():
        reason = fla.missing()
    return {**dict.fromkeys(BACKENDS), "fla": reason}


def serving(backend: str, problem: Problem, device: torch.device, dtype: torch.dtype) -> str:
    """Which of `BACKENDS` serves a recurrence.

    Args:
        backend: one of `BACKENDS`, or `auto`: `fla` on CUDA tensors where it serves the call, else `chunked`.
        problem: what is computed.
        device: where the tensors are.
        dtype: of the call, see `operators.precision.call_type`.

    Raises:
        InputError: the backend cannot serve the call; says why.
    """
    check_choice("backend of the recurrence", backend, ("auto", *BACKENDS))
    if backend in ("chunked", "reference") or (backend == "auto" and device.type != "cuda"):
        return "chunked" if backend == "auto" else backend
    if transformed():
        reason: str | None = "it has no forward-mode derivatives, and serves no transform of torch.func"
    else:
        reason = fla.refusal(problem, device, dtype)
    if reason is None:
        return "fla"
    if backend == "auto":
        return "chunked"
    raise InputError(f"backend='fla' cannot serve this call: {reason}; use auto, chunked or reference")
