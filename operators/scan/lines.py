"""Scans of whole lines of an image: each line is a local average of the one before it, plus a source.

    h[l, i] = source[l, i] + p₋₁[l, i] h[l − 1, i − 1] + p₀[l, i] h[l − 1, i] + p₊₁[l, i] h[l − 1, i + 1]
    y[l, i] = read[l, i] h[l, i]

with nothing beyond the ends of a line and before the first one. The lines are taken one after another, all their pixels
at once. `line_scan_reference` is the definition; the operator keeps the lines and goes back through them by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from operators.cpu.op import CpuOp, Tensors
from operators.errors import InputError
from operators.runtime.differentiation import transformed


def line_scan(source: Tensor, gates: Tensor, read: Tensor, reverse: bool = False) -> Tensor:
    """The read lines y (L, K, n, D), for L lines of n pixels in K problems.

    Args:
        source: (L, K, n, D).
        gates: p₋₁, p₀ and p₊₁, (3, L, K, n, D).
        read: (L, K, n, D).
        reverse: whether the last line is the first one to be taken.
    """
    if transformed():
        return line_scan_reference(source, gates, read, reverse)
    y: Tensor = OP.operator(source, gates, read, reverse)[0]
    return y


def line_scan_reference(source: Tensor, gates: Tensor, read: Tensor, reverse: bool = False) -> Tensor:
    """As `line_scan`, by the definition."""
    lines: list[Tensor] = []
    order = range(len(source))
    for line in reversed(order) if reverse else order:
        h = source[line]
        if lines:
            above = torch.nn.functional.pad(lines[-1], (0, 0, 1, 1))
            for gate, before in zip(gates[:, line], (above[:, :-2], above[:, 1:-1], above[:, 2:]), strict=True):
                h = h + gate * before
        lines.append(h)
    return read * torch.stack(lines[::-1] if reverse else lines)


class LineScanOp(CpuOp):
    """`line_scan`, and the lines themselves; made of torch's operations, for every device."""

    name = "line_scan"
    title = "the line scan"
    instead = "call operators.scan.lines.line_scan_reference"
    once_only = "the line scan has no second derivatives: call operators.scan.lines.line_scan_reference"
    module = ""
    tensors = ("source", "gates", "read")
    options = ("bool reverse",)
    results = ("y", "lines")
    kept = ("gates", "read", "lines")
    thread_least = 1

    def shapes(self, given: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        shape = tuple(given["read"].shape)
        return {"source": shape, "gates": (3, *shape), "read": shape, "y": shape, "lines": shape}

    def blank_gradients(self, given: Mapping[str, Any]) -> Tensors:
        shapes = self.shapes(given)
        return tuple(given["read"].new_empty(shapes[name]) for name in self.tensors)

    def check(self, given: Mapping[str, Any], tensors: Sequence[str]) -> None:
        shapes = self.shapes(given)
        for name in tensors:
            if tuple(given[name].shape) != shapes[name.removeprefix("grad_")]:
                raise InputError(f"{self.title} takes {name} of shape {shapes[name]}, not {tuple(given[name].shape)}")

    def forward(self, source: Tensor, gates: Tensor, read: Tensor, reverse: bool) -> Tensors:
        lines = torch.empty_like(read, memory_format=torch.contiguous_format)
        before: Tensor | None = None
        for line in _order(len(read), reverse):
            h, (left, middle, right) = lines[line], gates[:, line]
            if before is None:
                h.copy_(source[line])
            else:
                torch.addcmul(source[line], middle, before, out=h)
                h[:, 1:].addcmul_(left[:, 1:], before[:, :-1])
                h[:, :-1].addcmul_(right[:, :-1], before[:, 1:])
            before = h
        return _product(read, lines), lines

    def backward(self, gates: Tensor, read: Tensor, lines: Tensor, grad_y: Tensor, reverse: bool) -> Tensors:
        total = _product(read, grad_y)  # the gradients of the lines, and of the source
        order = _order(len(read), reverse)
        for line, later in zip(order[-2::-1], order[:0:-1], strict=True):
            g, after, (left, middle, right) = total[line], total[later], gates[:, later]
            g.addcmul_(middle, after)
            g[:, :-1].addcmul_(left[:, 1:], after[:, 1:])
            g[:, 1:].addcmul_(right[:, :-1], after[:, :-1])
        grad_gates = torch.empty_like(gates, memory_format=torch.contiguous_format)
        grad_gates[:, order[0]] = 0
        grad_gates[0, :, :, 0] = grad_gates[2, :, :, -1] = 0
        to, of = (slice(None, -1), slice(1, None)) if reverse else (slice(1, None), slice(None, -1))
        torch.mul(total[to, :, 1:], lines[of, :, :-1], out=grad_gates[0, to, :, 1:])
        torch.mul(total[to], lines[of], out=grad_gates[1, to])
        torch.mul(total[to, :, :-1], lines[of, :, 1:], out=grad_gates[2, to, :, :-1])
        return total, grad_gates, _product(grad_y, lines)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """The product in one piece, whatever the strides of its factors: the compiler is told so."""
    return torch.mul(left, right, out=torch.empty_like(right, memory_format=torch.contiguous_format))


def _order(lines: int, reverse: bool) -> list[int]:
    return list(range(lines))[::-1] if reverse else list(range(lines))


OP = LineScanOp()
