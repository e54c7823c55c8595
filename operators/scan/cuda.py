"""The authors' CUDA kernels (package `mamba_ssm`), where they load and run.

Not run by this project's own tests, which have no CUDA device.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import lru_cache

import torch
from torch import Tensor

from operators.runtime.tensors import ordinary_tensors
from operators.runtime.tracing import constant
from operators.scan.chunked import Gradients

KERNEL = "selective_scan_cuda"
"""The compiled module behind `selective_scan_fn`. A mamba_ssm without it may fall back on plain torch, in silence."""
BROKEN = (ImportError, OSError, RuntimeError, AttributeError)
"""How importing a package whose binaries do not fit this machine fails."""


def unbuilt() -> str | None:
    """What to do about a mamba_ssm that was installed without its kernel, or None. Nothing is imported."""
    if not _installed("mamba_ssm") or _installed(KERNEL):
        return None
    return (
        f"mamba_ssm is installed without its scan kernel {KERNEL}, which newer sources build only if asked: "
        "MAMBA_KEEP_CUDA_BUILD=TRUE pip install --force-reinstall --no-deps --no-cache-dir --no-build-isolation "
        "mamba-ssm"
    )


def _installed(module: str) -> bool:
    return sys.modules.get(module) is not None or importlib.util.find_spec(module) is not None


@lru_cache
def _trial(device: torch.device) -> str | None:
    """Why mamba_ssm fails on eight zero steps on `device`, or None."""
    missing = unbuilt()
    if missing is not None:
        return missing
    try:
        interface = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
        importlib.import_module(KERNEL)
    except BROKEN as error:
        return f"it does not import ({' '.join(str(error).split())})"
    with ordinary_tensors(), torch.enable_grad():
        u = torch.zeros(1, 2, 8, device=device, requires_grad=True)
        a, b = torch.zeros(2, 1, device=device), torch.zeros(1, 1, 1, 8, device=device)
        try:
            interface.selective_scan_fn(u, u, a, b, b).sum().backward()
        except (RuntimeError, TypeError, AttributeError) as error:  # a kernel is missing or of another version
            return " ".join(str(error).split())
    return None


@constant
def refusal(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why mamba_ssm cannot scan tensors of that device and type, or None if it can.

    The package is imported only for CUDA tensors.
    """
    if device.type != "cuda":
        return f"it serves CUDA tensors only, and these are on {device.type}"
    if dtype == torch.float64:
        return "it has no float64"
    return _trial(device)


def _flip(reverse: bool, *sequences: Tensor) -> tuple[Tensor, ...]:
    return tuple(sequence.flip(-1) for sequence in sequences) if reverse else sequences


def forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Output y (B, D, L) and last state (B, D, S), from the initial state zero; no states are kept."""
    interface = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    u, delta, B, C = _flip(reverse, u, delta, B, C)
    y, last = interface.selective_scan_fn(u, delta, A, B, C, return_last_state=True)
    return _flip(reverse, y)[0], last.clone(), u.new_empty(u.shape[0], 0, A.shape[1], u.shape[1])


def backward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    states: Tensor,
    grad_y: Tensor,
    grad_last: Tensor,
    reverse: bool,
) -> Gradients:
    """Gradients of u, delta, A, B, C by the authors' backward pass, which runs the forward pass once more.

    The last state has none there; the caller refuses to hand states in or out.
    """
    interface = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    u, delta, B, C, grad_y = _flip(reverse, u, delta, B, C, grad_y)
    # Inside an operator torch records no operation, only an `autograd.Function` such as theirs: nothing may stand
    # between these leaves and y.
    leaves = [tensor.detach().requires_grad_() for tensor in (u, delta, A, B, C)]
    with torch.enable_grad():
        y = interface.selective_scan_fn(*leaves)
    grad_u, grad_delta, grad_a, grad_b, grad_c = torch.autograd.grad(y, leaves, grad_y)
    grad_u, grad_delta, grad_b, grad_c = _flip(reverse, grad_u, grad_delta, grad_b, grad_c)
    return grad_u, grad_delta, grad_a, grad_b, grad_c, torch.zeros_like(grad_last)
