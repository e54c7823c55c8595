"""Where half precision would do harm."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on the tensor's device (the meta device knows none)."""
    device = tensor.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):  # to ask is five times faster than to switch off
        return nullcontext()
    return torch.autocast(device, enabled=False)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which transforms, exponentials and recurrences of `dtype` are computed: at least float32."""
    return torch.promote_types(dtype, torch.float32)
