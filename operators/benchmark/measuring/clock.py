"""Time in interleaved samples, and memory at its peak."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.autograd import profiler_legacy

from operators.benchmark.workload import Target, Workload

LEAST_SAMPLE = 0.02
"""Seconds that a sample takes at least, by repeating short calls."""
MANY_CALLS = 100_000


def _timed(function: Callable[[], Tensor], calls: int, place: Target) -> float:
    """Seconds of so many calls together."""
    place.synchronize()
    start = perf_counter()
    for _ in range(calls):
        function()
    place.synchronize()
    return perf_counter() - start


@dataclass
class Lane:
    """One workload and one of its `WORKS`, with what was measured of it.

    Attributes:
        label, work: of what.
        function: does the work once.
        workload: whose gradients are dropped after each sample.
        place: where it runs.
        calls: calls in a sample.
        cost: seconds that a sample is expected to take.
        peak: bytes at the peak of one call, above what was there before it.
        samples: seconds per call, one number per round.
    """

    label: str
    work: str
    function: Callable[[], Tensor]
    workload: Workload
    place: Target
    calls: int = 1
    cost: float = 0.0
    peak: int = 0
    samples: list[float] = field(default_factory=list)

    def calibrate(self, check: Callable[[Tensor], None] = lambda output: None) -> Tensor:
        """Warm up, measure the peak of memory, and set how many calls a sample has; returns an output.

        `check` is called with the output while the gradients are there.
        """
        output = self.function()  # the first call compiles and fills caches
        check(output)
        self.workload.clear()
        self.peak = peak_bytes(self.function, self.place)
        while True:
            self.cost = _timed(self.function, self.calls, self.place)
            if self.cost >= LEAST_SAMPLE or self.calls >= MANY_CALLS:
                break
            # At most tenfold at a time: the first estimates of short calls are rough.
            wanted = math.ceil(1.1 * self.calls * LEAST_SAMPLE / max(self.cost, 1e-9))
            self.calls = min(wanted, 10 * self.calls, MANY_CALLS)
        self.workload.clear()
        return output

    def sample(self) -> None:
        """Time `calls` calls and keep the mean of them, in seconds."""
        self.samples.append(_timed(self.function, self.calls, self.place) / self.calls)
        self.workload.clear()


def round_robin(
    lanes: list[Lane],
    rounds: int,
    *,
    deadline: float = math.inf,
    least: int = 3,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Sample every lane once in each round, so that a change of the machine's speed meets all of them alike.

    Every second round runs backwards, so that no lane always follows the same one. Ends early, but not before `least`
    rounds, where the next round would end after `deadline` (in `perf_counter`'s seconds). `after` is called after each
    sample.
    """
    expected = sum(lane.cost for lane in lanes)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            if number >= min(least, rounds) and perf_counter() + expected > deadline:
                break
            for lane in lanes if number % 2 == 0 else reversed(lanes):
                lane.sample()
                after()
    finally:
        if collecting:
            gc.enable()


def peak_bytes(function: Callable[[], object], place: Target) -> int:
    """Most bytes alive at once during one call, above those that were there before it; its result counts.

    On CUDA the allocator's own peak. On CPU every allocation and release that torch's allocator reports, temporary
    buffers inside operators included (but not memory that libraries take from the system themselves).
    """
    if place.device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = function()
        torch.cuda.synchronize()
        del result
        return int(torch.cuda.max_memory_allocated() - before)
    # The legacy profiler reports the same allocations as the new one, which writes to standard error and takes seconds
    # to start.
    start: Any = vars(torch.autograd)["_enable_profiler_legacy"]
    stop: Any = vars(torch.autograd)["_disable_profiler_legacy"]
    start(profiler_legacy.profile(profile_memory=True).config())
    try:
        result = function()
    finally:
        records = stop()
    del result
    alive = peak = 0
    for thread in records:
        for event in thread:
            if event.kind() == "memory_alloc":
                alive += event.cpu_memory_usage()
                peak = max(peak, alive)
    return peak
