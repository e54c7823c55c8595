"""The separable propagator on images whose channels come last, as an operator of torch: compiled, for the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import ceil
from typing import Any

import torch
from torch import Tensor

from operators.cpu.op import DTYPES, LANES, CpuOp, Tensors, channels_together, strides

LEAST_TASKS = 16
"""Tasks of the backward pass, at least, that a batch is cut into where it can be; results do not depend on threads."""
MOST_BLOCKS = 4
"""Most blocks of channels in a task: they lie side by side in memory."""
CACHE = 1 << 20
"""Bytes that the matrices of a task may take: a core's second-level cache."""


class SeparableOp(CpuOp):
    """y_ij = skip u_ij + sum over s, k, l of rows_sik columns_sjl u_kl for each image and channel, on the CPU.

    u and y (B, H, W, D) of float32 or float64, rows (S, H, H, D), columns (S, W, W, D), skip (D,).
    """

    name = "separable"
    title = "the compiled propagator"
    instead = "set pde.method to auto, separable or fft"
    once_only = "the compiled propagator has no second derivatives: set pde.method to separable or fft"
    module = "separable"
    tensors = ("u", "rows", "columns", "skip")
    results = ("y",)
    multiple = LANES
    thread_least = 1 << 20  # multiply-adds

    def shapes(self, given: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        _, height, width, channels = image = tuple(given["u"].shape)
        states = given["rows"].shape[0]
        matrices = {"rows": (states, height, height, channels), "columns": (states, width, width, channels)}
        return {"u": image, **matrices, "skip": (channels,), "y": image}

    def forward(self, u: Tensor, rows: Tensor, columns: Tensor, skip: Tensor) -> Tensors:
        batch, height, width, channels = u.shape
        u, y = channels_together(u), u.new_empty(u.shape)
        work = len(rows) * u.numel() * (height + width)
        bundle, tasks = self.bundles(channels // LANES, batch, _bytes_of_block(rows, columns), work)
        self.run("forward", tasks, work, **self._fields(u, rows, columns, skip, bundle), y=y)
        return (y,)

    def backward(self, u: Tensor, rows: Tensor, columns: Tensor, skip: Tensor, grad: Tensor) -> Tensors:
        batch, height, width, channels = u.shape
        blocks = channels // LANES
        parts = min(batch, ceil(LEAST_TASKS / blocks))
        grad_u, u, grad = u.new_empty(u.shape), channels_together(u), channels_together(grad)
        by_part = {f"grad_{name}": x.new_empty(parts, *x.shape) for name, x in (("rows", rows), ("columns", columns))}
        by_part["grad_skip"] = skip.new_zeros(parts, channels)
        work = 3 * len(rows) * u.numel() * (height + width)
        bundle, tasks = self.bundles(blocks, parts, 2 * _bytes_of_block(rows, columns), work)
        fields = {**self._fields(u, rows, columns, skip, bundle), **strides("grad", grad), **by_part}
        self.run("backward", tasks, work, **fields, grad_y=grad, grad_u=grad_u, parts=parts)
        return grad_u, *(x.sum(0) if parts > 1 else x[0] for x in by_part.values())

    def bundles(self, blocks: int, parts: int, bytes_of_block: int, work: int) -> tuple[int, int]:
        """How many blocks of channels a task has, and how many tasks there are. Results do not depend on it."""
        threads = self.threads(blocks * parts, work)
        bundle = MOST_BLOCKS
        while bundle > 1 and (bundle * bytes_of_block > CACHE or ceil(blocks / bundle) * parts < 4 * threads):
            bundle //= 2
        return bundle, ceil(blocks / bundle) * parts

    def _fields(self, u: Tensor, rows: Tensor, columns: Tensor, skip: Tensor, bundle: int) -> dict[str, Any]:
        batch, height, width, channels = u.shape
        return {
            "u": u, "rows": rows.contiguous(), "columns": columns.contiguous(), "skip": skip.contiguous(),
            "batch": batch, "height": height, "width": width, "channels": channels, "states": len(rows),
            "bundle": bundle, **strides("u", u), **_contractions(u.dtype),
        }  # fmt: skip


def _bytes_of_block(rows: Tensor, columns: Tensor) -> int:
    return LANES * rows.element_size() * len(rows) * (rows.shape[1] ** 2 + columns.shape[1] ** 2)


@lru_cache
def _contractions(dtype: torch.dtype) -> dict[str, int]:
    codes: dict[str, int] = OP.load("contraction").contractions(DTYPES[dtype])._asdict()
    return codes


OP = SeparableOp()
separable, separable_backward = OP.operator, OP.gradient
