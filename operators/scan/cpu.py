"""The compiled scan: records of its kernels, filled."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

import torch
from torch import Tensor

from operators.scan.chunked import CHUNK, Gradients

Run = Callable[..., None]
"""What carries out the tasks of a kernel, as `CpuOp.run` does."""
VECTOR = 16
"""Channels come in multiples of this number: the lanes of the widest vector unit in float32."""
BLOCK = 64
"""Most channels in a block: its tiles of a backward pass with 16 states fill half a megabyte of cache."""


def _blocks(members: int) -> tuple[int, int]:
    """Blocks of a group of `members` channels, and the channels of each; independent of threads, as results must be."""
    blocks = ceil(members / BLOCK)
    return blocks, VECTOR * ceil(ceil(members / blocks) / VECTOR)


def _all_tasks(run: Run, kernel: str, u: Tensor, A: Tensor, B: Tensor, reverse: bool, **others: Any) -> None:
    batch, channels, _ = u.shape
    groups = B.shape[1]
    blocks, lanes = _blocks(channels // groups)
    work = u.numel() * A.shape[1]
    numbers = {"span": CHUNK, "lanes": lanes, "reverse": int(reverse)}
    run(kernel, batch * groups * blocks, work, u=u, A=A, B=B, **others, **numbers)


def forward(
    run: Run, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Output y (B, D, L), last state (B, D, S) and the states before the chunks (B, chunks, S, D)."""
    batch, channels, length = u.shape
    y = torch.empty_like(u)
    last = initial.clone(memory_format=torch.contiguous_format)
    states = u.new_empty(batch, ceil(length / CHUNK), A.shape[1], channels)
    _all_tasks(run, "forward", u, A, B, reverse, delta=delta, C=C, y=y, last=last, states=states)
    return y, last, states


def backward(
    run: Run,
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
    """Gradients of u, delta, A, B, C and the initial state."""
    batch, channels, length = u.shape
    groups, size = B.shape[1], A.shape[1]
    blocks, _ = _blocks(channels // groups)
    grad_u, grad_delta = torch.empty_like(u), torch.empty_like(delta)
    grad_initial = grad_last.clone(memory_format=torch.contiguous_format)
    grad_a = u.new_empty(batch, size, channels)
    grad_b, grad_c = (u.new_empty(blocks, batch, groups, length, size) for _ in "BC")
    written = {"grad_u": grad_u, "grad_delta": grad_delta, "grad_a": grad_a, "grad_b": grad_b, "grad_c": grad_c}
    _all_tasks(
        run, "backward", u, A, B, reverse, delta=delta, C=C, states=states, grad_y=grad_y, grad_last=grad_initial,
        **written,
    )  # fmt: skip
    return grad_u, grad_delta, grad_a.sum(0).T, grad_b.sum(0).mT, grad_c.sum(0).mT, grad_initial
