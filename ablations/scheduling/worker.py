"""`python -m ablations.scheduling.worker`: a process that carries out trials of a study until none waits.

Started by an engine, which tells it on standard input, as JSON, where the study is.
"""

from __future__ import annotations

from operators.command_line import begin, conclude

if __name__ == "__main__":
    begin()  # before torch is imported

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ablations import plan as plans
from ablations.plan import Plan
from ablations.scheduling.ledger import StudyLedger
from ablations.scheduling.storage import StorageError, close, disk_is_full, open_storage
from ablations.scheduling.trial import patience
from ablations.scheduling.trial.attempt import attempt, one_line
from ablations.scheduling.trial.choosing import ready
from ablations.scheduling.trial.patience import patiently
from operators.errors import InputError
from tasks.system.signals import SIGNALS, Stop

OK, FAILED = 0, 1
STOPS = (*SIGNALS, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that ask a worker to stop; SLURM sends the last two before a job's time is over."""


def work(plan: Plan, ledger: StudyLedger, directory: Path, stop: Stop) -> None:
    """Carry out trials until every one has ended, or `stop` is set.

    Raises:
        StorageError: the storage has failed for long.
        OSError: the disk is full.
    """
    while stop.name is None:
        claim = patiently(stop, partial(ledger.claim, partial(ready, plan)))
        if claim is not None:
            attempt(plan, ledger, claim, directory, stop)
        elif all(entry.result for entry in patiently(stop, ledger.entries)):
            return
        else:
            stop.wait(patience.PAUSE)


def _follow(parent: int, stop: Stop) -> None:
    """Stop once the process that has started this one is gone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    stop.ask()


def _work(task: Mapping[str, Any], stop: Stop) -> None:
    storage = open_storage(task["storage"])
    try:
        ledger = StudyLedger(storage, task["storage"], task["name"], Path(task["locks"]), task["worker"])
        work(plans.read(task["plan"]), ledger, Path(task["directory"]), stop)
    finally:
        close(storage)


def main() -> int:
    """Do what standard input says; exit status 1 with a last line that begins with `error:` if that cannot go on."""
    line = sys.stdin.readline()
    if not line:
        sys.stderr.write("error: a study starts this process: give python -m ablations study=NAME\n")
        return FAILED
    task = json.loads(line)
    try:
        with Stop(STOPS) as stop:
            threading.Thread(target=_follow, args=(task["parent"], stop), daemon=True).start()
            _work(task, stop)
    except Exception as error:  # noqa: BLE001 - the parent shows the last line
        what = str(error)
        if not isinstance(error, StorageError | InputError):
            full = disk_is_full(error)
            what = f"{task['directory']}: the disk is full" if full else one_line(error)
            sys.stderr.write("" if full else "".join(traceback.format_exception(error)))
        sys.stderr.write(f"error: {what}\n")
        return FAILED
    return OK


if __name__ == "__main__":
    conclude(main)
