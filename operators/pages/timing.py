"""Times of mixers beside those of the reference, measured by the benchmark on the machine that writes the pages."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from operators.benchmark.arms import mixer_arms
from operators.benchmark.bench import Bench
from operators.benchmark.options import REFERENCE
from operators.benchmark.plan import BenchmarkPlan
from operators.benchmark.table import Row
from operators.benchmark.workload import Shape, Target

BATCH, DIM, REPEATS = 2, 96, 3
SIDES = (8, 16, 32)
"""Sides of the grids: the benchmark's `--quick`."""


@dataclass(frozen=True)
class Times:
    """Rows of the benchmark, and by mixer the reasons why it could not be timed."""

    rows: Sequence[Row]
    absent: dict[str, list[str]]

    def of(self, name: str) -> list[Row]:
        """The rows of one mixer, by number of tokens."""
        return sorted((row for row in self.rows if row.arm == name), key=lambda row: (row.tokens, row.work))


def measure(names: Sequence[str], sides: Sequence[int] = SIDES) -> Times:
    """Time the mixers and the reference in turn, forward and with gradients, in the common shell, on the CPU.

    Every mixer is compared with float64 before it is timed; one that is off has no times.
    """
    with tempfile.TemporaryDirectory() as folder:
        plan = BenchmarkPlan(
            arms=mixer_arms(sorted({*names, REFERENCE}), "mixer", {}),
            shapes=[Shape(BATCH, side, side, DIM) for side in sides],
            places=[Target("cpu", "float32")],
            level="mixer",
            reference=REFERENCE,
            repeats=REPEATS,
            threads=torch.get_num_threads(),
            out=Path(folder),
        )
        bench = Bench(plan)
        outcome = bench.run()
    absent: dict[str, list[str]] = {}
    for (arm, reason), places in (*outcome.failed.items(), *outcome.skipped.items()):
        absent.setdefault(arm, []).append(f"{', '.join(places)}: {reason}")
    return Times([row for table in bench.tables.values() for row in table.rows], absent)
