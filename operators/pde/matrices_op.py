"""Matrices of the separable propagator with channels last, made from their coefficients in one compiled pass.

Torch takes a hundred operations for them and their gradients, which cost more than the products on small grids.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from operators.errors import InputError
from operators.pde.propagators import MOST_BY_PRODUCT, axis_matrices
from operators.pde.symbols import Coefficients
from operators.runtime.differentiation import refuse_forward_mode
from operators.runtime.once import once
from operators.runtime.tensors import check_tensors, ordinary_tensors

SIGNS = {"periodic": 0, "neumann": 1, "dirichlet": -1}
"""Of the image behind the edge."""
CHUNK = 64
"""Channels that a task takes together."""
THREAD_LEAST = 1 << 16
"""Multiply-adds below which a thread costs more than it saves."""


def matrices(coefficients: Coefficients, gain: Tensor, height: int, width: int, boundary: str) -> tuple[Tensor, Tensor]:
    """`axis_matrices` as (S, H, H, D) and (S, W, W, D), from coefficients and a gain (D, S) on the CPU.

    Compiled for sides up to `MOST_BY_PRODUCT` and boundaries that extend the input by images of itself.
    """
    if boundary not in SIGNS or max(height, width) > MOST_BY_PRODUCT:
        made = axis_matrices(coefficients, height, width, boundary, gain)
        return made[0].permute(1, 2, 3, 0), made[1].permute(1, 2, 3, 0)
    c = coefficients
    if c.r is not None:
        gain = c.r.exp() * gain
    zero, one = torch.zeros_like(gain), torch.ones_like(gain)
    numbers = [zero if n is None else n for n in (c.kyy, c.kxx, c.vy, c.vx)]
    rows, columns = _matrices(torch.stack([*numbers, gain, one]).mT, height, width, boundary)
    return rows, columns


@once
def _kernels(dtype: torch.dtype) -> tuple[Any, Any]:
    # Here and not above: importing numba takes half a second, which those who do without need not wait for.
    from operators.cpu.axis_matrices import compiled

    return compiled(str(dtype).removeprefix("torch."))


@lru_cache(maxsize=32)
def _waves(length: int, boundary: str, dtype: torch.dtype) -> Tensor:
    """Cosine and sine of a P-th part of n turns, n = 0 … P - 1, one after the other."""
    with ordinary_tensors():
        turns = torch.arange(length if boundary == "periodic" else 2 * length, dtype=torch.float64)
        angles = turns * (2 * math.pi / len(turns))
        return torch.cat([angles.cos(), angles.sin()]).to(dtype)


def _run(kernel: int, numbers: Tensor, height: int, width: int, boundary: str, others: list[Tensor]) -> None:
    from operators.cpu import sharing

    _, states, channels = numbers.shape
    tables = [_waves(length, boundary, numbers.dtype) for length in (height, width)]
    tasks = 2 * states * math.ceil(channels / CHUNK)
    work = states * channels * (sum(len(table) ** 2 // 4 for table in tables) + height**2 + width**2)
    threads = max(1, min(torch.get_num_threads(), tasks, work // THREAD_LEAST))
    sizes = [height, width, SIGNS[boundary], states, channels, CHUNK]
    sharing.run(_kernels(numbers.dtype)[kernel], [numbers, *tables, *others], sizes, tasks, threads)


def _check(numbers: Tensor, height: int, width: int, *gradients: Tensor) -> None:
    refuse_forward_mode("the compiled propagator", "set pde.method to auto, separable or fft")
    states, channels = numbers.shape[-2:]
    shapes: dict[str, tuple[Tensor, tuple[int, ...]]] = {"numbers": (numbers, (6, states, channels))}
    for axis, gradient, length in zip(("rows", "columns"), gradients, (height, width), strict=False):
        shapes[f"the gradient of {axis}"] = (gradient, (states, length, length, channels))
    check_tensors("the compiled propagator", numbers, shapes)


@torch.library.custom_op("operator_zoo::separable_matrices_fwd", mutates_args=())
def _matrices(numbers: Tensor, height: int, width: int, boundary: str) -> tuple[Tensor, Tensor]:
    """Matrices (S, H, H, D) and (S, W, W, D) of numbers (6, S, D): diffusion, velocity and gain, two axes each."""
    _check(numbers, height, width)
    _, states, channels = numbers.shape
    rows = numbers.new_empty(states, height, height, channels)
    columns = numbers.new_empty(states, width, width, channels)
    _run(0, numbers.contiguous(), height, width, boundary, [rows, columns])
    return rows, columns


@_matrices.register_fake
def _(numbers: Tensor, height: int, width: int, boundary: str) -> tuple[Tensor, Tensor]:
    _, states, channels = numbers.shape
    return (
        numbers.new_empty(states, height, height, channels),
        numbers.new_empty(states, width, width, channels),
    )


@torch.library.custom_op("operator_zoo::separable_matrices_bwd", mutates_args=())
def _matrices_backward(
    numbers: Tensor, grad_rows: Tensor, grad_columns: Tensor, height: int, width: int, boundary: str
) -> Tensor:
    _check(numbers, height, width, grad_rows, grad_columns)
    grad = numbers.new_empty(numbers.shape)
    given = [grad_rows.contiguous(), grad_columns.contiguous(), grad]
    _run(1, numbers.contiguous(), height, width, boundary, given)
    return grad


@_matrices_backward.register_fake
def _(numbers: Tensor, grad_rows: Tensor, grad_columns: Tensor, height: int, width: int, boundary: str) -> Tensor:
    return numbers.new_empty(numbers.shape)


def _refuse(ctx: Any, *gradients: Tensor) -> None:
    raise InputError("the compiled propagator has no second derivatives: set pde.method to separable or fft")


_matrices_backward.register_autograd(_refuse)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    numbers, *ctx.others = inputs
    ctx.save_for_backward(numbers)


def _differentiate(ctx: Any, grad_rows: Tensor, grad_columns: Tensor) -> tuple[Tensor | None, ...]:
    return _matrices_backward(ctx.saved_tensors[0], grad_rows, grad_columns, *ctx.others), None, None, None


_matrices.register_autograd(_differentiate, setup_context=_keep)
