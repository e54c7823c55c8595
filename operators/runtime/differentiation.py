"""Who looks into operations: forward-mode differentiation and the function transforms of `torch.func`.

Custom operators and `autograd.Function`s know neither; the former drop forward-mode tangents in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from operators.errors import InputError
from operators.runtime import torch_private


def transformed() -> bool:
    """Whether a transform of `torch.func`, or forward-mode differentiation, is under way; never in compiled code."""
    if torch.compiler.is_compiling():
        return False
    return torch_private.transforms_active() or forward_mode()


def by_autograd() -> bool:
    """Whether autograd should differentiate an operation that has a gradient of its own as well.

    So under a transform, and in compiled code, where the compiler saves the passes over memory.
    """
    return torch.compiler.is_compiling() or transformed()


def differentiated() -> bool:
    """As `transformed`, `torch.vmap` apart, for which torch calls an operator again and again."""
    if not transformed():
        return False
    return forward_mode() or not torch_private.only_vmap_active()


def forward_mode() -> bool:
    """Whether forward-mode differentiation is under way, by torch's own count, which all threads share."""
    return torch_private.forward_levels() > 0


def refuse_forward_mode(operation: str, instead: str) -> None:
    """Raise `InputError` in forward-mode differentiation; every custom operator asks, since torch does not say so."""
    if forward_mode():
        raise InputError(f"{operation} has no forward-mode derivative: {instead}")


def through(
    plain: Callable[..., Any], tensors: Sequence[Tensor | None], options: Sequence[Any], gradients: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Gradients of `tensors` that can be differentiated again, by autograd through `plain(*tensors, *options)`."""
    with torch.enable_grad():
        outputs = plain(*tensors, *options)
    wanted = [tensor for tensor in tensors if tensor is not None and tensor.requires_grad]
    made = iter(
        torch.autograd.grad(outputs, wanted, gradients, create_graph=True, allow_unused=True, materialize_grads=True)
    )
    return tuple(None if tensor is None or not tensor.requires_grad else next(made) for tensor in tensors)
