"""The separable propagator on images whose channels come last, as an operator of torch: compiled, for the CPU."""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from operators.errors import InputError
from operators.runtime.differentiation import refuse_forward_mode
from operators.runtime.once import once
from operators.runtime.tensors import check_tensors

LANES = 16
LEAST_TASKS = 16
"""Tasks of the backward pass, at least, that a batch is cut into where it can be; results do not depend on threads."""
MOST_BLOCKS = 4
"""Most blocks of channels in a task: they lie side by side in memory."""
CACHE = 1 << 20
"""Bytes that the matrices of a task may take: a core's second-level cache."""
THREAD_LEAST = 1 << 20
"""Multiply-adds below which a thread costs more than it saves."""


@once
def _kernels(dtype: torch.dtype) -> tuple[Any, Any]:
    # Here and not above: importing numba takes half a second, which those who do without need not wait for.
    from operators.cpu.separable import compiled

    return compiled(str(dtype).removeprefix("torch."))


def channels_together(x: Tensor) -> Tensor:
    """It, or a copy whose channels are neighbours in memory."""
    return x if x.stride(-1) == 1 else x.contiguous()


def widened(*tensors: Tensor) -> list[Tensor]:
    """With zeros for the channels that are missing in the last block."""
    return [F.pad(tensor.detach(), (0, -tensor.shape[-1] % LANES)) for tensor in tensors]


def narrow(tensor: Tensor, channels: int) -> Tensor:
    """Without what `widened` has added."""
    return tensor[..., :channels].contiguous()


def _plan(blocks: int, parts: int, bytes_of_block: int, work: int) -> tuple[int, int, int]:
    """How many blocks of channels a task has, how many tasks there are, and threads. Results do not depend on it."""
    threads = max(1, min(torch.get_num_threads(), blocks * parts, work // THREAD_LEAST))
    bundle = MOST_BLOCKS
    while bundle > 1 and (bundle * bytes_of_block > CACHE or ceil(blocks / bundle) * parts < 4 * threads):
        bundle //= 2
    return bundle, ceil(blocks / bundle) * parts, threads


def _run(index: int, tensors: list[Tensor], numbers: list[int], tasks: int, threads: int) -> None:
    from operators.cpu import sharing
    from operators.cpu.contraction import contractions

    dtype = tensors[0].dtype
    codes = contractions(str(dtype).removeprefix("torch."))
    sharing.run(_kernels(dtype)[index], tensors, [*numbers, *codes], tasks, threads)


def _check(u: Tensor, rows: Tensor, columns: Tensor, skip: Tensor, grad: Tensor | None = None) -> None:
    refuse_forward_mode("the compiled propagator", "set pde.method to auto, separable or fft")
    batch, height, width, channels = u.shape
    states = rows.shape[0]
    shapes = {
        "u": (u, (batch, height, width, channels)),
        "rows": (rows, (states, height, height, channels)),
        "columns": (columns, (states, width, width, channels)),
        "skip": (skip, (channels,)),
        "the gradient": (u if grad is None else grad, (batch, height, width, channels)),
    }
    check_tensors("the compiled propagator", u, shapes)


@torch.library.custom_op("operator_zoo::separable_fwd", mutates_args=())
def separable(u: Tensor, rows: Tensor, columns: Tensor, skip: Tensor) -> Tensor:
    """y_ij = skip u_ij + sum over s, k, l of rows_sik columns_sjl u_kl for each image and channel, on the CPU.

    Args:
        u: (B, H, W, D) of float32 or float64; the others have its type.
        rows: (S, H, H, D).
        columns: (S, W, W, D).
        skip: (D,).

    Returns:
        (B, H, W, D), contiguous.
    """
    _check(u, rows, columns, skip)
    batch, height, width, channels = u.shape
    if channels % LANES:
        return narrow(separable(*widened(u, rows, columns, skip)), channels)
    states = rows.shape[0]
    y = u.new_empty(u.shape)
    if not batch:
        return y
    u = channels_together(u)
    given = [u, rows.contiguous(), columns.contiguous(), skip.contiguous()]
    of_block = LANES * u.element_size() * states * (height**2 + width**2)
    work = states * u.numel() * (height + width)
    bundle, tasks, threads = _plan(channels // LANES, batch, of_block, work)
    numbers = [*u.stride()[:3], batch, height, width, channels, states, bundle]
    _run(0, [*given, y], numbers, tasks, threads)
    return y


@separable.register_fake
def _(u: Tensor, rows: Tensor, columns: Tensor, skip: Tensor) -> Tensor:
    return u.new_empty(u.shape)


@torch.library.custom_op("operator_zoo::separable_bwd", mutates_args=())
def separable_backward(
    u: Tensor, rows: Tensor, columns: Tensor, skip: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, rows, columns and skip from that of the output of `separable`, all contiguous."""
    _check(u, rows, columns, skip, grad)
    batch, height, width, channels = u.shape
    if not batch:
        return u.new_empty(u.shape), torch.zeros_like(rows), torch.zeros_like(columns), torch.zeros_like(skip)
    if channels % LANES:
        a, b, c, d = separable_backward(*widened(u, rows, columns, skip, grad))
        return narrow(a, channels), narrow(b, channels), narrow(c, channels), narrow(d, channels)
    states = rows.shape[0]
    blocks = channels // LANES
    parts = min(batch, ceil(LEAST_TASKS / blocks))
    grad_u = u.new_empty(u.shape)
    by_part = [tensor.new_empty(parts, *tensor.shape) for tensor in (rows, columns)]
    by_part.append(skip.new_zeros(parts, channels))
    u, grad = channels_together(u), channels_together(grad)
    given = [u, rows.contiguous(), columns.contiguous(), skip.contiguous(), grad]
    of_block = 2 * LANES * u.element_size() * states * (height**2 + width**2)
    work = 3 * states * u.numel() * (height + width)
    bundle, tasks, threads = _plan(blocks, parts, of_block, work)
    numbers = [*u.stride()[:3], *grad.stride()[:3], batch, height, width, channels, states, bundle, parts]
    _run(1, [*given, grad_u, *by_part], numbers, tasks, threads)
    grad_rows, grad_columns, grad_skip = (tensor.sum(0) if parts > 1 else tensor[0] for tensor in by_part)
    return grad_u, grad_rows, grad_columns, grad_skip


@separable_backward.register_fake
def _(u: Tensor, rows: Tensor, columns: Tensor, skip: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        u.new_empty(u.shape),
        rows.new_empty(rows.shape),
        columns.new_empty(columns.shape),
        skip.new_empty(skip.shape),
    )


def _refuse(ctx: Any, *gradients: Tensor) -> None:
    raise InputError("the compiled propagator has no second derivatives: set pde.method to separable or fft")


separable_backward.register_autograd(_refuse)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    return separable_backward(*ctx.saved_tensors, grad)


separable.register_autograd(_differentiate, setup_context=_keep)
