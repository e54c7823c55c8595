"""A run that fails: what it says and with which exit status; and how its processes learn that one of them has failed.

Without that, a process waits for a failed one as long as the collective operation it is in lets it, or is killed
without a word. So every other process leaves a note in the run directory, and the first one looks for notes.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from operators.errors import InputError
from tasks.system.environment import rank
from tasks.system.signals import StoppedError

FAILED, WRONG_INPUT = 1, 2
"""Exit statuses."""
TRACEBACK = "HYDRA_FULL_ERROR"
"""Environment variable: 1 asks for the traceback of wrong input too."""

ECHO = 0.5
"""Seconds in which a failure is found that another process' error, a broken connection, is the echo of."""

# What the system says of a path that cannot be used as it is asked to be, whatever is done about it later.
_OF_THE_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EROFS, errno.EACCES, errno.EPERM)
_PERIOD, _PATIENCE = 0.1, 60.0
_FOLDER = ".failures"


class DiskFullError(RuntimeError):
    """Something could not be written; the message says what, and how the run continues."""


class WorkerError(RuntimeError):
    """The processes that load data cannot start or go on; the message says why, and how the run continues."""


def explain(error: BaseException) -> tuple[int, str]:
    """Exit status and text: one line for what is understood, the traceback for the rest or where it is asked for."""
    if isinstance(error, StoppedError | DiskFullError | WorkerError):
        return FAILED, str(error)
    if isinstance(error, OSError) and error.errno in _OF_THE_PATH:
        name = os.fsdecode(error.filename or "")
        error = InputError(f"{name if len(name) < 200 else name[:200] + '…'}: {os.strerror(error.errno)}")
    wrong_input = isinstance(error, InputError)
    if wrong_input and os.environ.get(TRACEBACK) != "1":
        return WRONG_INPUT, f"error: {' '.join(str(error).split())}"
    return WRONG_INPUT if wrong_input else FAILED, "".join(traceback.format_exception(error)).rstrip("\n")


def tell(run_dir: Path, error: BaseException) -> None:
    """Tell the first process of the run in `run_dir`, if it watches; return when it knows, or after a minute.

    Until then this process' connections stay open: no other fails because of it.
    """
    status, text = explain(error)
    folder = run_dir / _FOLDER
    note, draft = folder / f"{rank()}.json", folder / f"{rank()}.part"
    try:
        draft.write_text(json.dumps({"status": status, "text": text}))
        draft.replace(note)
    except FileNotFoundError:
        return  # nobody watches
    end = time.monotonic() + _PATIENCE
    while note.exists() and time.monotonic() < end:
        time.sleep(_PERIOD)


class Watch:
    """Looks, in the first process, for notes of others and for others that died without one.

    Args:
        run_dir: of the run.
        children: processes started by this one.
        give_up: called, in a thread of its own, before this process says what the other said, and ends with its status.
    """

    def __init__(
        self,
        run_dir: Path,
        children: Callable[[], Sequence[subprocess.Popen[bytes]]],
        give_up: Callable[[], None],
    ) -> None:
        self._folder, self._children, self._give_up = run_dir / _FOLDER, children, give_up
        self._over, self._turn = threading.Event(), threading.Lock()
        self._forget()
        self._folder.mkdir()
        threading.Thread(target=self._run, daemon=True, name="watch-processes").start()

    def stop(self, after: float = 0.0) -> None:
        """Look no more, `after` some seconds. Does not return where this process is being ended for another's."""
        time.sleep(after)
        with self._turn:
            self._over.set()
            self._forget()

    def _run(self) -> None:
        dead = ""
        while not self._over.wait(_PERIOD):
            with self._turn:
                notes = [] if self._over.is_set() else sorted(self._folder.glob("*.json"))
                if notes:
                    note = json.loads(notes[0].read_text())
                    self._end(note["status"], note["text"])
                elif dead:
                    self._end(FAILED, dead)
            # A child that failed by an exception leaves a note before it ends: look again before saying this.
            gone = [(i, child.poll()) for i, child in enumerate(self._children(), 1)]
            dead = next((f"error: process {i} of this run ended ({_how(code)})" for i, code in gone if code), "")

    def _end(self, status: int, text: str) -> NoReturn:
        """End this process: its main thread may never come back from waiting for the failed one."""
        try:
            self._give_up()
        finally:
            sys.stdout.flush()
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
            self._forget()
            for child in self._children():
                child.kill()
            os._exit(status)

    def _forget(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
