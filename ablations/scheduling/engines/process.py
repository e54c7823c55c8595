"""The process of a worker, as every engine begins it on the machine where it has found room for it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

PATIENCE = 30.0
"""Seconds that a worker has to stop in when it is asked to."""
DIED = -1
"""Exit status of a worker whose end nobody has seen."""
_LOOK = 0.2
"""Seconds between looks at the process."""


@dataclass(frozen=True)
class Ending:
    """The exit status of a worker, negative where it was killed, and its last words where it gave up."""

    status: int
    words: str = ""


@dataclass(frozen=True)
class Instructions:
    """What all workers of a study are told, as JSON has it; `crew` tells those of this call from all others.

    They begin in `folder`, on every machine, since paths may be relative.
    """

    task: Mapping[str, Any]
    crew: str
    logs: Path
    folder: Path = field(default_factory=Path.cwd)

    def begin(self, place: int, environment: Mapping[str, str]) -> WorkerProcess:
        """Start the worker of a place, on this machine."""
        return WorkerProcess(
            json.dumps({**self.task, "worker": f"{self.crew} {place}", "parent": os.getpid()}),
            self.logs / f"{socket.gethostname()}-{place}.log",
            self.folder,
            environment,
        )


class WorkerProcess:
    """A process that carries out trials, and its log."""

    def __init__(self, task: str, log: Path, folder: Path, environment: Mapping[str, str]) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        with log.open("a") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ablations.scheduling.worker"],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                text=True,
                cwd=folder,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the parent, which passes it on once
            )
        pipe: IO[str] | None = self._process.stdin
        assert pipe is not None
        pipe.write(f"{task}\n")
        pipe.close()

    @property
    def ending(self) -> Ending | None:
        """None as long as it works."""
        status = self._process.poll()
        return None if status is None else Ending(status, self._last_words() if status > 0 else "")

    def attend(self) -> Ending:
        """Wait for its end; whatever interrupts the wait stops the process."""
        try:
            while (ending := self.ending) is None:
                time.sleep(_LOOK)
            return ending
        finally:
            self.interrupt()
            self.stop(PATIENCE)

    def interrupt(self) -> None:
        """Ask it to save, give its trial back and stop."""
        if self._process.poll() is None:
            self._process.terminate()  # SIGINT may be ignored where this was begun in the background

    def stop(self, seconds: float) -> None:
        """Wait until it has stopped, and kill it after so many seconds."""
        try:
            self._process.wait(max(0.1, seconds))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _last_words(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.startswith("error: ")]
        return lines[-1] if lines else f"error: a worker gave up: see {self._log}"


def environment(threads: int) -> dict[str, str]:
    """Of a worker: all libraries have as many threads, and nothing of a distributed run is left.

    A library with more threads than there is room for spends its time waiting for itself.

    Args:
        threads: where `OMP_NUM_THREADS` does not say how many.
    """
    free = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    share = free.get("OMP_NUM_THREADS", str(threads)).split(",")[0]
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        free.setdefault(name, share)
    return {**free, "PYTHONUNBUFFERED": "1"}
