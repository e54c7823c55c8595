"""The way of a compiled recurrence through a grid, forward and backward; what recurs in a cell is given as functions.

A task is one image and one block of 16 channels. It goes through the rows, and through the columns of each, and holds
one row of states; nothing of size B·H·W·D·S exists. The forward pass keeps the row of states before every band of
`span` rows but the first. From it the backward pass recomputes one band at a time.

Vectors over channels that a cell needs together are parts of one array, one after another: part p begins at p · LANES.
LLVM makes vectors of short loops only if few comparisons tell it that their arrays do not overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np

from operators.cpu.compilation import inner

LANES = 16
"""Channels of a block."""

step: Any = None
advance: Any = None
step_back: Any = None
"""These stand for a recurrence's own, which take their place among the globals of `scan` and `scan_back`."""


def around(way: Callable[..., None], **cell: Any) -> Any:
    """`scan` or `scan_back` for compiled code, with a recurrence's own functions of a cell.

    What takes compiled functions as arguments, or closes over them, numba does not keep on disk.
    """
    (owner,) = {function.py_func.__module__ for function in cell.values()}
    made = FunctionType(way.__code__, {**globals(), **cell}, way.__name__)
    made.__qualname__ = f"{way.__name__}.{owner}"
    return inner(made, once=True)


@inner
def place(task: int, channels: int) -> tuple[int, int, int, int]:
    """Image, block, first channel and number of channels of a task."""
    blocks = (channels + LANES - 1) // LANES
    image, block = divmod(task, blocks)
    return image, block, block * LANES, min(LANES, channels - block * LANES)


@inner
def _load(tile: Any, part: int, source: Any, image: int, i: int, first: int, n: int, right: int) -> None:
    """tile[j, part + v] = source[image, i, j, first + v], columns from the last one if `right`."""
    columns = source.shape[2]
    for j in range(columns):
        column = columns - 1 - j if right else j
        for v in range(n):
            tile[j, part + v] = source[image, i, column, first + v]


@inner
def _load_maps(tile: Any, sources: Any, image: int, i: int, right: int) -> None:
    """tile[j, m, s] = sources[m][image, i, j, s], columns from the last one if `right`."""
    columns = tile.shape[0]
    for m in range(len(sources)):
        for j in range(columns):
            column = columns - 1 - j if right else j
            for s in range(tile.shape[2]):
                tile[j, m, s] = sources[m][image, i, column, s]


@inner
def _store(target: Any, tile: Any, part: int, image: int, i: int, first: int, n: int, right: int) -> None:
    """target[image, i, j, first + v] = tile[j, part + v], columns from the last one if `right`."""
    columns = target.shape[2]
    for j in range(columns):
        column = columns - 1 - j if right else j
        for v in range(n):
            target[image, i, column, first + v] = tile[j, part + v]


@inner
def _store_maps(targets: Any, tile: Any, block: int, image: int, i: int, right: int) -> None:
    """targets[m][block, image, i, j, s] = tile[j, m, s], columns from the last one if `right`."""
    columns = tile.shape[0]
    for m in range(len(targets)):
        for j in range(columns):
            column = columns - 1 - j if right else j
            for s in range(tile.shape[2]):
                targets[m][block, image, i, column, s] = tile[j, m, s]


@inner
def _load_rates(tile: Any, sources: Any, first: int, n: int) -> None:
    """tile[s, p · LANES + v] = sources[p][first + v, s], and zero elsewhere."""
    tile[:] = 0
    for p in range(len(sources)):
        for s in range(tile.shape[0]):
            for v in range(n):
                tile[s, p * LANES + v] = sources[p][first + v, s]


@inner
def _store_rates(targets: Any, tile: Any, image: int, first: int, n: int) -> None:
    """targets[p][image, s, first + v] = tile[s, p · LANES + v] of the second half of a tile's parts."""
    for p in range(len(targets)):
        part = (len(targets) + p) * LANES
        for s in range(tile.shape[0]):
            for v in range(n):
                targets[p][image, s, first + v] = tile[s, part + v]


