"""Two fast ways to apply the propagator: matrices along rows and columns, and real FFTs.

A boundary extends the input; the free propagator acts; the result is cropped. `neumann` extends evenly and `dirichlet`
oddly about the pixels' outer edges to 2H x 2W, `absorbing` by zeros to an unbounded plane.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from operators.pde.boundary import Boundary, by_axis, extended
from operators.pde.plane import axis_plane_kernel, summed_plane_kernel
from operators.pde.symbols import (
    Coefficients,
    axis_response,
    axis_waves,
    grid_response,
    half_axis,
)
from operators.runtime.differentiation import transformed
from operators.runtime.fakes import valueless
from operators.runtime.tensors import ordinary_tensors

MOST_BY_PRODUCT = 64
"""Pixels along an axis up to which its matrices are products with a table of waves, of 4 length³ numbers at most."""


class _Hankel(torch.autograd.Function):
    """h (..., 2n - 1) to the matrix (..., n, n) of h[i + j]; backward sums anti-diagonals without a scatter."""

    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        return h.unfold(-1, (h.shape[-1] + 1) // 2, 1).contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        n = gradient.shape[-1]
        # Rows padded to 2n and read back in rows of 2n - 1 slide by one column each: anti-diagonals become columns.
        wide = torch.nn.functional.pad(gradient, (0, n))
        slid = wide.flatten(-2)[..., : n * (2 * n - 1)].unflatten(-1, (n, 2 * n - 1))
        return slid.sum(-2)


class _Permuted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *order: int) -> Tensor:
        ctx.order = order
        return x.permute(order).contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inverse = sorted(range(len(ctx.order)), key=ctx.order.__getitem__)
        return gradient.permute(inverse).contiguous(), *[None] * len(ctx.order)


def permuted(x: Tensor, *order: int) -> Tensor:
    """`x.permute(order)` in memory, and likewise its gradient: batched products copy strided matrices one by one."""
    if transformed():
        return x.permute(order).contiguous()
    return _Permuted.apply(x, *order)


def hankel(h: Tensor) -> Tensor:
    """Matrix (..., n, n) of h[i + j] from h (..., 2n - 1)."""
    if transformed():
        return h.unfold(-1, (h.shape[-1] + 1) // 2, 1)
    return _Hankel.apply(h)


def toeplitz(kernel: Tensor) -> Tensor:
    """Matrix (..., n, n) of kernel[i - j] from a kernel (..., 2n - 1) at offsets 1-n … n-1."""
    return hankel(kernel.flip(-1)).flip(-2)


def axis_matrix(
    length: int,
    boundary: str,
    diffusion: Tensor | None,
    velocity: Tensor | None,
    gain: Tensor | None = None,
) -> Tensor:
    """Matrix (..., length, length) that propagates along one axis for diagonal K: a (folded) circulant, or Toeplitz.

    It is multiplied by `gain` (...,), before it is written out.
    """
    like = diffusion if diffusion is not None else velocity
    assert like is not None
    if boundary == "absorbing":
        return toeplitz(_scaled(axis_plane_kernel(length, diffusion, velocity, like), gain))
    period = length if boundary == "periodic" else 2 * length
    k = half_axis(period, like)
    if length <= MOST_BY_PRODUCT:
        amplitudes = _scaled(axis_waves(k, diffusion, velocity), gain)
        waves = _waves(length, boundary, velocity is not None, like)
        return (amplitudes @ waves).unflatten(-1, (length, length))
    response = axis_response(k, diffusion, velocity, even=period % 2 == 0)
    kernel = _scaled(torch.fft.irfft(response, n=period), gain)
    matrix = toeplitz(torch.cat([kernel[..., period - length + 1 :], kernel[..., :length]], dim=-1))
    if boundary == "periodic":
        return matrix
    image = hankel(kernel[..., 1:])
    return matrix + image if boundary == "neumann" else matrix - image


def _waves(length: int, boundary: str, moving: bool, like: Tensor) -> Tensor:
    """What turns amplitudes of `axis_waves` into a matrix: (waves, length²), with type and device of `like`."""
    if torch.compiler.is_compiling() or valueless(like):
        return _make_waves(length, boundary, moving, like.dtype, like.device)
    return _kept_waves(length, boundary, moving, like.dtype, like.device)


def _make_waves(length: int, boundary: str, moving: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    # A real inverse transform, at the offsets i - j, and for the image of pixel j behind the edge at i + j + 1.
    period = length if boundary == "periodic" else 2 * length
    number = torch.arange(period // 2 + 1, device=device)
    alone = (number == 0) | (2 * number == period)
    i = torch.arange(length, device=device)
    share = torch.where(alone, 1.0, 2.0).to(torch.float64)[:, None, None] / period

    def at(offset: Tensor) -> Tensor:
        # Whole numbers of turns are taken off first: the angles are then as exact as they can be.
        angle = (number[:, None, None] * offset).remainder(period).to(torch.float64) * (2 * math.pi / period)
        return torch.cat([angle.cos() * share, angle.sin() * share]) if moving else angle.cos() * share

    matrix = at(i[:, None] - i)
    if boundary != "periodic":
        image = at(i[:, None] + i + 1)
        matrix = matrix + image if boundary == "neumann" else matrix - image
    return matrix.flatten(1).to(dtype)


@lru_cache(maxsize=32)
def _kept_waves(length: int, boundary: str, moving: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    with ordinary_tensors():
        return _make_waves(length, boundary, moving, dtype, device)


def _scaled(values: Tensor, gain: Tensor | None) -> Tensor:
    return values if gain is None else values * gain[..., None]


def axis_matrices(
    coefficients: Coefficients,
    height: int,
    width: int,
    boundary: Boundary,
    gain: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Matrices (..., H, H) across rows and (..., W, W) across columns, whose product is the propagator times `gain`.

    Initial forcing and diagonal K only. The reaction and the `gain` (...,) are in the first.
    """
    c = coefficients
    if c.r is not None:
        gain = c.r.exp() if gain is None else c.r.exp() * gain
    row_axis, column_axis = by_axis(boundary)
    rows = axis_matrix(height, row_axis, c.kyy, c.vy, gain)
    return rows, axis_matrix(width, column_axis, c.kxx, c.vx)


