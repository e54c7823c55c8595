"""The selective scan in plain tensor operations, for devices without a kernel of their own.

A chunk of T steps takes log2 T parallel steps (recursive doubling of the associative product of the pairs (a, b) of
h ← a h + b, arXiv 2312.00752, section 3.3.2), and chunks follow each other. What is stored for the backward pass is the
state before each chunk.
"""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor

CHUNK = 64
"""Steps of a chunk."""

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def recurrence(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    """All h_t = a_t h_{t-1} + b_t, t = 1 … T, from h_0 = h; a and b are (T, …), h (…)."""
    b = torch.cat([(a[0] * h + b[0])[None], b[1:]])
    stride = 1
    while stride < len(a):
        b = torch.cat([b[:stride], torch.addcmul(b[stride:], a[stride:], b[:-stride])])
        a = torch.cat([a[:stride], a[stride:] * a[:-stride]])
        stride *= 2
    return b


def _place(length: int, index: int, reverse: bool) -> slice:
    """Where chunk `index`, in the order of the scan, lies in a sequence."""
    start, stop = index * CHUNK, min((index + 1) * CHUNK, length)
    return slice(length - stop, length - start) if reverse else slice(start, stop)


def _tile(sequence: Tensor, place: slice, reverse: bool) -> Tensor:
    """The steps at `place` in the order of the scan, (…, L) to (T, …)."""
    tile = sequence[..., place]
    return (tile.flip(-1) if reverse else tile).movedim(-1, 0)


def _put(tile: Tensor, sequence: Tensor, place: slice, reverse: bool) -> None:
    """Write `tile` where `_tile` reads it; results kept apart between chunks would fragment the memory."""
    tile = tile.movedim(0, -1)
    sequence[..., place] = tile.flip(-1) if reverse else tile


def _grouped(tensor: Tensor, groups: int, dim: int) -> Tensor:
    """Channels split into groups, so that what a group shares is broadcast."""
    return tensor.unflatten(dim, (groups, -1))


def forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Output y (B, D, L), last state (B, D, S) and the states before the chunks (B, chunks, S, D)."""
    batch, channels, length = u.shape
    groups = B.shape[1]
    A, h = _grouped(A, groups, 0), _grouped(initial, groups, 1)
    y, states = torch.empty_like(u), u.new_empty(batch, ceil(length / CHUNK), A.shape[-1], channels)
    for index in range(states.shape[1]):
        states[:, index] = h.flatten(1, 2).mT
        place = _place(length, index, reverse)
        dt, x = (_grouped(_tile(t, place, reverse), groups, 2)[..., None] for t in (delta, u))
        b, c = (_tile(t, place, reverse)[:, :, :, None] for t in (B, C))
        all_h = recurrence(torch.exp(dt * A), dt * x * b, h)
        _put((all_h * c).sum(-1).flatten(2), y, place, reverse)
        h = all_h[-1].clone()  # a view would keep the whole chunk
    return y, h.flatten(1, 2), states


def backward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    states: Tensor,
    grad_y: Tensor,
    grad_last: Tensor,
    reverse: bool,
) -> Gradients:
    """Gradients of u, delta, A, B, C and the initial state."""
    groups = B.shape[1]
    A, g_last = _grouped(A, groups, 0), _grouped(grad_last, groups, 1)
    grad_a = torch.zeros_like(A)
    grad_u, grad_delta, grad_b, grad_c = (torch.empty_like(t) for t in (u, delta, B, C))
    for index in reversed(range(states.shape[1])):
        place = _place(u.shape[-1], index, reverse)
        dt, x, dy = (_grouped(_tile(t, place, reverse), groups, 2)[..., None] for t in (delta, u, grad_y))
        b, c = (_tile(t, place, reverse)[:, :, :, None] for t in (B, C))
        h_0 = _grouped(states[:, index].mT, groups, 1)
        a = torch.exp(dt * A)
        h = recurrence(a, dt * x * b, h_0)
        # The adjoint g_t = C_t dy_t + a_{t+1} g_{t+1} is a scan the other way.
        later = torch.cat([a[1:], torch.ones_like(a[:1])])
        g = recurrence(later.flip(0), (dy * c).flip(0), g_last).flip(0)
        through_a = g * a * torch.cat([h_0[None], h[:-1]])
        through_x = (g * b).sum(-1)
        grad_a += (through_a * dt).sum((0, 1))
        _put((through_x * dt[..., 0]).flatten(2), grad_u, place, reverse)
        _put(((through_a * A).sum(-1) + through_x * x[..., 0]).flatten(2), grad_delta, place, reverse)
        _put((g * dt * x).sum(3), grad_b, place, reverse)
        _put((dy * h).sum(3), grad_c, place, reverse)
        g_last = a[0] * g[0]
    return grad_u, grad_delta, grad_a.flatten(0, 1), grad_b, grad_c, g_last.flatten(1, 2)
