"""What is said of a mixer that keeps its promises, and of one that does not."""

from __future__ import annotations

from typing import Any

import pytest

from operators import __main__ as cli
from operators.testing import verdict
from operators.testing.verdict import BROKEN, EXEMPT, HOLDS, Verdict


def report(test: str, outcome: Any, *, when: Any = "call", why: Any = None) -> pytest.TestReport:
    return pytest.TestReport(f"suite.py::{test}", ("suite.py", 1, f"TestMixer.{test}"), {}, outcome, why, when)


@pytest.fixture
def mixed() -> Verdict:
    found = Verdict()
    for one in (
        report("test_cost[pool-common]", "passed", when="setup"),
        report("test_cost[pool-common]", "passed"),
        report("test_cost[pool-bare]", "failed", why="3 MACs, the counter saw 4\nand more"),
        report("test_shape_and_dtype[pool-common-torch.float32]", "passed"),
        report("test_shape_and_dtype[pool-common-torch.float64]", "passed"),
        report(
            "test_gradients[pool-common]",
            "skipped",
            when="setup",
            why=("f", 1, "Skipped: pool is exempt: no parameters"),
        ),
        report("test_gradients[pool-bare]", "passed"),
        report("test_linear[pool-bare]", "skipped", when="setup", why=("f", 1, "Skipped: pool is exempt: it is odd")),
        report("test_compile[pool-common]", "failed", when="setup", why="no compiler"),
    ):
        found.pytest_runtest_logreport(one)
    return found


def test_outcomes_are_kept_by_promise(mixed: Verdict) -> None:
    states = {name: (promise.state, promise.runs) for name, promise in mixed.promises.items()}
    assert states == {
        "cost": (BROKEN, 2),
        "shape_and_dtype": (HOLDS, 2),
        "gradients": (HOLDS, 2),
        "linear": (EXEMPT, 1),
        "compile": (BROKEN, 1),
    }
    assert mixed.promises["cost"].reasons == {"pool-bare": "3 MACs, the counter saw 4"}
    assert mixed.promises["gradients"].reasons == {"pool-common": "pool is exempt: no parameters"}


def test_a_broken_promise_is_the_exit_status(
    mixed: Verdict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verdict, "judge", lambda name, more: (mixed, f"all of pytest on {name}"))
    assert cli.main(["test", "pool"]) == 1
    out = capsys.readouterr().out
    assert "3 MACs, the counter saw 4" in out
    assert "2 of 5 promises of pool are broken" in out
    assert "all of pytest" not in out
    assert cli.main(["test", "pool", "--trace"]) == 1
    assert "all of pytest on pool" in capsys.readouterr().out


def test_what_cannot_be_tried_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(verdict, "judge", lambda name, more: (Verdict(), "ImportError: odd"))
    assert cli.main(["test", "pool"]) == 2
    assert "the contract could not be run on pool: ImportError: odd" in capsys.readouterr().err
    assert cli.main(["test", "pol"]) == 2
    assert "did you mean 'pool'" in capsys.readouterr().err