def summed_transfer(
    coefficients: Coefficients, weight: Tensor, height: int, width: int, boundary: Boundary, forcing: str
) -> Tensor:
    """Weighted sum over states of transfer functions, on the half plane of the extended P × Q grid.

    Along an axis that is `periodic`, P × Q is as long as H × W, and twice as long along others; `absorbing` needs no
    more, because its kernel is computed for the unbounded plane and only offsets within the grid are ever used.

    Args:
        coefficients: each (..., S), S states.
        weight: (..., R, S): R responses, each a sum over the S states.
        height: H, in pixels.
        width: W, in pixels.
        boundary: how the input is extended.
        forcing: what the input is.

    Returns:
        (..., R, P, Q // 2 + 1), complex.
    """
    c = coefficients
    product = forcing == "initial" and c.kxy is None and c.damping is None and c.spatial
    if product and c.r is not None:
        weight = weight * c.r.exp()[..., None, :]
    if boundary == "absorbing":
        if product:
            across = axis_plane_kernel(height, c.kyy, c.vy, weight)
            along = axis_plane_kernel(width, c.kxx, c.vx, weight)
            kernel = (weight[..., None] * across[..., None, :, :]).mT @ along[..., None, :, :]
        else:
            kernel = summed_plane_kernel(c, weight, height, width, forcing)
        kernel = torch.nn.functional.pad(kernel, (1, 0, 1, 0))
        return torch.fft.rfft2(torch.fft.ifftshift(kernel, dim=(-2, -1)))
    rows, columns = extended(height, width, boundary)
    if not product:
        responses = torch.view_as_real(grid_response(c, rows, columns, forcing, weight))
        return torch.view_as_complex(_sum_states(weight, responses, 3).contiguous())
    row_axis, column_axis = by_axis(boundary)
    across = _axis_transfer(height, row_axis, c.kyy, c.vy, weight)
    across = torch.cat([across, across[..., 1 : (rows + 1) // 2].flip(-1).conj()], dim=-1)
    along = _axis_transfer(width, column_axis, c.kxx, c.vx, weight)
    return _scale(weight[..., None], across[..., None, :, :]).mT @ along[..., None, :, :]


def _axis_transfer(
    length: int, boundary: str, diffusion: Tensor | None, velocity: Tensor | None, like: Tensor
) -> Tensor:
    """Transfer function (..., P // 2 + 1) along one axis of the extended length P."""
    if boundary == "absorbing":
        kernel = torch.nn.functional.pad(axis_plane_kernel(length, diffusion, velocity, like), (1, 0))
        return torch.fft.rfft(torch.fft.ifftshift(kernel, dim=-1))
    period = length if boundary == "periodic" else 2 * length
    return axis_response(half_axis(period, like), diffusion, velocity, even=period % 2 == 0)


def _scale(real: Tensor, complex_: Tensor) -> Tensor:
    """Product of a real and a complex tensor, without promoting the real one."""
    return torch.complex(real * complex_.real, real * complex_.imag)


def _sum_states(weight: Tensor, responses: Tensor, trailing: int) -> Tensor:
    """Sum over S of weight (..., R, S) and responses (..., S, P, Q, …), which have `trailing` dimensions after S."""
    return (weight @ responses.flatten(-trailing)).unflatten(-1, responses.shape[-trailing:])


class _Filter(torch.autograd.Function):
    """irfft2(rfft2(field) · response) over two axes; the response is that of a real kernel.

    One transform of the gradient serves both gradients, and that of the response is summed over the batch while it is
    still a spectrum.
    """

    @staticmethod
    def forward(ctx: Any, field: Tensor, response: Tensor, rows: int, columns: int) -> Tensor:
        ctx.axes, ctx.size = (rows, columns), (field.shape[rows], field.shape[columns])
        spectrum = torch.fft.rfft2(field, dim=ctx.axes)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(field, spectrum, response)
            product = spectrum * response
        else:
            product = spectrum.mul_(response)
        return torch.fft.irfft2(product, s=ctx.size, dim=ctx.axes)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        field, spectrum, response = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives
            spectrum = torch.fft.rfft2(field, dim=ctx.axes)
        of_gradient = torch.fft.rfft2(gradient, dim=ctx.axes)
        grad_field = grad_response = None
        product: Tensor | None = None
        summed: Tensor | None = None
        both = ctx.needs_input_grad[0] and ctx.needs_input_grad[1]
        if both and field.device.type == "cpu" and field.ndim == response.ndim + 1 and not torch.is_grad_enabled():
            product, summed = _by_image(of_gradient, spectrum, response)
        elif ctx.needs_input_grad[0]:
            product = of_gradient * response.conj()
        if summed is None and ctx.needs_input_grad[1]:
            summed = (of_gradient * spectrum.conj()).sum_to_size(response.shape)
        if product is not None:
            grad_field = torch.fft.irfft2(product, s=ctx.size, dim=ctx.axes)
        if summed is not None:
            height, width = ctx.size
            # Of a wave and its conjugate, only one of which is in the half plane, the transform is the sum.
            share = torch.full((width // 2 + 1,), 2.0 / (height * width), dtype=field.dtype, device=field.device)
            share[0] /= 2
            if width % 2 == 0:
                share[-1] /= 2
            grad_response = summed * share.view(-1, *[1] * (-1 - ctx.axes[1]))
        return grad_field, grad_response, None, None


def _by_image(of_gradient: Tensor, spectrum: Tensor, response: Tensor) -> tuple[Tensor, Tensor]:
    """of_gradient · conj(response), which overwrites of_gradient, and of_gradient · conj(spectrum) summed over images.

    For a response that serves all images: caches hold what one of them needs.
    """
    conjugate, summed = response.conj().resolve_conj(), torch.zeros_like(response)
    for image, other in zip(of_gradient, spectrum, strict=True):
        summed += image * other.conj()
        image *= conjugate
    return of_gradient, summed


def apply_transfer(field: Tensor, response: Tensor, boundary: Boundary, *, last: bool = False) -> Tensor:
    """Apply a transfer function (see `summed_transfer`) to a field (..., H, W), float32 or float64.

    With `last` the field is (..., H, W, D), and the response (..., P, Q, D).
    """
    rows, columns = (-3, -2) if last else (-2, -1)
    height, width = field.shape[rows], field.shape[columns]
    row_axis, column_axis = by_axis(boundary)
    beyond = [length if word == "absorbing" else 0 for length, word in ((width, column_axis), (height, row_axis))]
    if any(beyond):
        field = torch.nn.functional.pad(field, (0, 0) * last + (0, beyond[0], 0, beyond[1]))
    for axis, word in ((columns, column_axis), (rows, row_axis)):
        if word in ("neumann", "dirichlet"):
            field = torch.cat([field, (1 if word == "neumann" else -1) * field.flip(axis)], dim=axis)
    if transformed():
        size, axes = (field.shape[rows], field.shape[columns]), (rows, columns)
        applied = torch.fft.irfft2(torch.fft.rfft2(field, dim=axes) * response, s=size, dim=axes)
    else:
        applied = _Filter.apply(field, response, rows, columns)
    if boundary == "periodic":
        return applied
    return applied.narrow(rows, 0, height).narrow(columns, 0, width)
