"""What is timed: a computation on tensors that are there already, forward alone or with its gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

FORWARD, BOTH = WORKS = ("forward", "forward+backward")
DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""`float32` is float32 throughout, TF32 off; `bfloat16` is autocast: inputs and parameters stay float32."""


@dataclass(frozen=True)
class Shape:
    """Images of `height` × `width` tokens with `dim` channels, `batch` of them."""

    batch: int
    height: int
    width: int
    dim: int

    @property
    def tokens(self) -> int:
        """Tokens of one image."""
        return self.height * self.width

    @property
    def grid(self) -> str:
        """Height and width in words."""
        return f"{self.height}x{self.width}"


@dataclass(frozen=True)
class Target:
    """Where and in which type a workload runs: `device` is cpu or cuda, `dtype` one of `DTYPES`."""

    device: str
    dtype: str

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which outputs are computed."""
        if self.dtype == "float32":
            return nullcontext()
        return torch.autocast(self.device, dtype=DTYPES[self.dtype])

    def synchronize(self) -> None:
        """Wait for what the device was told to do."""
        if self.device == "cuda":
            torch.cuda.synchronize()


@dataclass(frozen=True)
class Workload:
    """A computation at one shape.

    Attributes:
        call: computes the output; called under autocast.
        inputs: tensors it reads that are not parameters; they get gradients.
        parameters: learnable tensors; they get gradients.
        macs: multiply-accumulates of one forward call, for the whole batch.
        backend: what serves it, as far as can be said before a call.
        constants: tensors it reads that get no gradient.
        trains: whether it has a backward pass.
        asked: says after a call what served it, where that depends on the call (under autocast, on types).
    """

    call: Callable[[], Tensor]
    inputs: tuple[Tensor, ...]
    parameters: tuple[Tensor, ...] = ()
    macs: float = 0.0
    backend: str = "torch"
    constants: tuple[Tensor, ...] = ()
    trains: bool = True
    asked: Callable[[], str] | None = None

    @property
    def served(self) -> str:
        """What served the last call."""
        return self.backend if self.asked is None else self.asked()

    def clear(self) -> None:
        """Drop the gradients of inputs and parameters, so that the next call does not add to them."""
        for leaf in (*self.inputs, *self.parameters):
            leaf.grad = None


def noise(*size: int, device: str, seed: int = 0) -> Tensor:
    """Standard normal numbers (the same on every device)."""
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(device)


def leaf(tensor: Tensor) -> Tensor:
    """The same memory as a tensor that gets a gradient of its own."""
    return tensor.detach().requires_grad_()


def functions(workload: Workload, place: Target) -> dict[str, Callable[[], Tensor]]:
    """For each of `WORKS` that the workload has, a function of no arguments that does it once; returns the output.

    The output's gradient is dense and random, and the same in every call: a constant one would be a broadcast number,
    which is faster and lets some backward passes cancel.
    """

    def forward() -> Tensor:
        with torch.no_grad(), place.autocast():
            return workload.call()

    gradient: list[Tensor] = []

    def both() -> Tensor:
        workload.clear()
        with place.autocast():
            y = workload.call()
        if not gradient:
            gradient.append(noise(*y.shape, device=place.device, seed=1).to(y.dtype))
        y.backward(gradient[0])
        return y.detach()

    return {FORWARD: forward, BOTH: both} if workload.trains else {FORWARD: forward}
