"""Two fast ways to apply the propagator: matrices along rows and columns, and real FFTs.

A boundary extends the input; the free propagator acts; the result is cropped. `neumann` extends evenly and `dirichlet`
oddly about the pixels' outer edges to 2H x 2W, `absorbing` by zeros to an unbounded plane. FFTs serve
images and videos, matrices images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    coefficients: Coefficients, weight: Tensor, grid: Sequence[int], boundary: Boundary, forcing: str
) -> Tensor:
    """Weighted sum over states of transfer functions, on half of the wave numbers of the extended P × Q grid.

    Along an axis that is `periodic`, P × Q is as long as the grid, and twice as long along others; `absorbing` needs no
    more, because its kernel is computed for the unbounded plane and only offsets within the grid are ever used.

    Args:
        coefficients: each (..., S), S states.
        weight: (..., R, S): R responses, each a sum over the S states.
        grid: (H, W) or (T, H, W), in pixels.
        boundary: how the input is extended.
        forcing: what the input is.

    Returns:
        (..., R, P, Q // 2 + 1), complex.
    """
    c, axes = coefficients, len(grid)
    product = forcing == "initial" and not c.across(axes) and c.damping is None and c.spatial
    if product and c.r is not None:
        weight = weight * c.r.exp()[..., None, :]
    if boundary == "absorbing":
        if product:
            terms = zip(grid, c.along(axes), strict=True)
            kernel = _products(weight, [axis_plane_kernel(length, *term, weight) for length, term in terms])
        else:
            height, width = grid
            kernel = summed_plane_kernel(c, weight, height, width, forcing)
        dims = tuple(range(-axes, 0))
        kernel = torch.nn.functional.pad(kernel, (1, 0) * axes)
        return torch.fft.rfftn(torch.fft.ifftshift(kernel, dim=dims), dim=dims)
    sides = extended(grid, boundary)
    if not product:
        responses = torch.view_as_real(grid_response(c, sides, forcing, weight))
        return torch.view_as_complex(_sum_states(weight, responses, axes + 1).contiguous())
    along = [
        _axis_transfer(length, word, *term, weight)
        for length, word, term in zip(grid, by_axis(boundary, axes), c.along(axes), strict=True)
    ]
    for axis, side in enumerate(sides[:-1]):
        half = along[axis]
        along[axis] = torch.cat([half, half[..., 1 : (side + 1) // 2].flip(-1).conj()], dim=-1)
    return _products(weight, along)


def _products(weight: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """Sum over S of weight (..., R, S) and a factor (..., S, length) for each axis: (..., R, *lengths)."""
    first, *others, last = factors
    for factor in others:
        first = (first[..., None] * factor[..., None, :]).flatten(-2)
    share, first = weight[..., None], first[..., None, :, :]
    weighted = _scale(share, first) if first.is_complex() else share * first
    return (weighted.mT @ last[..., None, :, :]).unflatten(-2, [factor.shape[-1] for factor in factors[:-1]])


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
    """irfftn(rfftn(field) · response) over some axes; the response is that of a real kernel.

    One transform of the gradient serves both gradients, and that of the response is summed over the batch while it is
    still a spectrum.
    """

    @staticmethod
    def forward(ctx: Any, field: Tensor, response: Tensor, axes: tuple[int, ...]) -> Tensor:
        ctx.axes, ctx.size = axes, [field.shape[axis] for axis in axes]
        spectrum = torch.fft.rfftn(field, dim=ctx.axes)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(field, spectrum, response)
            product = spectrum * response
        else:
            product = spectrum.mul_(response)
        return torch.fft.irfftn(product, s=ctx.size, dim=ctx.axes)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        field, spectrum, response = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives
            spectrum = torch.fft.rfftn(field, dim=ctx.axes)
        of_gradient = torch.fft.rfftn(gradient, dim=ctx.axes)
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
            grad_field = torch.fft.irfftn(product, s=ctx.size, dim=ctx.axes)
        if summed is not None:
            width = ctx.size[-1]
            # Of a wave and its conjugate, only one of which is in the half plane, the transform is the sum.
            share = torch.full((width // 2 + 1,), 2.0 / math.prod(ctx.size), dtype=field.dtype, device=field.device)
            share[0] /= 2
            if width % 2 == 0:
                share[-1] /= 2
            grad_response = summed * share.view(-1, *[1] * (-1 - ctx.axes[-1]))
        return grad_field, grad_response, None


def _by_image(of_gradient: Tensor, spectrum: Tensor, response: Tensor) -> tuple[Tensor, Tensor]:
    """of_gradient · conj(response), which overwrites of_gradient, and of_gradient · conj(spectrum) summed over images.

    For a response that serves all images: caches hold what one of them needs.
    """
    conjugate, summed = response.conj().resolve_conj(), torch.zeros_like(response)
    for image, other in zip(of_gradient, spectrum, strict=True):
        summed += image * other.conj()
        image *= conjugate
    return of_gradient, summed


def apply_transfer(field: Tensor, response: Tensor, boundary: Boundary, *, axes: int = 2, last: bool = False) -> Tensor:
    """Apply a transfer function (see `summed_transfer`) to a field (..., H, W), float32 or float64.

    With `last` the field is (..., H, W, D), and the response (..., P, Q, D). Three `axes` are those of a video.
    """
    dims = tuple(range(-axes - last, -last))
    grid, words = [field.shape[dim] for dim in dims], by_axis(boundary, axes)
    if "absorbing" in words:
        beyond = [(0, length if word == "absorbing" else 0) for length, word in zip(grid, words, strict=True)]
        field = torch.nn.functional.pad(field, (0, 0) * last + sum(reversed(beyond), ()))
    for dim, word in reversed(list(zip(dims, words, strict=True))):
        if word in ("neumann", "dirichlet"):
            field = torch.cat([field, (1 if word == "neumann" else -1) * field.flip(dim)], dim=dim)
    if transformed():
        size = [field.shape[dim] for dim in dims]
        applied = torch.fft.irfftn(torch.fft.rfftn(field, dim=dims) * response, s=size, dim=dims)
    else:
        applied = _Filter.apply(field, response, dims)
    if boundary == "periodic":
        return applied
    for dim, length in zip(dims, grid, strict=True):
        applied = applied.narrow(dim, 0, length)
    return applied
