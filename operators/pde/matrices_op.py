"""Matrices of the separable propagator with channels last, made from their coefficients in one compiled pass.

Torch takes a hundred operations for them and their gradients, which cost more than the products on small grids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from operators.cpu.availability import refusal
from operators.cpu.op import CpuOp, Tensors
from operators.pde.boundary import SIGNS, Boundary, by_axis
from operators.pde.propagators import MOST_BY_PRODUCT, axis_matrices
from operators.pde.symbols import Coefficients
from operators.runtime.tensors import ordinary_tensors

CHUNK = 64
"""Channels that a task takes together."""


def matrices(
    coefficients: Coefficients, gain: Tensor, height: int, width: int, boundary: Boundary
) -> tuple[Tensor, Tensor]:
    """`axis_matrices` as (S, H, H, D) and (S, W, W, D), from coefficients and a gain (D, S) on the CPU.

    Compiled where compiled code runs, for sides up to `MOST_BY_PRODUCT` and boundaries that extend the input by images
    of itself.
    """
    words = by_axis(boundary)
    if refusal() is not None or not set(words) <= set(SIGNS) or max(height, width) > MOST_BY_PRODUCT:
        made = axis_matrices(coefficients, height, width, boundary, gain)
        return made[0].permute(1, 2, 3, 0), made[1].permute(1, 2, 3, 0)
    c = coefficients
    if c.r is not None:
        gain = c.r.exp() * gain
    zero, one = torch.zeros_like(gain), torch.ones_like(gain)
    numbers = [zero if n is None else n for n in (c.kyy, c.kxx, c.vy, c.vx)]
    rows, columns = _matrices(torch.stack([*numbers, gain, one]).mT, height, width, *words)
    return rows, columns


@lru_cache(maxsize=32)
def _waves(length: int, boundary: str, dtype: torch.dtype) -> Tensor:
    """Cosine and sine of a P-th part of n turns, n = 0 … P - 1, one after the other."""
    with ordinary_tensors():
        turns = torch.arange(length if boundary == "periodic" else 2 * length, dtype=torch.float64)
        angles = turns * (2 * math.pi / len(turns))
        return torch.cat([angles.cos(), angles.sin()]).to(dtype)


class MatricesOp(CpuOp):
    """Matrices rows (S, H, H, D) and columns (S, W, W, D) of numbers (6, S, D): diffusion, velocity and gain of either
    axis in turn.
    """

    name = "separable_matrices"
    title = "the compiled propagator"
    instead = "set pde.method to auto, separable or fft"
    once_only = "the compiled propagator has no second derivatives: set pde.method to separable or fft"
    module = "axis_matrices"
    tensors = ("numbers",)
    options = ("int height", "int width", "str row_axis", "str column_axis")
    results = ("rows", "columns")
    thread_least = 1 << 16  # multiply-adds

    def shapes(self, given: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        height, width = given["height"], given["width"]
        states, channels = given["numbers"].shape[-2:]
        return {
            "numbers": (6, states, channels),
            "rows": (states, height, height, channels),
            "columns": (states, width, width, channels),
        }

    def forward(self, numbers: Tensor, height: int, width: int, row_axis: str, column_axis: str) -> Tensors:
        rows, columns = self.blank_results({"numbers": numbers, "height": height, "width": width})
        self._pass("forward", numbers, (height, width), (row_axis, column_axis), rows=rows, columns=columns)
        return rows, columns

    def backward(
        self, numbers: Tensor, grad_rows: Tensor, grad_columns: Tensor, height: int, width: int, row_axis: str,
        column_axis: str,
    ) -> Tensors:  # fmt: skip
        grad = numbers.new_empty(numbers.shape)
        given = {"grad_rows": grad_rows.contiguous(), "grad_columns": grad_columns.contiguous()}
        self._pass("backward", numbers, (height, width), (row_axis, column_axis), **given, grad_numbers=grad)
        return (grad,)

    def _pass(
        self, kernel: str, numbers: Tensor, sides: tuple[int, int], boundary: tuple[str, str], **others: Tensor
    ) -> None:
        (height, width), (_, states, channels) = sides, numbers.shape
        row_waves, column_waves = (_waves(n, word, numbers.dtype) for n, word in zip(sides, boundary, strict=True))
        row_sign, column_sign = (SIGNS[word] for word in boundary)
        tasks = 2 * states * math.ceil(channels / CHUNK)
        of_waves = sum(len(waves) ** 2 // 4 for waves in (row_waves, column_waves))
        work = states * channels * (of_waves + height**2 + width**2)
        self.run(
            kernel, tasks, work, numbers=numbers.contiguous(), row_waves=row_waves, column_waves=column_waves,
            height=height, width=width, row_sign=row_sign, column_sign=column_sign, states=states, channels=channels,
            chunk=CHUNK, **others,
        )  # fmt: skip


OP = MatricesOp()
_matrices, _matrices_backward = OP.operator, OP.gradient