@inner
def _keep(states: Any, row: Any, image: int, band: int, first: int, n: int) -> None:
    """states[image, band, j, p S + s, first + v] = row[j + 1, s, p · LANES + v]."""
    size = row.shape[1]
    for j in range(states.shape[2]):
        for s in range(size):
            for p in range(states.shape[3] // size):
                for v in range(n):
                    states[image, band, j, p * size + s, first + v] = row[j + 1, s, p * LANES + v]


@inner
def _recall(row: Any, states: Any, image: int, band: int, first: int, n: int) -> None:
    """What `_keep` has kept; zeros for band −1."""
    row[:] = 0
    size = row.shape[1]
    if band >= 0:
        for j in range(states.shape[2]):
            for s in range(size):
                for p in range(states.shape[3] // size):
                    for v in range(n):
                        row[j + 1, s, p * LANES + v] = states[image, band, j, p * size + s, first + v]


def scan(
    held: int, fields: Any, rates: Any, maps: Any, coupling: float, y: Any, states: Any, span: int,
    bottom: int, right: int, low: int, high: int,
) -> None:  # fmt: skip
    """Carry out the tasks `low` to `high` - 1 forward: write y and states.

    `step` takes the fields' parts, the cell's row and column in the order of the scan, the coupling, the rates' parts,
    the maps (M, S), the states (S, parts) of the left cell and, to become its own, of the upper one, and a vector for
    the output.

    Args:
        held: parts of a cell's states; the lower neighbour needs those of the first that `states` has room for.
        fields: arrays (B, H, W, D).
        rates: arrays (D, S).
        maps: arrays (B, H, W, S).
        coupling: a number for `step`.
        y: (B, H, W, D).
        states: (B, bands, W, parts · S, D).
        span: rows of a band.
        bottom: whether the scan starts in the last row.
        right: whether it starts in the last column.
        low: the first task.
        high: the last one and one more.
    """
    _, height, width, channels = y.shape
    size = rates[0].shape[1]
    rate = np.zeros((size, len(rates) * LANES), y.dtype)
    row = np.zeros((width + 1, size, held * LANES), y.dtype)  # its first element stands left of the grid, and is zero
    given, out = np.zeros((width, len(fields) * LANES), y.dtype), np.zeros((width, LANES), y.dtype)
    shared = np.zeros((width, len(maps), size), y.dtype)
    for task in range(low, high):
        image, _, first, n = place(task, channels)
        given[:], row[:] = 0, 0
        _load_rates(rate, rates, first, n)
        for i in range(height):
            if i > 0 and i % span == 0:
                _keep(states, row, image, i // span - 1, first, n)
            line = height - 1 - i if bottom else i
            for p in range(len(fields)):
                _load(given, p * LANES, fields[p], image, line, first, n, right)
            _load_maps(shared, maps, image, line, right)
            for j in range(width):
                step(given[j], i, j, coupling, rate, shared[j], row[j], row[j + 1], out[j])
            _store(y, out, 0, image, line, first, n, right)


def scan_back(
    held: int, kept: int, fields: Any, rates: Any, maps: Any, coupling: float,
    states: Any, grad_y: Any, grad_fields: Any, grad_rates: Any, grad_maps: Any, span: int, bottom: int, right: int,
    low: int, high: int,
) -> None:  # fmt: skip
    """Carry out the tasks `low` to `high` - 1 backward: write the gradients.

    `advance` is as `step` of `scan`, with the upper cell's states apart from its own, which stand with the transitions.
    `step_back` takes the fields' parts and the output's gradient, row, column and coupling, the parts of rates and of
    their gradients, the maps, the states of the cell, its left and its upper one, what comes to it from the right and
    from below, to become what it hands back, the parts of the fields' gradients, and those of maps.

    Args:
        held: parts of a cell that `advance` writes, states first.
        kept: parts of what a cell hands back in each direction.
        fields: arrays (B, H, W, D).
        rates: arrays (D, S).
        maps: arrays (B, H, W, S).
        coupling: a number for both functions.
        states: (B, bands, W, parts · S, D).
        grad_y: (B, H, W, D).
        grad_fields: arrays (B, H, W, D).
        grad_rates: arrays (B, S, D), to be summed over images.
        grad_maps: arrays (blocks, B, H, W, S), to be summed over blocks.
        span: rows of a band.
        bottom: whether the scan starts in the last row.
        right: whether it starts in the last column.
        low: the first task.
        high: the last one and one more.
    """
    _, height, width, channels = grad_y.shape
    size, dtype = rates[0].shape[1], grad_y.dtype
    rate = np.zeros((size, 2 * len(rates) * LANES), dtype)
    to_left, to_up = np.zeros((size, kept * LANES), dtype), np.zeros((width, size, kept * LANES), dtype)
    given = np.zeros((span, width, (len(fields) + 1) * LANES), dtype)
    shared = np.zeros((span, width, len(maps), size), dtype)
    cells = np.zeros((span + 1, width + 1, size, held * LANES), dtype)
    grads, grad_shared = np.zeros((width, len(fields) * LANES), dtype), np.zeros((width, len(maps), size), dtype)
    for task in range(low, high):
        image, block, first, n = place(task, channels)
        given[:], to_up[:] = 0, 0
        _load_rates(rate, rates, first, n)
        for band in range((height - 1) // span, -1, -1):
            start = band * span
            m = min(span, height - start)
            _recall(cells[0], states, image, band - 1, first, n)
            for r in range(m):
                line = height - 1 - start - r if bottom else start + r
                for p in range(len(fields)):
                    _load(given[r], p * LANES, fields[p], image, line, first, n, right)
                _load(given[r], len(fields) * LANES, grad_y, image, line, first, n, right)
                _load_maps(shared[r], maps, image, line, right)
                for j in range(width):
                    advance(
                        given[r, j], start + r, j, coupling, rate, shared[r, j], cells[r + 1, j], cells[r, j + 1],
                        cells[r + 1, j + 1],
                    )  # fmt: skip
            for r in range(m - 1, -1, -1):
                line = height - 1 - start - r if bottom else start + r
                to_left[:] = 0
                for j in range(width - 1, -1, -1):
                    step_back(
                        given[r, j], start + r, j, coupling, rate, shared[r, j], cells[r + 1, j + 1], cells[r + 1, j],
                        cells[r, j + 1], to_left, to_up[j], grads[j], grad_shared[j],
                    )  # fmt: skip
                for p in range(len(fields)):
                    _store(grad_fields[p], grads, p * LANES, image, line, first, n, right)
                _store_maps(grad_maps, grad_shared, block, image, line, right)
        _store_rates(grad_rates, rate, image, first, n)
