"""Random tensors that are a pure function of (seed, epoch, sample index, purpose); see `tasks.data.keyed`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tasks.data import keyed


def normal(
    seed: int,
    index: keyed.Index,
    shape: Sequence[int],
    purpose: str = "noise",
    epoch: int | keyed.Index = 0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal numbers for each sample, independent of the batch that it is in.

    Args:
        seed: any integer.
        index: sample indices (B,).
        shape: of one sample; () for one number each.
        purpose: name of the stream; different names are independent.
        epoch: one for all or one per sample (B,); sampling leaves it at 0.
        dtype: of the result; drawn in float64.

    Returns:
        (B, *shape) on the CPU.
    """
    draws = keyed.normal(seed, epoch, index, purpose, torch.Size(shape).numel())
    return torch.from_numpy(draws).reshape(len(index), *shape).to(dtype)


def uniform(
    seed: int, index: keyed.Index, purpose: str, epoch: int | keyed.Index = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """One uniform number in [0, 1) for each sample, (B,) on the CPU; arguments as in `normal`."""
    draws = torch.from_numpy(keyed.uniform(seed, epoch, index, purpose)[:, 0]).to(dtype)
    return draws.clamp(max=1 - torch.finfo(dtype).eps / 2)  # rounding to float32 would reach 1
