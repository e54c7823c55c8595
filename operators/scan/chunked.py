"""The selective scan in plain tensor operations, for devices without a kernel of their own.

A chunk of T steps takes log2 T parallel steps (recursive doubling of the associative product of the pairs (a, b) of
h ← a h + b, arXiv 2312.00752, section 3.3.2), and chunks follow each other. What is stored for the backward pass is the
state before each chunk.
"""

from __future__ import annotations

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


def _tiles(sequence: Tensor, start: int, reverse: bool) -> Tensor:
    """Steps `start` to `start` + CHUNK in the order of the scan, (…, L) to (T, …)."""
    length = sequence.shape[-1]
    stop = min(start + CHUNK, length)
    tile = sequence[..., length - stop : length - start].flip(-1) if reverse else sequence[..., start:stop]
    return tile.movedim(-1, 0)


def _untile(tiles: list[Tensor], reverse: bool) -> Tensor:
    sequence = torch.cat(tiles).movedim(0, -1)
    return sequence.flip(-1) if reverse else sequence


def _grouped(tensor: Tensor, groups: int, dim: int) -> Tensor:
    """Channels split into groups, so that what a group shares is broadcast."""
    return tensor.unflatten(dim, (groups, -1))


def forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Output y (B, D, L), last state (B, D, S) and the states before the chunks (B, chunks, S, D)."""
    groups = B.shape[1]
    A, h = _grouped(A, groups, 0), _grouped(initial, groups, 1)
    outputs, states = [], []
    for start in range(0, u.shape[-1], CHUNK):
        states.append(h)
        dt, x = (_grouped(_tiles(t, start, reverse), groups, 2)[..., None] for t in (delta, u))
        b, c = (_tiles(t, start, reverse)[:, :, :, None] for t in (B, C))
        all_h = recurrence(torch.exp(dt * A), dt * x * b, h)
        outputs.append((all_h * c).sum(-1).flatten(2))
        h = all_h[-1].clone()  # a view would keep the whole chunk
    kept = torch.stack([state.flatten(1, 2).mT for state in states], dim=1)
    return _untile(outputs, reverse), h.flatten(1, 2), kept


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
    parts: tuple[list[Tensor], ...] = ([], [], [], [])
    for index in reversed(range(states.shape[1])):
        start = index * CHUNK
        dt, x, dy = (_grouped(_tiles(t, start, reverse), groups, 2)[..., None] for t in (delta, u, grad_y))
        b, c = (_tiles(t, start, reverse)[:, :, :, None] for t in (B, C))
        h_0 = _grouped(states[:, index].mT, groups, 1)
        a = torch.exp(dt * A)
        h = recurrence(a, dt * x * b, h_0)
        # The adjoint g_t = C_t dy_t + a_{t+1} g_{t+1} is a scan the other way.
        later = torch.cat([a[1:], torch.ones_like(a[:1])])
        g = recurrence(later.flip(0), (dy * c).flip(0), g_last).flip(0)
        through_a = g * a * torch.cat([h_0[None], h[:-1]])
        through_x = (g * b).sum(-1)
        grad_a += (through_a * dt).sum((0, 1))
        found = (
            (through_x * dt[..., 0]).flatten(2),
            ((through_a * A).sum(-1) + through_x * x[..., 0]).flatten(2),
            (g * dt * x).sum(3),
            (dy * h).sum(3),
        )
        for part, gradient in zip(parts, found, strict=True):
            part.append(gradient)
        g_last = a[0] * g[0]
    grad_u, grad_delta, grad_b, grad_c = (_untile(part[::-1], reverse) for part in parts)
    return grad_u, grad_delta, grad_a.flatten(0, 1), grad_b, grad_c, g_last.flatten(1, 2)
