"""Where half precision would do harm."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def under_autocast(tensor: Tensor) -> bool:
    """Whether autocast is on for the tensor's device (the meta device knows none)."""
    device = tensor.device.type
    return device != "meta" and torch.is_autocast_enabled(device)


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on the tensor's device."""
    if not under_autocast(tensor):  # to ask is five times faster than to switch off
        return nullcontext()
    return torch.autocast(tensor.device.type, enabled=False)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which transforms, exponentials and recurrences of `dtype` are computed: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def exact(tensor: Tensor) -> torch.dtype:
    """Float64, or where the tensor's device has none what `wide` says: for small parts that lose digits in float32."""
    return wide(tensor.dtype) if tensor.device.type == "mps" else torch.float64


def call_type(tensor: Tensor) -> torch.dtype:
    """The type in which products of the tensor run: that of autocast where it is on, else the tensor's."""
    if tensor.dtype == torch.float64 or not under_autocast(tensor):
        return tensor.dtype
    return torch.get_autocast_dtype(tensor.device.type)
