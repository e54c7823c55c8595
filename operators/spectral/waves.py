"""Waves of real fields on an image grid, and back, with real and imaginary part in an axis of their own."""

from __future__ import annotations

import torch
from torch import Tensor


def waves(u: Tensor, norm: str) -> Tensor:
    """Transform (B, H, W // 2 + 1, D, 2) of a real field (B, H, W, D); `norm` as in `torch.fft`."""
    if not len(u):  # torch refuses to transform an empty batch
        return u.sum() * u.new_zeros(0, u.shape[1], u.shape[2] // 2 + 1, u.shape[3], 2)
    return torch.view_as_real(torch.fft.rfft2(u, dim=(1, 2), norm=norm))


def field(waves: Tensor, width: int, norm: str) -> Tensor:
    """The real field (B, H, W, D) of waves (B, H, W // 2 + 1, D, 2), whose part that no real field has is left out."""
    height = waves.shape[1]
    if not len(waves):
        return waves.sum() * waves.new_zeros(0, height, width, waves.shape[3])
    return torch.fft.irfft2(torch.view_as_complex(waves.contiguous()), s=(height, width), dim=(1, 2), norm=norm)
