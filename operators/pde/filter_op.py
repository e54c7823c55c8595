"""A filter of images whose channels come last, given by its transfer function, as an operator of torch for the CPU."""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import Any

import torch
from torch import Tensor

from operators.errors import InputError, check_choice
from operators.pde.separable_op import LANES, LEAST_TASKS, THREAD_LEAST, channels_together, narrow, widened
from operators.runtime.differentiation import refuse_forward_mode
from operators.runtime.once import once
from operators.runtime.tensors import check_tensors, ordinary_tensors

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


@once
def _kernels(dtype: torch.dtype) -> tuple[Any, Any]:
    # Here and not above: importing numba takes half a second, which those who do without need not wait for.
    from operators.cpu.fft_filter import compiled

    return compiled(_name(dtype))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@lru_cache
def _plan(length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    from operators.cpu.transform import table

    passes, numbers = table(length, _name(dtype))
    with ordinary_tensors():
        return torch.from_numpy(passes), torch.from_numpy(numbers)


def _run(index: int, tensors: list[Tensor], numbers: list[int], tasks: int, boundary: str) -> None:
    from operators.cpu import sharing

    field = tensors[0]
    _, height, width, _ = field.shape
    rows, columns = _extended(height, width, boundary)
    plans = [*_plan(rows, field.dtype), *_plan(columns, field.dtype)]
    sizes = [height, width, rows, columns]
    threads = max(1, min(torch.get_num_threads(), tasks, 16 * field.numel() // THREAD_LEAST))
    at = 3 * (index + 1)
    sharing.run(
        _kernels(field.dtype)[index], [*tensors, *plans], [*numbers[:at], *sizes, *numbers[at:]], tasks, threads
    )


def _check(u: Tensor, response: Tensor, boundary: str, grad: Tensor | None = None) -> None:
    refuse_forward_mode("the compiled filter", "set pde.method to auto or fft")
    check_choice("boundary", boundary, MODES)
    batch, height, width, channels = u.shape
    if not serves(height, width, boundary):
        raise InputError(
            f"the compiled filter takes sides of 2 and more without factors other than 2, 3, 5, 7, not {height}x{width}"
        )
    rows, columns = _extended(height, width, boundary)
    shapes = {
        "u": (u, (batch, height, width, channels)),
        "response": (response, (2, rows, columns // 2 + 1, channels)),
        "the gradient": (u if grad is None else grad, (batch, height, width, channels)),
    }
    check_tensors("the compiled filter", u, shapes)


@torch.library.custom_op("operator_zoo::filter_fwd", mutates_args=())
def filtered(u: Tensor, response: Tensor, boundary: str) -> Tensor:
    """Compute irfft2(rfft2(u) · response) per image and channel, on the grid as `boundary` extends it, on the CPU.

    Args:
        u: (B, H, W, D) of float32 or float64, which `serves`.
        response: (2, P, Q // 2 + 1, D), real and imaginary part, of the same type; P × Q is H × W if periodic, and
            2H × 2W else. That of a real kernel.
        boundary: see `operators.pde.propagate`.

    Returns:
        (B, H, W, D), contiguous.
    """
    _check(u, response, boundary)
    batch, _, _, channels = u.shape
    if channels % LANES:
        return narrow(filtered(*widened(u, response), boundary), channels)
    y = u.new_empty(u.shape)
    if not batch:
        return y
    u = channels_together(u)
    tasks = channels // LANES * batch
    _run(0, [u, response.contiguous(), y], [*u.stride()[:3], batch, channels, MODES[boundary]], tasks, boundary)
    return y


@filtered.register_fake
def _(u: Tensor, response: Tensor, boundary: str) -> Tensor:
    return u.new_empty(u.shape)


@torch.library.custom_op("operator_zoo::filter_bwd", mutates_args=())
def filtered_backward(u: Tensor, response: Tensor, grad: Tensor, boundary: str) -> tuple[Tensor, Tensor]:
    """Gradients of u and the response from that of the output of `filtered`, contiguous."""
    _check(u, response, boundary, grad)
    batch, _, _, channels = u.shape
    if not batch:
        return u.new_empty(u.shape), torch.zeros_like(response)
    if channels % LANES:
        a, b = filtered_backward(*widened(u, response, grad), boundary)
        return narrow(a, channels), narrow(b, channels)
    blocks = channels // LANES
    parts = min(batch, ceil(LEAST_TASKS / blocks))
    grad_u, by_part = u.new_empty(u.shape), response.new_empty(parts, *response.shape)
    u, grad = channels_together(u), channels_together(grad)
    numbers = [*u.stride()[:3], *grad.stride()[:3], batch, channels, MODES[boundary], parts]
    _run(1, [u, response.contiguous(), grad, grad_u, by_part], numbers, blocks * parts, boundary)
    return grad_u, by_part.sum(0) if parts > 1 else by_part[0]


@filtered_backward.register_fake
def _(u: Tensor, response: Tensor, grad: Tensor, boundary: str) -> tuple[Tensor, Tensor]:
    return u.new_empty(u.shape), response.new_empty(response.shape)


def _refuse(ctx: Any, *gradients: Tensor) -> None:
    raise InputError("the compiled filter has no second derivatives: set pde.method to fft")


filtered_backward.register_autograd(_refuse)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, str], output: Tensor) -> None:
    u, response, ctx.boundary = inputs
    ctx.save_for_backward(u, response)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    return *filtered_backward(*ctx.saved_tensors, grad, ctx.boundary), None


filtered.register_autograd(_differentiate, setup_context=_keep)
