"""What caches and compiled code ask of tensors: to be ordinary ones, and of the sizes that were agreed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from operators.errors import InputError
from operators.runtime.torch_private import without_modes

Shapes = Mapping[str, tuple[Tensor, tuple[int, ...]]]
"""By the name of a tensor: the tensor, and the shape that it has to have."""


@contextmanager
def ordinary_tensors() -> Iterator[None]:
    """Within the block new tensors are ordinary ones on the CPU without gradients, whatever the caller's context is.

    What a cache keeps outlives the call that made it: inference mode, torch's fake tensors, tracing, another default
    device or a function transform of that call would stay in it for everybody.
    """
    with (
        without_modes(),
        torch.inference_mode(False),
        torch.no_grad(),
        torch.device("cpu"),
    ):
        yield


def check_tensors(operation: str, like: Tensor, shapes: Shapes) -> None:
    """Raise `InputError` unless every tensor has its shape, the type of `like`, and lies on the CPU, as `like` does.

    Compiled code reads memory by these sizes, without a look at where an array ends.
    """
    if like.dtype not in (torch.float32, torch.float64):
        raise InputError(f"{operation} takes float32 or float64, not {like.dtype}")
    for name, (tensor, shape) in shapes.items():
        if tensor.shape != shape:
            raise InputError(f"{operation} takes {name} of shape {shape}, not {tuple(tensor.shape)}")
        if tensor.dtype != like.dtype:
            raise InputError(f"{operation} takes {name} of type {like.dtype}, not {tensor.dtype}")
        if tensor.device.type != "cpu":
            raise InputError(f"{operation} takes {name} on the CPU, not on {tensor.device}")
