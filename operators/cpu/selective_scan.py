"""Compiled selective scans, forward and backward.

A task is one image and one block of channels. It goes through the sequence in chunks: it copies a chunk into tiles
whose last axis is the channel, so that the recurrence runs on vectors of channels whatever the memory layout outside,
and nothing of size B·L·D·S exists. The forward pass keeps the state before every chunk; from it the backward pass
recomputes the states inside one chunk at a time.

Exponentials dominate: see `operators.cpu.exponential`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from operators.cpu.compilation import inner
from operators.cpu.exponential import exp
from operators.cpu.kernel import Axes2, Axes3, Axes4, Axes5, kernel


class ScanForward(NamedTuple):
    """A task is an image and a block of `lanes` channels.

    u, delta, y (B, D, L), of which y is written; A (D, S); B, C (B, G, S, L); last (B, D, S) holds the initial state,
    and the last one afterwards; states (B, chunks, S, D) is written: the state before each chunk of `span` steps, in
    the order of the scan, which starts at the end if `reverse`.
    """

    u: Axes3
    delta: Axes3
    A: Axes2
    B: Axes4
    C: Axes4
    y: Axes3
    last: Axes3
    states: Axes4
    span: int
    lanes: int
    reverse: int


class ScanBackward(NamedTuple):
    """As `ScanForward`, with the gradients of y (B, D, L) and of the last state (B, D, S), which is overwritten by
    that of the initial one.

    Written: grad_u, grad_delta (B, D, L); grad_a (B, S, D), to be summed over images; grad_b, grad_c (blocks of a
    group, B, G, L, S), to be summed over blocks.
    """

    u: Axes3
    delta: Axes3
    A: Axes2
    B: Axes4
    C: Axes4
    states: Axes4
    grad_y: Axes3
    grad_last: Axes3
    grad_u: Axes3
    grad_delta: Axes3
    grad_a: Axes3
    grad_b: Axes5
    grad_c: Axes5
    span: int
    lanes: int
    reverse: int


@inner
def _load(tile: Any, source: Any, b: int, first: int, n: int, start: int, step: int, m: int) -> None:
    """tile[i, v] = source[b, first + v, start + step · i]."""
    for v in range(n):
        for i in range(m):
            tile[i, v] = source[b, first + v, start + step * i]


@inner
def _load_shared(tile: Any, source: Any, b: int, g: int, start: int, step: int, m: int) -> None:
    """tile[i, s] = source[b, g, s, start + step · i]."""
    for s in range(tile.shape[1]):
        for i in range(m):
            tile[i, s] = source[b, g, s, start + step * i]


@inner
def _store(target: Any, tile: Any, b: int, first: int, n: int, start: int, step: int, m: int) -> None:
    """target[b, first + v, start + step · i] = tile[i, v]."""
    for v in range(n):
        for i in range(m):
            target[b, first + v, start + step * i] = tile[i, v]


@inner
def _place(task: int, channels: int, groups: int, lanes: int) -> tuple[int, int, int, int, int]:
    """Image, group, block, first channel and number of channels of a task."""
    members = channels // groups
    blocks = (members + lanes - 1) // lanes
    image, rest = divmod(task, groups * blocks)
    group, block = divmod(rest, blocks)
    return image, group, block, group * members + block * lanes, min(lanes, members - block * lanes)


@inner(fastmath={"contract"})
def _step(dt: Any, x: Any, a: Any, b: Any, c: Any, h: Any, out: Any) -> None:
    """One step h ← exp(dt a) h + x b, out = c · h for vectors dt, x, out over channels, h and a (S, channels)."""
    for v in range(len(out)):
        out[v] = 0
    for s in range(len(b)):
        h_s, a_s, b_s, c_s = h[s], a[s], b[s], c[s]
        for v in range(len(out)):
            new = exp(dt[v] * a_s[v]) * h_s[v] + x[v] * b_s
            h_s[v] = new
            out[v] += new * c_s


@kernel
def forward(k: ScanForward, low: int, high: int) -> None:
    """Scan the channels of each task, chunk by chunk."""
    u, delta, A, B, C, y, last, states = k.u, k.delta, k.A, k.B, k.C, k.y, k.last, k.states
    span, lanes, reverse = k.span, k.lanes, k.reverse
    length, size = u.shape[2], A.shape[1]
    h, a = np.zeros((size, lanes), u.dtype), np.zeros((size, lanes), u.dtype)
    dt, x, out = np.zeros((span, lanes), u.dtype), np.zeros((span, lanes), u.dtype), np.zeros((span, lanes), u.dtype)
    b, c = np.zeros((span, size), u.dtype), np.zeros((span, size), u.dtype)
    step = -1 if reverse else 1
    for task in range(low, high):
        image, group, _, first, n = _place(task, u.shape[1], B.shape[1], lanes)
        dt[:], x[:], h[:], a[:] = 0, 0, 0, 0
        for s in range(size):
            for v in range(n):
                a[s, v] = A[first + v, s]
                h[s, v] = last[image, first + v, s]
        for chunk in range(states.shape[1]):
            m = min(span, length - chunk * span)
            start = length - 1 - chunk * span if reverse else chunk * span
            for s in range(size):
                for v in range(n):
                    states[image, chunk, s, first + v] = h[s, v]
            _load(dt, delta, image, first, n, start, step, m)
            _load(x, u, image, first, n, start, step, m)
            _load_shared(b, B, image, group, start, step, m)
            _load_shared(c, C, image, group, start, step, m)
            for i in range(m):
                dt_i, x_i = dt[i], x[i]
                for v in range(lanes):
                    x_i[v] *= dt_i[v]
                _step(dt_i, x_i, a, b[i], c[i], h, out[i])
            _store(y, out, image, first, n, start, step, m)
        for s in range(size):
            for v in range(n):
                last[image, first + v, s] = h[s, v]


@inner(fastmath={"contract"})
def _advance(dt: Any, x: Any, a: Any, b: Any, h: Any, e: Any, new: Any) -> None:
    """One step that keeps what it computes: e = exp(dt a), new = e h + x b."""
    for s in range(len(b)):
        h_s, a_s, e_s, new_s, b_s = h[s], a[s], e[s], new[s], b[s]
        for v in range(len(dt)):
            decay = exp(dt[v] * a_s[v])
            e_s[v] = decay
            new_s[v] = decay * h_s[v] + x[v] * b_s


@inner(fastmath={"contract", "reassoc"})
def _step_back(
    dy: Any, x: Any, dt: Any, a: Any, b: Any, c: Any, e: Any, h: Any, new: Any,
    grad_h: Any, grad_x: Any, grad_dt: Any, grad_a: Any, grad_b: Any, grad_c: Any,
) -> None:  # fmt: skip
    """One step against the scan: the adjoint grad_h of the state, and its share in every gradient.

    grad_dt and grad_x, the gradient of x = dt u, are written; grad_a is added to; grad_b and grad_c are written.
    """
    for v in range(len(dy)):
        grad_x[v] = 0
        grad_dt[v] = 0
    for s in range(len(b)):
        h_s, new_s, e_s, a_s, b_s, c_s = h[s], new[s], e[s], a[s], b[s], c[s]
        grad_h_s, grad_a_s = grad_h[s], grad_a[s]
        sum_b = sum_c = b.dtype.type(0)
        for v in range(len(dy)):
            g = grad_h_s[v] + dy[v] * c_s
            sum_c += dy[v] * new_s[v]
            sum_b += g * x[v]
            grad_x[v] += g * b_s
            g *= e_s[v]
            grad_h_s[v] = g
            g *= h_s[v]
            grad_dt[v] += g * a_s[v]
            grad_a_s[v] += g * dt[v]
        grad_b[s] = sum_b
        grad_c[s] = sum_c


@kernel
def backward(k: ScanBackward, low: int, high: int) -> None:
    """Write the gradients from the channels of each task, from the last chunk to the first."""
    u, delta, A, B, C, states, grad_y, grad_last = k.u, k.delta, k.A, k.B, k.C, k.states, k.grad_y, k.grad_last
    grad_u, grad_delta, grad_a, grad_b, grad_c = k.grad_u, k.grad_delta, k.grad_a, k.grad_b, k.grad_c
    span, lanes, reverse = k.span, k.lanes, k.reverse
    length, size = u.shape[2], A.shape[1]
    a, g_h, g_a = np.zeros((size, lanes), u.dtype), np.zeros((size, lanes), u.dtype), np.zeros((size, lanes), u.dtype)
    dt, x, dy = np.zeros((span, lanes), u.dtype), np.zeros((span, lanes), u.dtype), np.zeros((span, lanes), u.dtype)
    v_u = np.zeros((span, lanes), u.dtype)
    g_x, g_dt = np.zeros(lanes, u.dtype), np.zeros(lanes, u.dtype)
    b, c = np.zeros((span, size), u.dtype), np.zeros((span, size), u.dtype)
    h, e = np.zeros((span + 1, size, lanes), u.dtype), np.zeros((span, size, lanes), u.dtype)
    step = -1 if reverse else 1
    for task in range(low, high):
        image, group, block, first, n = _place(task, u.shape[1], B.shape[1], lanes)
        dy[:], a[:], g_a[:], g_h[:], h[0] = 0, 0, 0, 0, 0
        for s in range(size):
            for v in range(n):
                a[s, v] = A[first + v, s]
                g_h[s, v] = grad_last[image, first + v, s]
        for chunk in range(states.shape[1] - 1, -1, -1):
            m = min(span, length - chunk * span)
            start = length - 1 - chunk * span if reverse else chunk * span
            for s in range(size):
                for v in range(n):
                    h[0, s, v] = states[image, chunk, s, first + v]
            dt[:, n:], v_u[:, n:] = 0, 0  # lanes without a channel hold gradients of the chunk before, NaN perhaps
            _load(dt, delta, image, first, n, start, step, m)
            _load(v_u, u, image, first, n, start, step, m)
            _load(dy, grad_y, image, first, n, start, step, m)
            _load_shared(b, B, image, group, start, step, m)
            _load_shared(c, C, image, group, start, step, m)
            for i in range(m):
                dt_i, u_i, x_i = dt[i], v_u[i], x[i]
                for v in range(lanes):
                    x_i[v] = dt_i[v] * u_i[v]
                _advance(dt_i, x_i, a, b[i], h[i], e[i], h[i + 1])
            for i in range(m - 1, -1, -1):
                time = start + step * i
                part_b, part_c = grad_b[block, image, group, time], grad_c[block, image, group, time]
                dt_i, u_i = dt[i], v_u[i]
                _step_back(dy[i], x[i], dt_i, a, b[i], c[i], e[i], h[i], h[i + 1], g_h, g_x, g_dt, g_a, part_b, part_c)
                for v in range(lanes):
                    g_dt_v = g_dt[v] + g_x[v] * u_i[v]
                    u_i[v] = g_x[v] * dt_i[v]
                    dt_i[v] = g_dt_v
            _store(grad_u, v_u, image, first, n, start, step, m)
            _store(grad_delta, dt, image, first, n, start, step, m)
        for s in range(size):
            for v in range(n):
                grad_a[image, s, first + v] = g_a[s, v]
                grad_last[image, first + v, s] = g_h[s, v]
