"""Which promises of the contract a mixer keeps: running the tests, and a table of what came out."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SUITE = Path(__file__).with_name("suite.py")
MIXER = "OPERATOR_ZOO_MIXER"
HOLDS, BROKEN, EXEMPT = "holds", "broken", "exempt"


@dataclass
class Promise:
    """What came out of one test of the contract.

    Attributes:
        runs: in how many shells, types and modes it was put on trial.
        reasons: by the name of the test, why it is broken, or why it does not apply.
        state: `holds`, `broken` in one case at least, or `exempt` in all.
    """

    runs: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    broken: bool = False

    @property
    def state(self) -> str:
        if self.broken:
            return BROKEN
        return EXEMPT if len(self.reasons) == self.runs else HOLDS


@dataclass
class Verdict:
    """A pytest plugin that keeps what came out, by promise."""

    promises: dict[str, Promise] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a call, and whatever else fails or skips it."""
        if report.when != "call" and report.passed:
            return
        test, _, case = report.location[2].partition("[")
        promise = self.promises.setdefault(test.rpartition(".")[2].removeprefix("test_"), Promise())
        promise.runs += 1
        if report.failed:
            promise.broken = True
            promise.reasons[case.removesuffix("]")] = _last_line(report)
        elif report.skipped:
            promise.reasons[case.removesuffix("]")] = str(report.longrepr[2]).removeprefix("Skipped: ")  # type: ignore[index]


def judge(name: str, more: tuple[str, ...] = ()) -> tuple[Verdict, str]:
    """Run the contract on the mixer `name`.

    Args:
        name: of a registered mixer.
        more: further options of pytest.

    Returns:
        What came out, and what pytest has written.
    """
    verdict, output = Verdict(), io.StringIO()
    before = os.environ.get(MIXER)
    os.environ[MIXER] = name
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(output):
            config = Path(folder, "pytest.ini")
            config.write_text("[pytest]\nmarkers = slow: takes minutes\nfilterwarnings = ignore\n")
            options = [str(SUITE), f"--rootdir={folder}", "-c", str(config), "-p", "no:cacheprovider", "--no-header"]
            pytest.main([*options, "--import-mode=importlib", "-q", "--tb=short", *more], plugins=[verdict])
    finally:
        os.environ.pop(MIXER)
        if before is not None:
            os.environ[MIXER] = before
    return verdict, output.getvalue()


def _last_line(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(report.longrepr if crash is None else crash.message)
    return " ".join(text.splitlines()[0].split()) if text else "failed"
