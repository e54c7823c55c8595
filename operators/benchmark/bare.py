"""The bare operations that mixers are made of, at the same shapes: what an implementation can hope for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from operators.benchmark.workload import Shape, Target, Workload, leaf, noise
from operators.cost import complex_product_macs, fft_macs
from operators.scan import selective_scan, serving

SCAN_STATES = 16


@dataclass(frozen=True)
class BareArm:
    """A bare operation.

    Attributes:
        label: its name.
        make: builds it at a shape on a device.
    """

    label: str
    make: Callable[[Shape, str], Workload]

    @property
    def kind(self) -> str:
        return "bare"

    @property
    def judged(self) -> None:
        return None

    def absent(self, shape: Shape, place: Target) -> str | None:
        return None

    def build(self, shape: Shape, place: Target) -> Workload:
        return self.make(shape, place.device)


def products(shape: Shape, device: str, states: int = 1) -> Workload:
    """The two batched matrix products of the separable PDE path, channels first; six with their gradients.

    rows (C, S·H, H) @ field (C, H, B·W), then columns (C·S, W, W) from the right, summed over the S states.
    """
    channels, batch, height, width = shape.dim, shape.batch, shape.height, shape.width
    rows = leaf(noise(channels, states * height, height, device=device, seed=1))
    columns = leaf(noise(channels * states, width, width, device=device, seed=2))
    field = leaf(noise(channels, height, batch * width, device=device))

    def call() -> Tensor:
        across = torch.bmm(rows, field).view(channels * states, height * batch, width)
        along = torch.bmm(across, columns)
        return along if states == 1 else along.view(channels, states, height * batch, width).sum(1)

    macs = channels * states * batch * shape.tokens * (height + width)
    return Workload(call, (field,), (rows, columns), macs, "bmm")


def transforms(shape: Shape, device: str) -> Workload:
    """irfft2(rfft2(x) · G) for x (B, C, H, W) and a transfer function G of its own for each channel."""
    x = leaf(noise(shape.batch, shape.dim, shape.height, shape.width, device=device))
    half = (shape.dim, shape.height, shape.width // 2 + 1)
    transfer = leaf(torch.complex(noise(*half, device=device, seed=1), noise(*half, device=device, seed=2)))

    def call() -> Tensor:
        with torch.autocast(device, enabled=False):
            return torch.fft.irfft2(torch.fft.rfft2(x) * transfer, s=(shape.height, shape.width))

    each = 2 * fft_macs(shape.tokens) + complex_product_macs(half[1] * half[2])
    return Workload(call, (x,), (transfer,), shape.batch * shape.dim * each, "fft")


def projection(shape: Shape, device: str) -> Workload:
    """One C × C matrix on every token of x (B, N, C)."""
    x = leaf(noise(shape.batch, shape.tokens, shape.dim, device=device))
    weight = leaf(noise(shape.dim, shape.dim, device=device, seed=1))
    return Workload(lambda: F.linear(x, weight), (x,), (weight,), shape.batch * shape.tokens * shape.dim**2, "linear")


def exponentials(shape: Shape, device: str) -> Workload:
    """The B·N·C·16 exponentials of a selective scan with 16 states, none of which it can avoid."""
    x = leaf(noise(shape.batch, shape.tokens, shape.dim, SCAN_STATES, device=device))
    return Workload(x.exp, (x,), (), 0.0, "exp")


def scan(shape: Shape, device: str) -> Workload:
    """The selective scan by itself, once along the rows, with 16 states."""
    sizes = [(shape.batch, rows, shape.tokens) for rows in (shape.dim, shape.dim, SCAN_STATES, SCAN_STATES)]
    inputs = u, delta, B, C = tuple(leaf(noise(*size, device=device, seed=seed)) for seed, size in enumerate(sizes))
    A = leaf(-noise(shape.dim, SCAN_STATES, device=device, seed=4).exp())

    def call() -> Tensor:
        y = selective_scan(u, delta, A, B, C, delta_softplus=True)
        assert isinstance(y, Tensor)
        return y

    backend = serving("auto", u.device, u.dtype)
    return Workload(call, inputs, (A,), 9 * shape.batch * shape.tokens * shape.dim * SCAN_STATES / 2, backend)


def bare_arms(states: Iterable[int]) -> list[BareArm]:
    """All bare operations, the products for each number of states, and the scan that is measured by exponentials."""

    def with_states(number: int) -> Callable[[Shape, str], Workload]:
        return lambda shape, device: products(shape, device, number)

    return [
        *(BareArm(f"bare products[state={number}]", with_states(number)) for number in sorted(set(states))),
        BareArm("bare fft", transforms),
        BareArm("bare projection", projection),
        BareArm("bare exp", exponentials),
        BareArm("bare scan", scan),
    ]
