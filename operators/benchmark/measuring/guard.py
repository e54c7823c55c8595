"""Whether an arm will fit into memory, foretold from how much it took at small sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from operators.benchmark.arms import Arm
from operators.benchmark.measuring.clock import peak_bytes
from operators.benchmark.workload import BOTH, FORWARD, Shape, Target, functions

PROBES = ((24, 24), (32, 32))
"""Grids at which memory is measured: of many chunks each, and large enough for what is quadratic to show."""
MARGIN = 1.25
"""What is foretold is multiplied by this."""
SHARE = 0.8
"""Of the memory that is free, how much may be used."""


def available_bytes(device: str) -> int:
    """Memory that is free now, on a machine that says so (Linux, CUDA); otherwise a very large number."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    information = Path("/proc/meminfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    return 1 << 62


def foretell(tokens: int, small: tuple[int, int], large: tuple[int, int]) -> float:
    """Bytes at `tokens` from (tokens, bytes) at two smaller sizes: a n + b n² through both, or a n where b < 0.

    The quadratic part is an attention map or a token matrix; nothing in the zoo grows faster.
    """
    (n1, m1), (n2, m2) = small, large
    b = max(0.0, (m2 / n2 - m1 / n1) / (n2 - n1))
    a = m2 / n2 - b * n2
    return a * tokens + b * tokens**2


class Guard:
    """Refuses arms that would not fit; remembers what it measured.

    Args:
        limit: bytes that an arm may take on each device; None for `SHARE` of what is free when asked.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self._measured: dict[tuple[str, str, str, int, int], list[tuple[int, int]]] = {}

    def refusal(self, arm: Arm, shape: Shape, place: Target) -> str | None:
        """Why the arm should not be built at that shape, or None.

        Grids no larger than the greater probe are not probed: the probe would cost as much.
        """
        limit = self.limit if self.limit is not None else int(SHARE * available_bytes(place.device))
        need: float = 2 * 4 * shape.batch * shape.tokens * shape.dim  # input and output at the very least
        if need <= limit and shape.tokens > PROBES[-1][0] * PROBES[-1][1]:
            key = (arm.label, place.device, place.dtype, shape.batch, shape.dim)
            if key not in self._measured:
                self._measured[key] = [self._probe(arm, shape, grid, place) for grid in PROBES]
            need = MARGIN * foretell(shape.tokens, *self._measured[key])
        if need <= limit:
            return None
        return f"would need about {need / 2**30:.3g} GiB, and {limit / 2**30:.3g} GiB may be used"

    @staticmethod
    def _probe(arm: Arm, shape: Shape, grid: tuple[int, int], place: Target) -> tuple[int, int]:
        """Tokens and bytes of making the arm and running it once, at a small grid (doubled while it is too small)."""
        small = replace(shape, height=grid[0], width=grid[1])
        while arm.absent(small, place):
            small = replace(small, height=2 * small.height, width=2 * small.width)

        def make_and_run() -> None:
            workload = arm.build(small, place)
            works = functions(workload, place)
            works[BOTH if workload.trains else FORWARD]()

        return small.tokens, peak_bytes(make_and_run, place)
