"""How near to the machine's limits a workload comes.

    attainable time = max(flops / rate, bytes / bandwidth)        share = attainable time / measured time

`rate` is that of a large matrix product in the same type and `bandwidth` that of a copy too large for caches (what is
read and what is written both count), medians of the same interleaved run with the same threads. `flops` are 2 per MAC
of `mixer.cost`, three times as many with the backward pass (each product has two in it). `bytes` are the compulsory
traffic: inputs, parameters (and buffers) and output once; with the backward pass, what was read is read once more, the
output's gradient is read, and gradients of inputs and parameters are written. Data that stays in caches can make the
share larger than one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from operators.benchmark.workload import DTYPES, FORWARD, Target, Workload, noise

MATRIX = {"cpu": 1024, "cuda": 8192}
"""Side of the matrices whose product gives the rate."""
COPY_BYTES = {"cpu": 1 << 26, "cuda": 1 << 30}
"""Size of what is copied."""
PRODUCT, COPY = CEILINGS = ("matrix product", "copy")


def flops(macs: float, work: str) -> float:
    """Floating-point operations of a workload of so many MACs forward."""
    return 2 * macs * (1 if work == FORWARD else 3)


def traffic(workload: Workload, output: Tensor, work: str) -> int:
    """Compulsory bytes, see the module's docstring."""
    given = sum(tensor.nbytes for tensor in (*workload.inputs, *workload.parameters))
    constants = sum(tensor.nbytes for tensor in workload.constants)
    if work == FORWARD:
        return given + constants + output.nbytes
    return 3 * given + 2 * constants + 2 * output.nbytes


def attainable(operations: float, moved: float, rate: float, bandwidth: float) -> float:
    """Seconds below which no implementation comes: `rate` in flops, `bandwidth` in bytes per second."""
    return max(operations / rate, moved / bandwidth)


def ceilings(place: Target) -> dict[str, Workload]:
    """The two workloads that measure the machine, by the names in `CEILINGS`."""
    side, size = MATRIX[place.device], COPY_BYTES[place.device]
    dtype = DTYPES[place.dtype]
    a, b = (noise(side, side, device=place.device, seed=seed).to(dtype) for seed in (0, 1))
    product = torch.empty_like(a)
    source = torch.zeros(size // 4, device=place.device)
    target = torch.zeros_like(source)

    def multiply() -> Tensor:
        return torch.mm(a, b, out=product)

    def copy() -> Tensor:
        return target.copy_(source)

    return {
        PRODUCT: Workload(multiply, (a, b), macs=side**3, trains=False),
        COPY: Workload(copy, (source,), trains=False),
    }


def limits(seconds: dict[str, float], place: Target) -> tuple[float, float]:
    """Rate in flops and bandwidth in bytes per second, from the seconds of both ceilings."""
    return 2 * MATRIX[place.device] ** 3 / seconds[PRODUCT], 2 * COPY_BYTES[place.device] / seconds[COPY]
