"""What the contract adds to the fast suite: at most four seconds of processor time for each mixer."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

CONTRACT = Path(__file__).with_name("test_contract.py")
KERNELS = sorted(path for path in CONTRACT.parents[1].iterdir() if path.is_dir() and path != CONTRACT.parent)
LIMIT = 4.0
"""Seconds on a core that runs nothing else."""


class Times:
    """Adds up the processor time of the tests of each mixer."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        start = time.process_time()
        try:
            return (yield)
        finally:
            if isinstance(item, pytest.Function) and item.path == CONTRACT:
                self.seconds[item.callspec.params["case"].name] += time.process_time() - start


def measure(out: str) -> None:
    """Write to the file `out` the exit status of the contract's fast tests, and the seconds of each mixer.

    What no mixer needs for itself comes before: imports, and the compilation of kernels, whose own tests need it.
    """
    times = Times()
    status = pytest.main(["-q", *map(str, KERNELS), str(CONTRACT)], plugins=[times])
    Path(out).write_text(json.dumps([int(status), times.seconds]))


@pytest.mark.slow
def test_the_contract_costs_the_fast_suite_little(tmp_path):
    out = tmp_path / "seconds.json"
    program = f"from tests.operators.mixers.test_contract_cost import measure; measure({str(out)!r})"
    ended = subprocess.run([sys.executable, "-c", program], cwd=CONTRACT.parents[3], capture_output=True, text=True)
    assert out.is_file(), ended.stderr
    status, spent = json.loads(out.read_text())
    assert status == 0, ended.stdout
    assert {name: round(value, 1) for name, value in spent.items() if value > LIMIT} == {}
