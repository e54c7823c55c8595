"""The judge can fail: every kind of bad answer is caught, by a small program in the place of the project's."""

# ruff: noqa: E501 - a row of the table is a line

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hostile.case import FAILED, OK, Case
from tests.hostile.cases import collect
from tests.hostile.drive import Drive
from tests.hostile.judge import Outcome, faults
from tests.hostile.making import put
from tests.hostile.start import start
from tests.hostile.store import Store

REFUSES = "sys.stderr.write('error: no such mixer\\n'); sys.exit(2)"


def python(body: str, **more: object) -> Case:
    """A case whose command is `body`, after it has a file `mine` to lose."""
    code = f"import os, subprocess, sys, time; {body}"
    given = {"name": "x", "command": f'-c "{code}"', "make": (put("mine", "thesis"),), "seconds": 20.0, **more}
    return Case(**given)  # type: ignore[arg-type]


pytestmark = pytest.mark.slow  # what is tested is a tool of the slow suite


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], list[str]]:
    store = Store(tmp_path_factory.mktemp("store"))
    return lambda case: faults(case, start(case, tmp_path_factory.mktemp("case") / "x", store))


@pytest.mark.parametrize(
    "case",
    [
        python(REFUSES),
        python("print('all is well')", allowed=(OK,)),
        python("sys.stderr.write('warning: odd\\nerror: no\\n'); sys.exit(2)"),
        python(f"os.rename('mine', 'kept'); {REFUSES}", moves=("mine",), changes=("kept",)),
        python(f"os.remove('mine'); {REFUSES}", changes=("mine",)),
    ],
    ids=["refusal", "success", "warning", "moved", "may change"],
)
def test_good_answer_has_no_faults(case: Case, judged: Callable[[Case], list[str]]) -> None:
    assert judged(case) == []


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (python("raise KeyError('config')"), "traceback: KeyError: 'config'"),
        (python("sys.stderr.write('ValueError: no\\n'); sys.exit(2)"), "class of an error: ValueError: no"),
        (python(REFUSES, traces="mine.py"), "no traceback that leads to mine.py"),
        (python("import ctypes; ctypes.string_at(0)"), "exit status -11"),
        (python("time.sleep(60)", seconds=1.0), "hang: still running after 1 s"),
        (python("sys.exit(0)"), "exit status 0, allowed 2"),
        (python("sys.stderr.write('usage: x\\nerror: no\\n'); sys.exit(2)"), "2 lines on standard error: usage: x"),
        (python("sys.exit(2)"), "no message on standard error"),
        (python(f"os.remove('mine'); {REFUSES}"), "loss: mine is gone"),
        (python(f"open('mine', 'a').write('x'); {REFUSES}"), "loss: mine is changed"),
        (python(f"os.remove('mine'); {REFUSES}", moves=("mine",)), "loss: the content of mine is gone"),
        (python(f"open('new', 'w').close(); {REFUSES}"), "left new behind"),
        (python(f"open('../evil', 'w').close(); {REFUSES}"), "wrote outside its directory: outer/inner/evil"),
        (python(f"open('../../../evil', 'w').close(); {REFUSES}"), "wrote outside its directory: evil"),
        (python("sys.stderr.write('error: url?password=abc\\n'); sys.exit(2)", secret="abc"), "leak: the output holds"),
        (python(f"open('log', 'w').write('abc'); {REFUSES}", secret="abc", changes=("log",)), "leak: log holds the secret"),
        (python("subprocess.Popen(['sleep', '30']); sys.exit(0)", allowed=(OK,)), "left a process running: sleep 30"),
        (python("print('x')", allowed=(OK,), says="24 images"), "the output does not say '24 images'"),
        (python("print('x')", allowed=(OK,), check=lambda work: "48 images"), "wrong result: 48 images"),
        (python("sys.exit('error: no')", allowed=(FAILED,), limits=("nofile=0",)), "exit status 127"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_bad_answer_is_caught(case: Case, expected: str, judged: Callable[[Case], list[str]]) -> None:
    lines = judged(case)
    assert any(line.startswith(expected) for line in lines), lines


def test_memory_is_measured_and_bounded(tmp_path: Path) -> None:
    # More than these tests' own process takes, which counts until the case's program stands in its place.
    case = python("x = b'x' * (2 * 10**9)", allowed=(OK,))
    outcome = start(case, tmp_path / "case", Store(tmp_path / "store"))
    assert 2e9 < outcome.memory < 2.2e9
    assert faults(case, replace(outcome, memory=4 * 2**30)) == ["took 4.0 GiB of memory"]


def test_crowd_is_stopped(judged: Callable[[Case], list[str]]) -> None:
    case = python("[subprocess.Popen(['sleep', '30']) for _ in range(60)]; time.sleep(30)", seconds=40.0)
    assert any(line.startswith("started ") for line in judged(case))


def test_limits_hold(judged: Callable[[Case], list[str]]) -> None:
    body = "sys.exit(0 if len(os.listdir('/proc/self/fd')) and __import__('resource').getrlimit(7)[0] == 64 else 3)"
    assert judged(python(body, allowed=(OK,), limits=("nofile=64",))) == []


def test_drive_judges_every_case(tmp_path: Path) -> None:
    cases = [replace(python(REFUSES), name="good"), replace(python("sys.exit(0)"), name="bad")]
    drive = Drive(cases, tmp_path / "scratch", Store(tmp_path / "store"))
    verdicts = {label: future.result() for label, future in drive.verdicts.items()}
    drive.close()
    assert {label: len(verdict.faults) for label, verdict in verdicts.items()} == {"/good": 0, "/bad": 1}
    assert not list((tmp_path / "scratch").glob("*"))


def test_traceback_of_any_line_is_found() -> None:
    case = Case("x", "-c pass", allowed=(OK,))
    text = 'epoch 1\nTraceback (most recent call last):\n  File "a.py", line 3, in f\nRuntimeError: evil\n'
    assert faults(case, Outcome(OK, stdout=text))[0] == "traceback: RuntimeError: evil"


def test_cases_are_many_and_of_every_area() -> None:
    cases = collect()
    areas = {case.area for case in cases.values()}
    assert len(cases) >= 250
    assert len({(case.command, case.make, *case.environment.items(), case.limits, case.mount, case.redirect)
                for case in cases.values()}) == len(cases)  # fmt: skip
    assert areas >= {"benchmark", "checkpoints", "command_lines", "comparisons", "environment", "exports", "parquet",
                     "storages", "studies", "trees"}  # fmt: skip
