"""The end of the common shell, RMSNorm(y) · weight · SiLU(z), in one pass on the CPU.

Torch takes the norm apart into five operations there, and the gate into two: with their gradients they cost more than
the cores that they follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from operators.cpu.availability import refusal
from operators.cpu.op import CpuOp, Tensors
from operators.runtime.differentiation import transformed

LEAST = 1 << 15
"""Numbers below which calling compiled code costs more than it saves."""
PARTS = 16
"""Into which the rows are cut for the weight's gradient: results do not depend on the number of threads."""


def gated_norm(y: Tensor, z: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm(y) · weight · SiLU(z) over the last axis: y, z (…, D), weight (D,).

    One compiled pass where that pays and compiled code runs: on the CPU, for float32 and float64 of one type and
    `LEAST` numbers, outside compiled graphs and function transforms. Second derivatives are `reference`'s.
    """
    same = y.dtype == z.dtype == weight.dtype and y.dtype in (torch.float32, torch.float64)
    large = y.numel() >= LEAST and y.shape == z.shape and y.device.type == "cpu"
    if same and large and not (torch.compiler.is_compiling() or transformed()) and refusal() is None:
        out: Tensor = _gated_norm(y, z, weight, eps)
        return out
    return reference(y, z, weight, eps)


def reference(y: Tensor, z: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`gated_norm` in torch's operations."""
    return F.rms_norm(y, weight.shape, weight, eps) * F.silu(z)


def _rows(x: Tensor) -> Tensor:
    """The rows of x (…, D), each in one piece of memory and all at one distance."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


class GatedNormOp(CpuOp):
    """RMSNorm(y) · weight · SiLU(z) over the last axis: y, z (…, D), weight (D,)."""

    name = "gated_norm"
    title = "the compiled gated norm"
    instead = "call operators.shell.gated_norm.reference"
    once_only = "the compiled gradients of the gated norm have no derivatives"
    module = "gated_norm"
    tensors = ("y", "z", "weight")
    options = ("float eps",)
    results = ("out",)
    thread_least = 1 << 15  # numbers

    def shapes(self, given: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        shape = tuple(given["y"].shape)
        return {"y": shape, "z": shape, "weight": shape[-1:], "out": shape}

    def forward(self, y: Tensor, z: Tensor, weight: Tensor, eps: float) -> Tensors:
        out, y, z = y.new_empty(y.shape), _rows(y), _rows(z)
        self.run(
            "forward", len(y), y.numel(), y=y, z=z, weight=weight.contiguous(), eps=eps, out=out,
            y_row=y.stride(0), z_row=z.stride(0),
        )  # fmt: skip
        return (out,)

    def backward(self, y: Tensor, z: Tensor, weight: Tensor, grad: Tensor, eps: float) -> Tensors:
        grad_y, grad_z = y.new_empty(y.shape), y.new_empty(y.shape)
        y, z, grad = _rows(y), _rows(z), _rows(grad)
        parts = min(len(y), PARTS)
        by_part = weight.new_empty(parts, *weight.shape)
        self.run(
            "backward", parts, y.numel(), y=y, z=z, weight=weight.contiguous(), eps=eps, grad_out=grad,
            grad_y=grad_y, grad_z=grad_z, grad_weight=by_part, y_row=y.stride(0), z_row=z.stride(0),
            grad_row=grad.stride(0), rows=len(y), parts=parts,
        )  # fmt: skip
        return grad_y, grad_z, by_part.sum(0)

    def differentiate(self, kept: Sequence[Tensor], gradients: Sequence[Tensor], options: Sequence[Any]) -> Tensors:
        if not torch.is_grad_enabled() and not transformed():
            return super().differentiate(kept, gradients, options)
        # Somebody will differentiate again, what the compiled code cannot.
        (y, z, weight), (grad,), (eps,) = kept, gradients, options
        r = torch.rsqrt(y.square().mean(-1, keepdim=True) + eps)
        opening = torch.sigmoid(z)
        n, gate = y * r, z * opening
        h = grad * weight * gate
        grad_y = r * (h - n * (h * n).mean(-1, keepdim=True))
        grad_z = grad * n * weight * (opening + gate * (1 - opening))
        return grad_y, grad_z, (grad * n * gate).flatten(0, -2).sum(0)


OP = GatedNormOp()
_gated_norm = OP.operator
