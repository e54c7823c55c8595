"""How fast a device is, measured in about a second: matrix products, element-wise work, and calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tasks.planning.simulate import simulated

BUDGET = 0.3
"""Seconds of each measurement."""
LONGEST = 2**14
"""Side of a matrix, beyond which its product is no faster."""
LARGEST = 5e8
"""Multiply-accumulates of the product that is timed, at most."""
ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 26}
"""Size of the element-wise work that is timed: more than the nearest caches hold, less than a second takes."""


@dataclass(frozen=True)
class Rates:
    """What a device does in a second.

    Attributes:
        macs: multiply-accumulates of a matrix product.
        bandwidth: bytes that element-wise operations read and write, forward and backward; None: not known.
        call: seconds that a small operation takes, with its share of autograd.
        source: where the numbers come from.
    """

    macs: float
    bandwidth: float | None
    call: float
    source: str


def measure(device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int]) -> Rates:
    """Rates of `device`, for products (rows × inner) · (inner × columns) of that `shape`, cut to a tolerable size."""
    rows, inner, columns = (min(side, LONGEST) for side in shape)
    rows = max(64, min(rows, round(LARGEST / (inner * columns))))
    left = torch.ones(rows, inner, device=device, dtype=dtype)
    right = torch.ones(inner, columns, device=device, dtype=dtype)
    count = ELEMENTS[device.type]
    field, scale = torch.ones(count // inner, inner, device=device), torch.ones(inner, device=device)
    small = torch.ones(1, device=device, requires_grad=True)

    def chain() -> None:
        value = small
        for _ in range(50):
            value = value + small
        value.backward()

    product = _seconds(lambda: left @ right, device)
    passes = _seconds(lambda: _elementwise(field, scale), device)
    with simulated() as ledger:
        _elementwise(torch.empty(field.shape), torch.empty(inner))
    return Rates(
        macs=rows * inner * columns / product,
        bandwidth=ledger.traffic / passes,
        call=_seconds(chain, device) / 100,
        source=f"measured on this machine's {device.type} ({torch.get_num_threads()} threads)"
        if device.type == "cpu"
        else f"measured on this machine's {device.type}",
    )


def _elementwise(field: Tensor, scale: Tensor) -> None:
    """What stands between the products of a trunk: a norm, an activation and a gate, there and back."""
    x, weight = field.detach().requires_grad_(), scale.detach().requires_grad_()
    y = F.gelu(F.layer_norm(x, x.shape[1:], weight)) * x
    y.backward(torch.ones_like(y))


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The fastest of the repetitions that fit into `BUDGET`: what the machine does when nothing else runs."""

    def once() -> float:
        start = time.perf_counter()
        work()
        if device.type != "cpu":
            torch.get_device_module(device).synchronize()
        return time.perf_counter() - start

    once()
    end = time.perf_counter() + BUDGET
    best = once()
    while time.perf_counter() < end:
        best = min(best, once())
    return best
