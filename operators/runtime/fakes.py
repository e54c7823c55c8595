"""Tensors without values: on the meta device, or torch's fake ones, with which a plan of a run is made."""

from __future__ import annotations

from torch import Tensor

from operators.runtime.torch_private import FakeTensor


def valueless(tensor: Tensor) -> bool:
    """Whether a tensor has a shape but no numbers to look at."""
    return tensor.is_meta or isinstance(tensor, FakeTensor)
