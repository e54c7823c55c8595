"""What a run takes must not depend on what ran before it in the process; in processes of their own, to begin alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tasks

ROOT = Path(tasks.__file__).parents[1]
CODE = """
import json, sys, torch
from lightning.pytorch import LightningModule
from tasks.costs.peak_memory import PeakMemory

class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(8 << 18))  # 8 MiB

model = Model()
earlier = [torch.ones(16 << 10) for _ in range(4000)] if sys.argv[1] == "used" else []  # small pieces, 250 MiB
kept = earlier[::400]  # between what is freed, so that it is not returned by itself
del earlier
memory = PeakMemory()
memory.on_fit_start(None, model)
taken = [torch.ones(16 << 10) for _ in range(int(sys.argv[2]) << 4)]
del taken
memory.on_fit_end(None, model)
print(json.dumps(memory.megabytes * 1e6 / 2**20))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux, which tells the peak")
def test_memory_is_that_of_the_run() -> None:
    def measured(before: str, mebibytes: int) -> float:
        done = subprocess.run(
            [sys.executable, "-c", CODE, before, str(mebibytes)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        return float(json.loads(done.stdout))

    for before in ("fresh", "used"):
        assert measured(before, 100) == pytest.approx(100 + 8, abs=6), before
