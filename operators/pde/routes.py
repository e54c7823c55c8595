"""What each route computes: propagators from coefficients, and their application to a field.

Coefficients are (D, S) in pixels over the elapsed time, D channels of S states, or (B, groups, S) where every image has
its own. A field u is (B, H, W, D), or (..., D, H, W) with one state; a video (B, T, H, W, D). The output is per channel

    y = sum over s of weight_s u_s + skip u
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from operators.pde.boundary import by_axis
from operators.pde.choice import REFUSALS, Call
from operators.pde.filter_op import filtered
from operators.pde.matrices_op import matrices
from operators.pde.propagators import apply_transfer, axis_matrices, permuted, summed_transfer
from operators.pde.reference import propagate_reference
from operators.pde.separable_op import separable
from operators.pde.symbols import Coefficients, respond, transfer
from operators.precision import full_precision, under_autocast

Prepared = tuple[Any, ...]
"""Tensors, and None where there are none: all that `apply` needs of coefficients."""


@dataclass(frozen=True)
class Route:
    """One way to solve the equation.

    Attributes:
        refusal: the reason why the route cannot serve a call, or None.
        prepare: from a call, coefficients, weight (groups, D / groups, S) and skip (D,) or None, what `apply` needs.
        apply: from a call, what was prepared and a field u, the output in u's type.
        autocast: whether its products are taken in autocast's type; others are to be applied without autocast.
    """

    refusal: Callable[[Call], str | None]
    prepare: Callable[[Call, Coefficients, Tensor, Tensor | None], Prepared]
    apply: Callable[[Call, Prepared, Tensor], Tensor]
    autocast: bool = False

    def solve(self, call: Call, prepared: Prepared, u: Tensor) -> Tensor:
        """`apply`, with autocast or without it, as the route has it."""
        if self.autocast:
            return self.apply(call, prepared, u)
        with full_precision(u):
            return self.apply(call, prepared, u)


def _add_skip(mixed: Tensor, skip: Tensor | None, u: Tensor) -> Tensor:
    mixed = mixed.to(u.dtype)
    return mixed if skip is None else mixed + skip.to(u.dtype) * u


# ---------------------------------------------------------------- pointwise: nothing moves, a gain per channel


def _gains(call: Call, coefficients: Coefficients, weight: Tensor, skip: Tensor | None) -> Prepared:
    if call.order == 2:
        nothing = transfer(coefficients, [weight.new_zeros(1)] * call.axes, call.forcing).real.flatten(-call.axes)
        gain = (weight * nothing.squeeze(-1)[..., None, :]).sum(-1)
    elif coefficients.r is None:
        gain = weight.sum(-1)
    else:
        gain = (weight * respond(coefficients.r, call.forcing)[..., None, :]).sum(-1)
    channels = gain.flatten(-2)
    grid = [1] * call.axes
    return channels.view(-1, *grid, channels.shape[-1]) if call.channels_last else channels.view(-1, *grid), skip


def _gained(call: Call, prepared: Prepared, u: Tensor) -> Tensor:
    gain, skip = prepared
    return _add_skip(u * gain, skip, u)


# ---------------------------------------------------------------- separable: matrices across rows and columns


def _matrices(call: Call, coefficients: Coefficients, weight: Tensor, skip: Tensor | None) -> Prepared:
    gain = None if call.conditioned else weight[:, 0]
    rows, columns = axis_matrices(coefficients, *call.plane, call.boundary, gain)
    return rows, columns, weight if call.conditioned else None, skip


def _products(call: Call, prepared: Prepared, u: Tensor) -> Tensor:
    """Two batched matrix products: all states' rows stacked, then columns, summed over states."""
    rows, columns, weight, skip = prepared
    # Autocast chooses the type of the products; without it theirs is the propagators'.
    field = u if under_autocast(u) else u.to(rows.dtype)
    if not call.channels_last:
        return _add_skip(rows[:, 0] @ field @ columns[:, 0].mT, skip, u)
    if call.conditioned:
        return _add_skip(_products_by_image(field, rows, columns, weight), skip, u)
    height, width = call.plane
    if height * width <= call.states * (height + width):
        return _add_skip(_multiplied_out(field, rows, columns), skip, u)
    field = permuted(field, 3, 1, 0, 2)
    return _add_skip(permuted(_along_both(field, rows, columns, None), 2, 1, 3, 0), skip, u)


def _products_by_image(u: Tensor, rows: Tensor, columns: Tensor, weight: Tensor) -> Tensor:
    """For matrices (B, groups, S, H, H) and (B, groups, S, W, W)."""
    images, groups = rows.shape[:2]
    field = permuted(u.unflatten(-1, (groups, -1)), 0, 3, 1, 4, 2).flatten(0, 1)
    along = _along_both(field, rows.flatten(0, 1), columns.flatten(0, 1), weight)
    return permuted(along.unflatten(0, (images, groups)), 0, 2, 4, 1, 3).flatten(-2)


def _along_both(field: Tensor, rows: Tensor, columns: Tensor, weight: Tensor | None) -> Tensor:
    """Sum over states for fields (P, H, M, W), of M members each, and matrices (P, S, H, H) and (P, S, W, W)."""
    problems, height, members, width = field.shape
    states = rows.shape[1]
    across = torch.bmm(rows.flatten(1, 2), field.view(problems, height, members * width))
    if weight is not None:
        share = weight.mT[None, :, :, None, :, None].to(across.dtype)
        across = across.view(-1, len(weight), states, height, members, width) * share
    across = across.view(problems * states, height * members, width)
    along = torch.bmm(across, columns.mT.flatten(0, 1)).view(problems, states, height, members, width)
    return along.sum(1) if states > 1 else along[:, 0]


