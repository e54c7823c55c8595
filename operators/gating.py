"""The end of the common shell, RMSNorm(y) · weight · SiLU(z), in one pass on the CPU.

Torch takes the norm apart into five operations there, and the gate into two: with their gradients they cost more than
the cores that they follow.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

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
    if same and large and y.device.type == "cpu" and not _transformed():
        return _gated_norm(y, z, weight, eps)
    return reference(y, z, weight, eps)


def reference(y: Tensor, z: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`gated_norm` in torch's operations."""
    return F.rms_norm(y, weight.shape, weight, eps) * F.silu(z)


def _transformed() -> bool:
    """Whether somebody looks into the operations: a compiler, vmap and its like, or forward differentiation."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0  # no public name says it
    )


@lru_cache
def _kernels(dtype: torch.dtype) -> tuple[Any, Any]:
    # Here and not above: importing numba takes half a second, which those who do without need not wait for.
    from operators.gating_kernels import compiled

    return compiled(str(dtype).removeprefix("torch."))


def _rows(x: Tensor) -> tuple[np.ndarray, int]:
    """The memory of the rows of x (…, D) as one axis, and the distance between rows."""
    rows = x.detach().reshape(-1, x.shape[-1])
    if rows.stride(1) != 1:
        rows = rows.contiguous()
    extent = (rows.shape[0] - 1) * rows.stride(0) + rows.shape[1]
    # NumPy keeps the memory of a copy alive.
    return rows.as_strided((extent,), (1,)).numpy(), rows.stride(0)


def _run(index: int, arrays: list[np.ndarray], numbers: list[int], dtype: torch.dtype, tasks: int, size: int) -> None:
    from operators import jit

    threads = max(1, min(torch.get_num_threads(), tasks, size // THREAD_LEAST))
    jit.run(_kernels(dtype)[index], arrays, numbers, tasks, threads)


@torch.library.custom_op("operator_zoo::gated_norm_fwd", mutates_args=())
def _gated_norm(y: Tensor, z: Tensor, weight: Tensor, eps: float) -> Tensor:
    out = y.new_empty(y.shape)
    (flat_y, y_row), (flat_z, z_row) = _rows(y), _rows(z)
    weights = weight.detach().contiguous().numpy()
    arrays = [flat_y, flat_z, weights, np.array([eps], flat_y.dtype), out.view(-1).numpy()]
    _run(0, arrays, [y_row, z_row], y.dtype, y.numel() // y.shape[-1], y.numel())
    return out


@_gated_norm.register_fake
def _(y: Tensor, z: Tensor, weight: Tensor, eps: float) -> Tensor:
    return y.new_empty(y.shape)


@torch.library.custom_op("operator_zoo::gated_norm_bwd", mutates_args=())
def _gated_norm_backward(
    y: Tensor, z: Tensor, weight: Tensor, grad: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    grad_y, grad_z = y.new_empty(y.shape), y.new_empty(y.shape)
    rows = y.numel() // y.shape[-1]
    parts = min(rows, PARTS)
    by_part = weight.new_empty(parts, *weight.shape)
    (flat_y, y_row), (flat_z, z_row), (flat_grad, grad_row) = _rows(y), _rows(z), _rows(grad)
    given = [flat_y, flat_z, weight.detach().contiguous().numpy(), np.array([eps], flat_y.dtype), flat_grad]
    written = [tensor.view(-1).numpy() for tensor in (grad_y, grad_z, by_part)]
    _run(1, [*given, *written], [y_row, z_row, grad_row, rows, parts], y.dtype, parts, y.numel())
    return grad_y, grad_z, by_part.sum(0)


@_gated_norm_backward.register_fake
def _(y: Tensor, z: Tensor, weight: Tensor, grad: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    return y.new_empty(y.shape), y.new_empty(y.shape), weight.new_empty(weight.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    y, z, weight = ctx.saved_tensors
    if not torch.is_grad_enabled():
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
