"""Which code applies a filter: the names, what each refuses, and what `auto` means; needs no torch."""

from __future__ import annotations

from operators.errors import InputError
from operators.pde.choice import REFUSALS, Call

BACKENDS = ("compiled_fft", "fft", "reference")
"""Compiled transforms of the CPU, torch's transforms, and direct sums over all pairs of pixels."""
DEFAULT_GRID = (16, 16)


def refusal(
    backend: str, boundary: str, *, grid: tuple[int, int] | None, device: str, differentiated: bool
) -> str | None:
    """The reason why `backend` cannot apply one filter to all images of a batch, or None.

    Args:
        backend: one of `BACKENDS`.
        boundary: how the input is extended: `periodic`, or `absorbing` for zeros.
        grid: (H, W), or None while it is not known.
        device: where the tensors are, by its type.
        differentiated: whether forward mode or a transform of `torch.func` looks into the call.
    """
    if backend != "compiled_fft":
        return None
    call = Call(
        boundary=boundary, forcing="initial", spatial=True, full=True, device=device, grid=grid,
        differentiated=differentiated,
    )  # fmt: skip
    return REFUSALS["compiled_fft"](call)


def choose(backend: str, boundary: str, *, grid: tuple[int, int], device: str, differentiated: bool) -> str:
    """The code that serves a call of `backend`: for `auto`, the first of `BACKENDS` that can.

    Raises:
        InputError: a backend that cannot serve the call; says why.
    """
    for name in BACKENDS if backend == "auto" else (backend,):
        reason = refusal(name, boundary, grid=grid, device=device, differentiated=differentiated)
        if reason is None:
            return name
    raise InputError(f"mixer.backend={backend} {reason}; use auto or fft")
