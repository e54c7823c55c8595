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
from operators.pde.separable_op import LEAST_TASKS
from operators.runtime.tensors import ordinary_tensors

MODES = {"periodic": 0, "neumann": 1, "dirichlet": -1, "absorbing": 2}


def serves(height: int, width: int, boundary: str) -> bool:
    """Whether there is code for the extended grid: sides of at least 2 without factors other than 2, 3, 5 and 7."""
    return all(side > 1 and not _rest(side) > 1 for side in _extended(height, width, boundary))


def _extended(height: int, width: int, boundary: str) -> tuple[int, int]:
    return (height, width) if boundary == "periodic" else (2 * height, 2 * width)


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
    """irfft2(rfft2(u) · response) per image and channel, on the grid as `boundary` extends it, on the CPU.

    u and y (B, H, W, D) of float32 or float64, which `serves`; response (2, P, Q // 2 + 1, D), real and imaginary part
    of that of a real kernel: P × Q is H × W if periodic, and 2H × 2W else; boundary: see `operators.pde.propagate`.
    """

    name = "filter"
    title = "the compiled filter"
    instead = "set the backend (pde.method of pde_ssm) to auto or fft"
    once_only = "the compiled filter has no second derivatives: set the backend (pde.method of pde_ssm) to fft"
    module = "fft_filter"
    tensors = ("u", "response")
    options = ("str boundary",)
    results = ("y",)
    multiple = LANES
    thread_least = 1 << 20  # a number of the image counts as 16 multiply-adds

    def shapes(self, given: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        _, height, width, channels = image = tuple(given["u"].shape)
        rows, columns = _extended(height, width, given["boundary"])
        return {"u": image, "response": (2, rows, columns // 2 + 1, channels), "y": image}

    def check(self, given: Mapping[str, Any], tensors: Sequence[str]) -> None:
        _, height, width, _ = given["u"].shape
        check_choice("boundary", given["boundary"], MODES)
        if not serves(height, width, given["boundary"]):
            raise InputError(
                "the compiled filter takes sides of 2 and more without factors other than 2, 3, 5, 7, not "
                f"{height}x{width}"
            )
        super().check(given, tensors)

    def forward(self, u: Tensor, response: Tensor, boundary: str) -> Tensors:
        u, y = channels_together(u), u.new_empty(u.shape)
        tasks = u.shape[-1] // LANES * len(u)
        self.run("forward", tasks, 16 * u.numel(), **self._fields(u, response, boundary), y=y)
        return (y,)

    def backward(self, u: Tensor, response: Tensor, grad: Tensor, boundary: str) -> Tensors:
        blocks = u.shape[-1] // LANES
        parts = min(len(u), ceil(LEAST_TASKS / blocks))
        grad_u, by_part = u.new_empty(u.shape), response.new_empty(parts, *response.shape)
        u, grad = channels_together(u), channels_together(grad)
        fields = {**self._fields(u, response, boundary), **strides("grad", grad), "grad_response": by_part}
        self.run("backward", blocks * parts, 16 * u.numel(), **fields, grad_y=grad, grad_u=grad_u, parts=parts)
        return grad_u, by_part.sum(0) if parts > 1 else by_part[0]

    def _fields(self, u: Tensor, response: Tensor, boundary: str) -> dict[str, Any]:
        batch, height, width, channels = u.shape
        rows, columns = _extended(height, width, boundary)
        row_passes, row_turns = _plan(rows, u.dtype)
        column_passes, column_turns = _plan(columns, u.dtype)
        return {
            "u": u, "response": response.contiguous(), "row_passes": row_passes, "row_turns": row_turns,
            "column_passes": column_passes, "column_turns": column_turns, "batch": batch, "height": height,
            "width": width, "channels": channels, "rows": rows, "columns": columns, "mode": MODES[boundary],
            **strides("u", u),
        }  # fmt: skip


OP = FilterOp()
filtered, filtered_backward = OP.operator, OP.gradient