def _multiplied_out(u: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """One batched product with the states' summed pixel-to-pixel matrices: fewer operations on small grids."""
    channels, _, height, width = *rows.shape[:3], columns.shape[-1]
    pixels = height * width
    with full_precision(u):
        kernel = torch.bmm(rows.flatten(2).mT, columns.flatten(2)).view(channels, height, height, width, width)
    kernel = permuted(kernel, 0, 1, 3, 2, 4).view(channels, pixels, pixels)
    mixed = torch.bmm(kernel, permuted(u.flatten(1, 2), 2, 1, 0))
    return permuted(mixed, 2, 1, 0).unflatten(1, (height, width))


# ---------------------------------------------------------------- fft: a transfer function on the extended grid


def _transfer(call: Call, coefficients: Coefficients, weight: Tensor, skip: Tensor | None) -> Tensor:
    """Transfer function (..., D, P, Q // 2 + 1) with the term skip u, which would be a pass over fields of its own."""
    axes = call.axes
    response = summed_transfer(coefficients, weight, call.sides, call.boundary, call.forcing)
    response = response.flatten(-axes - 2, -axes - 1)
    return response if skip is None else response + skip.view(-1, *[1] * axes)


def _transfer_in_layout(call: Call, coefficients: Coefficients, weight: Tensor, skip: Tensor | None) -> Prepared:
    response = _transfer(call, coefficients, weight, skip)
    if not call.channels_last:
        return (response,)
    first = response.ndim - call.axes - 1
    return (permuted(response, *range(first), *range(first + 1, response.ndim), first),)


def _transferred(call: Call, prepared: Prepared, u: Tensor) -> Tensor:
    (response,) = prepared
    field = u.to(response.real.dtype)
    return apply_transfer(field, response, call.boundary, axes=call.axes, last=call.channels_last).to(u.dtype)


# ---------------------------------------------------------------- compiled, compiled_fft: both in one pass


def _images_last(
    apply: Callable[[Call, Prepared, Tensor], Tensor], call: Call, prepared: Prepared, u: Tensor
) -> Tensor:
    """`apply`, which takes fields (B, H, W, D), of a field in the layout of the call."""
    if call.channels_last:
        return apply(call, prepared, u)
    images = u.flatten(0, -4) if u.ndim > 3 else u[None]
    return apply(call, prepared, images.movedim(1, -1)).movedim(-1, 1).reshape(u.shape)


def _compiled_matrices(call: Call, coefficients: Coefficients, weight: Tensor, skip: Tensor | None) -> Prepared:
    made = matrices(coefficients, weight[:, 0], *call.plane, call.boundary)
    return *made, weight.new_zeros(len(weight)) if skip is None else skip


def _compiled_products(call: Call, prepared: Prepared, u: Tensor) -> Tensor:
    rows, columns, skip = prepared
    return separable(u.to(rows.dtype), rows, columns, skip).to(u.dtype)


def _compiled_transfer(call: Call, coefficients: Coefficients, weight: Tensor, skip: Tensor | None) -> Prepared:
    return (permuted(torch.view_as_real(_transfer(call, coefficients, weight, skip)), 3, 1, 2, 0),)


def _compiled_filter(call: Call, prepared: Prepared, u: Tensor) -> Tensor:
    (response,) = prepared
    return filtered(u.to(response.dtype), response, *by_axis(call.boundary)).to(u.dtype)


# ---------------------------------------------------------------- reference: the definition, written out


def _values(call: Call, coefficients: Coefficients, weight: Tensor, skip: Tensor | None) -> Prepared:
    return weight, skip, *vars(coefficients).values()


def _by_definition(call: Call, prepared: Prepared, u: Tensor) -> Tensor:
    """Every state of every channel of every image by itself."""
    weight, skip, *values = prepared
    coefficients = Coefficients(*values)
    if not call.channels_last:
        alone = coefficients.map(partial(torch.squeeze, dim=-1))
        solved = propagate_reference(u.to(weight.dtype), alone, call.boundary, call.forcing, call.axes)
        return _add_skip(solved, skip, u)

    def spread(value: Tensor) -> Tensor:
        per_channel = value.repeat_interleave(weight.shape[1], dim=-2)
        return per_channel.expand(len(u), -1, -1).flatten()

    field = u.to(weight.dtype).movedim(-1, 1)[:, :, None].expand(-1, -1, call.states, *call.sides)
    solved = propagate_reference(field.flatten(0, 2), coefficients.map(spread), call.boundary, call.forcing, call.axes)
    states = solved.view(len(u), u.shape[-1], call.states, *call.sides)
    return _add_skip(torch.einsum("bds...,ds->b...d", states, weight.flatten(0, 1)), skip, u)


ROUTES = {
    "pointwise": Route(REFUSALS["pointwise"], _gains, _gained),
    "separable": Route(REFUSALS["separable"], _matrices, _products, autocast=True),
    "compiled": Route(REFUSALS["compiled"], _compiled_matrices, partial(_images_last, _compiled_products)),
    "fft": Route(REFUSALS["fft"], _transfer_in_layout, _transferred),
    "compiled_fft": Route(REFUSALS["compiled_fft"], _compiled_transfer, partial(_images_last, _compiled_filter)),
    "reference": Route(REFUSALS["reference"], _values, _by_definition),
}
"""All routes by name; `reference` is the measure of the others."""
