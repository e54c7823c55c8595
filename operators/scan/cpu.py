"""The compiled scan on tensors: threads over images and blocks of channels."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from typing import Any

import torch
from torch import Tensor

from operators.errors import InputError
from operators.runtime.once import once
from operators.runtime.tensors import check_tensors
from operators.scan.chunked import CHUNK, Gradients

VECTOR = 16
"""Channels come in multiples of this number: the lanes of the widest vector unit in float32."""
BLOCK = 64
"""Most channels in a block: its tiles of a backward pass with 16 states fill half a megabyte of cache."""
THREAD_LEAST = 1 << 16
"""State updates below which a thread costs more than it saves."""


@once
def _kernels(dtype: torch.dtype) -> tuple[Callable[..., None], Callable[..., None]]:
    # Here and not above: importing numba takes half a second, which those who do not scan need not wait for.
    from operators.cpu.selective_scan import compiled

    return compiled(str(dtype).removeprefix("torch."))


def _blocks(members: int) -> tuple[int, int]:
    """Blocks of a group of `members` channels, and the channels of each; independent of threads, as results must be."""
    blocks = ceil(members / BLOCK)
    return blocks, VECTOR * ceil(ceil(members / blocks) / VECTOR)


def _share(kernel: Callable[..., None], tensors: tuple[Tensor, ...], lanes: int, reverse: bool, tasks: int) -> None:
    """Run `kernel` on all tasks, in as many threads as torch uses.

    Plain threads (the kernels release the interpreter's lock): numba's own thread pools do not survive a fork, and
    some abort when two threads call them.
    """
    arrays: list[Any] = [tensor.detach().numpy() for tensor in tensors]
    work = tensors[0].numel() * tensors[2].shape[1]
    threads = max(1, min(torch.get_num_threads(), tasks, work // THREAD_LEAST))
    if threads == 1:
        kernel(*arrays, CHUNK, lanes, reverse, 0, tasks)
        return
    bounds = [tasks * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(kernel, *arrays, CHUNK, lanes, reverse, *bounds[i : i + 2]) for i in range(1, threads)]
        kernel(*arrays, CHUNK, lanes, reverse, *bounds[:2])
        for other in others:
            other.result()


def _check(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, **others: Tensor) -> None:
    batch, channels, length = u.shape
    size, groups = A.shape[1], B.shape[1]
    if not groups or channels % groups:
        raise InputError(f"the compiled scan takes groups that divide the {channels} channels, not {groups}")
    shared, state = (batch, groups, size, length), (batch, channels, size)
    expected = {
        "the initial state": state,
        "the last state's gradient": state,
        "the gradient": (batch, channels, length),
        "the states": (batch, ceil(length / CHUNK), size, channels),
    }
    given: dict[str, tuple[Tensor, tuple[int, ...]]] = {
        "u": (u, (batch, channels, length)),
        "delta": (delta, (batch, channels, length)),
    }
    given |= {"A": (A, (channels, size)), "B": (B, shared), "C": (C, shared)}
    check_tensors("the compiled scan", u, given | {name: (t, expected[name]) for name, t in others.items()})


def forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Output y (B, D, L), last state (B, D, S) and the states before the chunks (B, chunks, S, D)."""
    _check(u, delta, A, B, C, **{"the initial state": initial})
    batch, channels, length = u.shape
    groups = B.shape[1]
    blocks, lanes = _blocks(channels // groups)
    y = torch.empty_like(u)
    last = initial.clone(memory_format=torch.contiguous_format)
    states = u.new_empty(batch, ceil(length / CHUNK), A.shape[1], channels)
    tensors = (u, delta, A, B, C, y, last, states)
    _share(_kernels(u.dtype)[0], tensors, lanes, reverse, batch * groups * blocks)
    return y, last, states


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
    """Gradients of u, delta, A, B, C and the initial state."""
    others = {"the states": states, "the gradient": grad_y, "the last state's gradient": grad_last}
    _check(u, delta, A, B, C, **others)
    batch, channels, length = u.shape
    groups, size = B.shape[1], A.shape[1]
    blocks, lanes = _blocks(channels // groups)
    grad_u, grad_delta = torch.empty_like(u), torch.empty_like(delta)
    grad_initial = grad_last.clone(memory_format=torch.contiguous_format)
    grad_a = u.new_empty(batch, size, channels)
    grad_b, grad_c = (u.new_empty(blocks, batch, groups, length, size) for _ in "BC")
    tensors = (u, delta, A, B, C, states, grad_y, grad_initial, grad_u, grad_delta, grad_a, grad_b, grad_c)
    _share(_kernels(u.dtype)[1], tensors, lanes, reverse, batch * groups * blocks)
    return grad_u, grad_delta, grad_a.sum(0).T, grad_b.sum(0).mT, grad_c.sum(0).mT, grad_initial
