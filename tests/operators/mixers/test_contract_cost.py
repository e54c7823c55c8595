"""What the contract adds to the fast suite: at most four seconds of processor time for each mixer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.processes import CLEAN

OPERATORS = Path(__file__).parents[1]
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
            if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
                self.seconds[item.callspec.params["case"].name] += time.process_time() - start


def seconds() -> tuple[int, dict[str, float]]:
    """The exit status of the contract's fast tests, and the seconds of each mixer.

    What no mixer needs for itself comes before: imports, and the compilation of kernels, whose own tests need it.
    """
    kernels = [str(folder) for folder in sorted(OPERATORS.iterdir()) if folder.is_dir() and folder.name != "mixers"]
    contract = str(OPERATORS / "mixers" / "test_contract.py")
    pytest.main(["-q", *kernels])
    pytest.main(["-q", contract, "-k", "identity"])
    times = Times()
    status = pytest.main(["-q", contract], plugins=[times])
    return int(status), dict(times.seconds)


@pytest.mark.slow
def test_the_contract_costs_the_fast_suite_little():
    with ProcessPoolExecutor(1, CLEAN) as pool:
        status, spent = pool.submit(seconds).result()
    assert status == 0
    assert {name: round(value, 1) for name, value in spent.items() if value > LIMIT} == {}
