"""The scan as two operators of torch, forward and backward, whatever carries them out."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from operators.errors import InputError
from operators.runtime.differentiation import refuse_forward_mode
from operators.scan import chunked, cpu, cuda

ENGINES: dict[str, ModuleType] = {"cpu": cpu, "chunked": chunked, "mamba_ssm": cuda}
"""Each with `forward` and `backward`; what they keep for the backward pass is the state before each chunk."""

_WAY_OUT = ("the scan", "use the backend auto or reference")
_ARGUMENTS = "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C"


def _in_layout(result: Tensor, layout: Tensor) -> Tensor:
    """`result` with the strides of `layout`: an operator's fake must foretell them."""
    if result.stride() == layout.stride():
        return result
    return result.new_empty_strided(layout.shape, layout.stride()).copy_(result)


@torch.library.custom_op(
    "operator_zoo::selective_scan_fwd",
    mutates_args=(),
    schema=f"({_ARGUMENTS}, Tensor initial, bool reverse, str engine) -> (Tensor, Tensor, Tensor)",
)
def scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial: Tensor, reverse: bool, engine: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The recurrence h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, y_t = C_t · h_t in float32 or float64.

    Args:
        u: (B, D, L); every other tensor has its type.
        delta: (B, D, L).
        A: (D, S).
        B: (B, G, S, L); group g serves channels g D/G to (g + 1) D/G - 1.
        C: (B, G, S, L).
        initial: (B, D, S).
        reverse: whether the scan runs from the last step to the first.
        engine: one of `ENGINES`.

    Returns:
        y (B, D, L), the last state (B, D, S), the states before the chunks (B, chunks, S, D).
    """
    refuse_forward_mode(*_WAY_OUT)
    y, last, states = ENGINES[engine].forward(u, delta, A, B, C, initial, reverse)
    return _in_layout(y, torch.empty_like(u, device="meta")), last.contiguous(), states.contiguous()


@scan.register_fake
def _(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial: Tensor, reverse: bool, engine: str
) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels, length = u.shape
    chunks = 0 if engine == "mamba_ssm" else (length + chunked.CHUNK - 1) // chunked.CHUNK
    states = u.new_empty(batch, chunks, A.shape[1], channels)
    return torch.empty_like(u), u.new_empty(batch, channels, A.shape[1]), states


def _gradients(u: Tensor, delta: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, ...]:
    """Uninitialised gradients, in the layout in which they are returned."""
    batch, groups, size, length = B.shape
    shared = [u.new_empty(batch, groups, length, size).mT for _ in "BC"]
    return (torch.empty_like(u), torch.empty_like(delta), u.new_empty(A.shape), *shared, u.new_empty(batch, *A.shape))


@torch.library.custom_op(
    "operator_zoo::selective_scan_bwd",
    mutates_args=(),
    schema=f"({_ARGUMENTS}, Tensor states, Tensor grad_y, Tensor grad_last, bool reverse, str engine) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def scan_backward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    states: Tensor,
    grad_y: Tensor,
    grad_last: Tensor,
    reverse: bool,
    engine: str,
) -> tuple[Tensor, ...]:
    """Gradients of u, delta, A, B, C and the initial state, from those of y and of the last state."""
    refuse_forward_mode(*_WAY_OUT)
    found = ENGINES[engine].backward(u, delta, A, B, C, states, grad_y, grad_last, reverse)
    layouts = _gradients(*(torch.empty_like(tensor, device="meta") for tensor in (u, delta, A, B)))
    return tuple(_in_layout(gradient, layout) for gradient, layout in zip(found, layouts, strict=True))


@scan_backward.register_fake
def _(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, states: Tensor, grad_y: Tensor, *_: Any
) -> tuple[Tensor, ...]:
    return _gradients(u, delta, A, B)


def _refuse(ctx: Any, *gradients: Tensor) -> None:
    raise InputError("the scan has second derivatives with backend='reference' only")


scan_backward.register_autograd(_refuse)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    u, delta, A, B, C, _, ctx.reverse, ctx.engine = inputs
    ctx.save_for_backward(u, delta, A, B, C, output[2])


def _differentiate(ctx: Any, grad_y: Tensor, grad_last: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return (*scan_backward(*ctx.saved_tensors, grad_y, grad_last, ctx.reverse, ctx.engine), None, None)


scan.register_autograd(_differentiate, setup_context=_keep)
