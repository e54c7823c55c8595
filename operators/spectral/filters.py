"""Convolution theorem: y = irfft2(rfft2(u) · R), in real numbers outside, at least in float32 inside.

A field u is (B, H, W, D). A response R is (2, P, Q // 2 + 1, D), real and imaginary part of the transform of a kernel
on the extended grid P × Q: H × W for `periodic`, 2H × 2W for `absorbing`, where the field is zero outside of the image.
In the columns 0 and Q / 2, which are their own conjugates, the part of R that no real kernel has acts on nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from operators.cost import complex_product_macs, fft_macs
from operators.pde.filter_op import filtered
from operators.pde.propagators import apply_transfer
from operators.precision import full_precision


def extended(height: int, width: int, boundary: str) -> tuple[int, int]:
    """The grid P × Q on which a filter of an image is a circular convolution."""
    return (height, width) if boundary == "periodic" else (2 * height, 2 * width)


def apply_filter(u: Tensor, response: Tensor, boundary: str, backend: str) -> Tensor:
    """The field u (B, H, W, D) filtered, in its own type; `backend`: one of `operators.spectral.choice.BACKENDS`."""
    if not len(u):  # transforms refuse an empty batch
        return u * response.sum().to(u.dtype)
    with full_precision(u):
        field = u.to(response.dtype)
        if backend == "compiled_fft":
            return filtered(field, response, boundary, boundary).to(u.dtype)
        if backend == "reference":
            return apply_directly(field, response, boundary).to(u.dtype)
        return apply_transfer(field, as_complex(response), boundary, last=True).to(u.dtype)


def as_complex(response: Tensor) -> Tensor:
    """A complex tensor (…) from its real and imaginary part (2, …)."""
    return torch.complex(response[0], response[1])


def apply_directly(u: Tensor, response: Tensor, boundary: str) -> Tensor:
    """The definition: the kernel of the response, summed over all offsets of the extended grid."""
    height, width = u.shape[1:3]
    rows, columns = extended(height, width, boundary)
    kernel = kernel_of(response, columns)
    field = torch.nn.functional.pad(u, (0, 0, 0, columns - width, 0, rows - height))
    y = torch.zeros_like(field)
    for p in range(rows):
        for q in range(columns):
            y = y + kernel[p, q] * field.roll((p, q), (1, 2))
    return y[:, :height, :width]


def kernel_of(response: Tensor, columns: int) -> Tensor:
    """The real kernel (P, Q, D) of a response (2, P, Q // 2 + 1, D), by its sum over waves."""
    rows = response.shape[1]
    k, m = (torch.arange(n, device=response.device) for n in (rows, columns // 2 + 1))
    p, q = (torch.arange(n, device=response.device) for n in (rows, columns))
    # Of a wave and its conjugate, only one is in the half plane.
    share = torch.where((m == 0) | (2 * m == columns), 1.0, 2.0).to(response.dtype) / (rows * columns)
    turns = ((p[:, None] * k).to(response.dtype) / rows)[:, None, :, None]
    turns = turns + ((q[:, None] * m).to(response.dtype) / columns)[None, :, None, :]
    angle = 2 * math.pi * turns
    real, imaginary = response
    cosines = torch.einsum("pqkm,kmd->pqd", angle.cos() * share, real)
    return cosines - torch.einsum("pqkm,kmd->pqd", angle.sin() * share, imaginary)


def respond(kernel: Tensor, rows: int, columns: int) -> Tensor:
    """The response (2, rows, columns // 2 + 1, D) of a kernel (K, L, D) at the offsets 0 … K - 1 and 0 … L - 1."""
    made = torch.view_as_real(torch.fft.rfft2(kernel, s=(rows, columns), dim=(0, 1)))
    return made.movedim(-1, 0)


def respond_centred(kernel: Tensor, height: int, width: int) -> Tensor:
    """The response on 2H × 2W of a kernel (2H - 1, 2W - 1, D) at the offsets 1 - H … H - 1 and 1 - W … W - 1."""
    shifted = torch.nn.functional.pad(kernel, (0, 0, 1, 0, 1, 0))
    return respond(torch.fft.ifftshift(shifted, dim=(0, 1)), 2 * height, 2 * width)


def filter_macs(height: int, width: int, boundary: str) -> float:
    """MACs of a filter per channel: a real transform there and one back, and a complex product."""
    rows, columns = extended(height, width, boundary)
    return 2 * fft_macs(rows * columns) + complex_product_macs(rows * (columns // 2 + 1))
