"""A filter of images whose channels come last, given by its transfer function, as an operator of torch for the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import ceil
from typing import Any

import torch
from torch import Tensor

from operators.cpu.op import DTYPES, LANES, CpuOp, Tensors, channels_together, strides
from operators.errors import InputError, check_choice
from operators.pde.boundary import Boundary, extended
from operators.pde.separable_op import LEAST_TASKS
from operators.runtime.tensors import ordinary_tensors

MODES = {"periodic": 0, "neumann": 1, "dirichlet": -1, "absorbing": 2}


def serves(height: int, width: int, boundary: Boundary) -> bool:
    """Whether there is code for the extended grid: sides of at least 2 without factors other than 2, 3, 5 and 7."""
    return all(side > 1 and not _rest(side) > 1 for side in extended((height, width), boundary))


def _rest(length: int) -> int:
    for factor in (2, 3, 5, 7):
        while length % factor == 0:
            length //= factor
    return length


@lru_cache
def _plan(length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    passes, numbers = OP.load("transform").table(length, DTYPES[dtype])
    with ordinary_tensors():
        return torch.from_numpy(passes), torch.from_numpy(numbers)


class FilterOp(CpuOp):
    """irfft2(rfft2(u) · response) per image and channel, on the grid as boundaries extend it, on the CPU.

    u and y (B, H, W, D) of float32 or float64, which `serves`; response (2, P, Q // 2 + 1, D), real and imaginary part
    of that of a real kernel on the extended grid, P × Q, whose sides are twice as long unless they are periodic;
    row_axis, column_axis: the boundary of either axis, see `operators.pde.propagate`.
    """

    name = "filter"
    title = "the compiled filter"
    instead = "set the backend (pde.method of pde_ssm) to auto or fft"
    once_only = "the compiled filter has no second derivatives: set the backend (pde.method of pde_ssm) to fft"
    module = "fft_filter"
    tensors = ("u", "response")
    options = ("str row_axis", "str column_axis")
    results = ("y",)
    multiple = LANES
    thread_least = 1 << 20  # a number of the image counts as 16 multiply-adds

    def shapes(self, given: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        _, height, width, channels = image = tuple(given["u"].shape)
        rows, columns = extended((height, width), (given["row_axis"], given["column_axis"]))
        return {"u": image, "response": (2, rows, columns // 2 + 1, channels), "y": image}

    def check(self, given: Mapping[str, Any], tensors: Sequence[str]) -> None:
        _, height, width, _ = given["u"].shape
        boundary = given["row_axis"], given["column_axis"]
        for word in boundary:
            check_choice("boundary", word, MODES)
        if not serves(height, width, boundary):
            raise InputError(
                "the compiled filter takes sides of 2 and more without factors other than 2, 3, 5, 7, not "
                f"{height}x{width}"
            )
        super().check(given, tensors)

    def forward(self, u: Tensor, response: Tensor, row_axis: str, column_axis: str) -> Tensors:
        u, y = channels_together(u), u.new_empty(u.shape)
        tasks = u.shape[-1] // LANES * len(u)
        self.run("forward", tasks, 16 * u.numel(), **self._fields(u, response, row_axis, column_axis), y=y)
        return (y,)

    def backward(self, u: Tensor, response: Tensor, grad: Tensor, row_axis: str, column_axis: str) -> Tensors:
        blocks = u.shape[-1] // LANES
        parts = min(len(u), ceil(LEAST_TASKS / blocks))
        grad_u, by_part = u.new_empty(u.shape), response.new_empty(parts, *response.shape)
        u, grad = channels_together(u), channels_together(grad)
        fields = {
            **self._fields(u, response, row_axis, column_axis), **strides("grad", grad), "grad_response": by_part,
        }  # fmt: skip
        self.run("backward", blocks * parts, 16 * u.numel(), **fields, grad_y=grad, grad_u=grad_u, parts=parts)
        return grad_u, by_part.sum(0) if parts > 1 else by_part[0]

    def _fields(self, u: Tensor, response: Tensor, row_axis: str, column_axis: str) -> dict[str, Any]:
        batch, height, width, channels = u.shape
        rows, columns = extended((height, width), (row_axis, column_axis))
        row_passes, row_turns = _plan(rows, u.dtype)
        column_passes, column_turns = _plan(columns, u.dtype)
        return {
            "u": u, "response": response.contiguous(), "row_passes": row_passes, "row_turns": row_turns,
            "column_passes": column_passes, "column_turns": column_turns, "batch": batch, "height": height,
            "width": width, "channels": channels, "rows": rows, "columns": columns, "row_mode": MODES[row_axis],
            "column_mode": MODES[column_axis],
            **strides("u", u),
        }  # fmt: skip


OP = FilterOp()
filtered, filtered_backward = OP.operator, OP.gradient
