"""The end of the common shell, RMSNorm(y) · weight · SiLU(z), in one pass on the CPU.

Torch takes the norm apart into five operations there, and the gate into two: with their gradients they cost more than
the cores that they follow.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from operators.runtime.differentiation import refuse_forward_mode, transformed
from operators.runtime.once import once
from operators.runtime.tensors import check_tensors

LEAST = 1 << 15
"""Numbers below which calling compiled code costs more than it saves."""
PARTS = 16
"""Into which the rows are cut for the weight's gradient: results do not depend on the number of threads."""
THREAD_LEAST = 1 << 15
"""Numbers below which a thread costs more than it saves."""


def gated_norm(y: Tensor, z: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm(y) · weight · SiLU(z) over the last axis: y, z (…, D), weight (D,).

    One compiled pass where that pays: on the CPU, for float32 and float64 of one type and `LEAST` numbers, outside
    compiled graphs and function transforms. Second derivatives are `reference`'s.
    """
    same = y.dtype == z.dtype == weight.dtype and y.dtype in (torch.float32, torch.float64)
    large = y.numel() >= LEAST and y.shape == z.shape
    if same and large and y.device.type == "cpu" and not (torch.compiler.is_compiling() or transformed()):
        return _gated_norm(y, z, weight, eps)
    return reference(y, z, weight, eps)


def reference(y: Tensor, z: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`gated_norm` in torch's operations."""
    return F.rms_norm(y, weight.shape, weight, eps) * F.silu(z)


@once
def _kernels(dtype: torch.dtype) -> tuple[Any, Any]:
    # Here and not above: importing numba takes half a second, which those who do without need not wait for.
    from operators.cpu.gated_norm import compiled

    return compiled(str(dtype).removeprefix("torch."))


def _rows(x: Tensor) -> Tensor:
    """The rows of x (…, D), each in one piece of memory and all at one distance."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


def _run(index: int, tensors: list[Tensor], numbers: list[int], tasks: int, size: int) -> None:
    from operators.cpu import sharing

    threads = max(1, min(torch.get_num_threads(), tasks, size // THREAD_LEAST))
    sharing.run(_kernels(tensors[0].dtype)[index], tensors, numbers, tasks, threads)


def _check(y: Tensor, z: Tensor, weight: Tensor, grad: Tensor | None = None) -> None:
    refuse_forward_mode("the compiled gated norm", "call operators.shell.gated_norm.reference")
    shape = tuple(y.shape)
    shapes = {"y": (y, shape), "z": (z, shape), "weight": (weight, shape[-1:])}
    check_tensors("the compiled gated norm", y, {**shapes, "the gradient": (y if grad is None else grad, shape)})


@torch.library.custom_op("operator_zoo::gated_norm_fwd", mutates_args=())
def _gated_norm(y: Tensor, z: Tensor, weight: Tensor, eps: float) -> Tensor:
    _check(y, z, weight)
    out = y.new_empty(y.shape)
    y, z = _rows(y), _rows(z)
    tensors = [y, z, weight.contiguous(), torch.tensor([eps], dtype=y.dtype, device="cpu"), out]
    _run(0, tensors, [y.stride(0), z.stride(0)], len(y), y.numel())
    return out


@_gated_norm.register_fake
def _(y: Tensor, z: Tensor, weight: Tensor, eps: float) -> Tensor:
    return y.new_empty(y.shape)


@torch.library.custom_op("operator_zoo::gated_norm_bwd", mutates_args=())
def _gated_norm_backward(
    y: Tensor, z: Tensor, weight: Tensor, grad: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    _check(y, z, weight, grad)
    grad_y, grad_z = y.new_empty(y.shape), y.new_empty(y.shape)
    y, z, grad = _rows(y), _rows(z), _rows(grad)
    parts = min(len(y), PARTS)
    by_part = weight.new_empty(parts, *weight.shape)
    offset = torch.tensor([eps], dtype=y.dtype, device="cpu")
    tensors = [y, z, weight.contiguous(), offset, grad, grad_y, grad_z, by_part]
    _run(1, tensors, [y.stride(0), z.stride(0), grad.stride(0), len(y), parts], parts, y.numel())
    return grad_y, grad_z, by_part.sum(0)


@_gated_norm_backward.register_fake
def _(y: Tensor, z: Tensor, weight: Tensor, grad: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    return y.new_empty(y.shape), y.new_empty(y.shape), weight.new_empty(weight.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    y, z, weight = ctx.saved_tensors
    if not torch.is_grad_enabled() and not transformed():
        return (*_gated_norm_backward(y, z, weight, grad, ctx.eps), None)
    # Somebody will differentiate again, what the compiled code cannot.
    r = torch.rsqrt(y.square().mean(-1, keepdim=True) + ctx.eps)
    opening = torch.sigmoid(z)
    n, gate = y * r, z * opening
    h = grad * weight * gate
    grad_y = r * (h - n * (h * n).mean(-1, keepdim=True))
    grad_z = grad * n * weight * (opening + gate * (1 - opening))
    return grad_y, grad_z, (grad * n * gate).flatten(0, -2).sum(0), None


_gated_norm.register_autograd(_differentiate, setup_context=_keep)
