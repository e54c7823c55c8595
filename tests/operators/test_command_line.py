"""What every command does first and last."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import operators

ROOT = Path(operators.__file__).parents[1]
PROGRAM = """
import sys
from operators.command_line import begin, conclude

def main():
    print("a result ± 1")
    sys.stderr.write("error: a word\\n")
    return 2

begin()
conclude(main)
"""


def answer(tail: str, folder: Path, program: str = PROGRAM, **environment: str) -> tuple[int, str, str]:
    """Exit status, output and errors of a program whose output goes where `tail`, the end of a shell's line, says."""
    (folder / "program.py").write_text(program)
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} program.py {tail}"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("tail", "status", "errors"),
    [
        ("", 2, "error: a word\n"),
        (">/dev/full", 1, "error: a word\nerror: the output cannot be written: No space left on device\n"),
        (">&-", 2, "error: a word\n"),
        ("2>/dev/full", 1, ""),
        ("2>&-", 2, ""),
        ("| true; exit ${PIPESTATUS[0]}", 2, "error: a word\n"),
    ],
)
def test_output_that_cannot_be_written_is_one_line(tail: str, status: int, errors: str, tmp_path: Path) -> None:
    late = PROGRAM.replace("def main():", "def main():\n    import time; time.sleep(0.3)")  # until the reader has left
    got, _, err = answer(tail, tmp_path, late if "true" in tail else PROGRAM)
    assert (got, err) == (status, errors)


def test_what_an_encoding_lacks_is_a_question_mark(tmp_path: Path) -> None:
    assert answer("", tmp_path, PYTHONIOENCODING="ascii") == (2, "a result ? 1\n", "error: a word\n")


def test_idle_threads_may_sleep_soon_unless_the_user_says_how_they_wait(tmp_path: Path) -> None:
    names = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    program = PROGRAM.replace('print("a result ± 1")', f"import os; print(*map(os.environ.get, {names}))")
    assert answer("", tmp_path, program)[1] == "1000 0\n"
    assert answer("", tmp_path, program, GOMP_SPINCOUNT="7")[1] == "7 0\n"


def test_a_module_with_the_name_of_one_of_ours_is_told(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("raise SystemExit(77)")
    status, out, err = answer("", tmp_path)
    assert (status, out) == (2, "")
    assert err == (
        f"error: {tmp_path / 'tasks.py'} has the name of this project's package 'tasks' and comes before it: "
        "rename it, or start from another folder\n"
    )


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    status, _, err = answer("", tmp_path, PROGRAM.replace("return 2", "open('/nowhere')"))
    assert status == 1
    assert "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere'" in err
