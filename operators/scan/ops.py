"""The scan as two operators of torch, forward and backward, whatever carries them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from operators.cpu.op import CpuOp, Tensors
from operators.errors import InputError
from operators.scan import chunked, cpu, cuda

ENGINES: dict[str, ModuleType] = {"chunked": chunked, "mamba_ssm": cuda}
"""Those beside compiled code (`cpu`), each with `forward` and `backward`."""


def _in_layout(result: Tensor, layout: Tensor) -> Tensor:
    """`result` with the strides of `layout`: an operator's fake must foretell them."""
    if result.stride() == layout.stride():
        return result
    return result.new_empty_strided(layout.shape, layout.stride()).copy_(result)


class ScanOp(CpuOp):
    """The recurrence h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, y_t = C_t · h_t in float32 or float64.

    u, delta, y (B, D, L); A (D, S); B, C (B, G, S, L), where group g serves channels g D/G to (g + 1) D/G - 1; initial
    and last (B, D, S); states (B, chunks, S, D): the state before each chunk, for the backward pass. `reverse`: whether
    the scan runs from the last step to the first. `engine`: `cpu`, or one of `ENGINES`.
    """

    name = "selective_scan"
    title = "the compiled scan"
    instead = "use the backend auto or reference"
    once_only = "the scan has second derivatives with backend='reference' only"
    module = "selective_scan"
    tensors = ("u", "delta", "A", "B", "C", "initial")
    options = ("bool reverse", "str engine")
    results = ("y", "last", "states")
    kept = ("u", "delta", "A", "B", "C", "states")
    thread_least = 1 << 16  # updates of states

    def shapes(self, given: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        batch, channels, length = given["u"].shape
        groups, size = given["B"].shape[1], given["A"].shape[1]
        sequence, shared, state = (batch, channels, length), (batch, groups, size, length), (batch, channels, size)
        chunks = 0 if given["engine"] == "mamba_ssm" else (length + chunked.CHUNK - 1) // chunked.CHUNK
        shapes = {"u": sequence, "delta": sequence, "A": (channels, size), "B": shared, "C": shared, "initial": state}
        return {**shapes, "y": sequence, "last": state, "states": (batch, chunks, size, channels)}

    def check(self, given: Mapping[str, Any], tensors: Sequence[str]) -> None:
        if given["engine"] != "cpu":
            return
        channels, groups = given["u"].shape[1], given["B"].shape[1]
        if not groups or channels % groups:
            raise InputError(f"the compiled scan takes groups that divide the {channels} channels, not {groups}")
        super().check(given, tensors)

    def blank_results(self, given: Mapping[str, Any]) -> Tensors:
        _, last, states = super().blank_results(given)
        return torch.empty_like(given["u"]), last, states

    def blank_gradients(self, given: Mapping[str, Any]) -> Tensors:
        u, delta, A, B = given["u"], given["delta"], given["A"], given["B"]
        batch, groups, size, length = B.shape
        shared = [u.new_empty(batch, groups, length, size).mT for _ in "BC"]
        initial = u.new_empty(batch, *A.shape)
        return (torch.empty_like(u), torch.empty_like(delta), u.new_empty(A.shape), *shared, initial)

    def _engine(self, name: str, work: str) -> Callable[..., Tensors]:
        if name == "cpu":
            return partial(getattr(cpu, work), self.run)
        carried_out: Callable[..., Tensors] = getattr(ENGINES[name], work)
        return carried_out

    def forward(self, *given: Any) -> Tensors:
        *tensors, engine = given
        y, last, states = self._engine(engine, "forward")(*tensors)
        u, *_ = tensors
        return _in_layout(y, torch.empty_like(u, device="meta")), last.contiguous(), states.contiguous()

    def backward(self, *given: Any) -> Tensors:
        *tensors, engine = given
        gradients = self._engine(engine, "backward")(*tensors)
        named = zip(("u", "delta", "A", "B"), tensors, strict=False)
        layouts = self.blank_gradients({name: torch.empty_like(x, device="meta") for name, x in named})
        return tuple(_in_layout(gradient, layout) for gradient, layout in zip(gradients, layouts, strict=True))


OP = ScanOp()
scan, scan_backward = OP.operator, OP.gradient
