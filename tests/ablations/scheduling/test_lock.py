"""Locks: one holder at a time, none after its death, none by inheritance."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ablations.scheduling.lock import try_lock

HOLD = """
import os, subprocess, sys
from pathlib import Path
from ablations.scheduling.lock import try_lock
lock = try_lock(Path(sys.argv[1]))
assert lock is not None
child = None
if sys.argv[2] == "spawned":
    child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, close_fds=False).pid
elif sys.argv[2] == "forked":
    begun, begins = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(begins, b"x")
        os.close(1)
        os.read(0, 1)
        os._exit(0)
    os.read(begun, 1)  # what a child does as it begins is done
print(child or 0, flush=True)
os.read(0, 1)
"""


@contextmanager
def holder(path: Path, child: str = "alone") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that holds the lock, with the number of the child that it has (0: none)."""
    command = [sys.executable, "-c", HOLD, str(path), child]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    number = 0
    try:
        number = int(process.stdout.readline())
        yield process, number
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait()
        if number and Path(f"/proc/{number}").exists():
            os.kill(number, signal.SIGKILL)


def test_two_callers_in_one_process_exclude_each_other(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.lock"
    lock = try_lock(path)
    assert lock is not None
    assert try_lock(path) is None
    assert try_lock(tmp_path / "b.lock") is not None
    lock.release()
    again = try_lock(path)
    assert again is not None
    again.release()


@pytest.mark.parametrize("child", ["alone", "spawned", "forked"])
def test_the_lock_of_a_process_that_dies_is_free(tmp_path: Path, child: str) -> None:
    path = tmp_path / "a.lock"
    with holder(path, child) as (process, number):
        assert try_lock(path) is None
        process.kill()
        process.wait()
        assert (number != 0) is (child != "alone")
        if number:
            os.kill(number, 0)  # the child is alive
        lock = try_lock(path)
        assert lock is not None
        lock.release()
