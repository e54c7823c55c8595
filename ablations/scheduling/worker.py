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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ablations import layout
from ablations import plan as plans
from ablations.layout import run_directory
from ablations.plan import Plan
from ablations.scheduling import ledger as ledgers
from ablations.scheduling.choosing import choose, ready
from ablations.scheduling.ledger import Claim, StudyLedger
from ablations.scheduling.storage import StorageError, close, disk_is_full, open_storage
from ablations.scheduling.trial.hparams import log_settings
from ablations.scheduling.trial.peak_memory import PeakMemory
from ablations.trials import TUNING
from operators.errors import InputError
from tasks.config.composition import compose
from tasks.run.execute import execute
from tasks.system.reading import UnreadableError
from tasks.system.resuming import continued, earlier_result
from tasks.system.signals import SIGNALS, Stop, StoppedError

OK, FAILED = 0, 1
PEAK = "train/memory_mb"
"""What a study adds to the metrics of a run: see `PeakMemory`."""
PAUSE = 3.0
"""Seconds between looks at a study in which nothing can be taken at the moment."""
STOPS = (*SIGNALS, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that ask a worker to stop; SLURM sends the last two before a job's time is over."""
TRIES = 7
"""How often a storage is asked that does not answer, a little later each time."""

T = TypeVar("T")


def work(plan: Plan, ledger: StudyLedger, directory: Path, stop: Stop) -> None:
    """Carry out trials until every one has ended, or `stop` is set.

    Raises:
        StorageError: the storage has failed for long.
        OSError: the disk is full.
    """

    def take() -> Claim | None:
        ledger.mend()
        return ledger.claim(partial(ready, plan))

    while stop.name is None:
        claim = _patiently(stop, take)
        if claim is not None:
            _attempt(plan, ledger, claim, directory, stop)
        elif all(entry.result for entry in _patiently(stop, ledger.entries)):
            return
        else:
            stop.wait(PAUSE)


def _patiently(stop: Stop, ask: Callable[[], T]) -> T:
    """What the storage answers, or a file holds, also where it cannot be read for a minute."""
    for tries in range(1, TRIES):
        try:
            return ask()
        except (StorageError, UnreadableError) as error:
            if disk_is_full(error) or getattr(error, "fatal", False) or stop.wait(PAUSE * tries):
                raise
            sys.stderr.write(f"{error}; trying again\n")
    return ask()


@contextmanager
def _beating(ledger: StudyLedger, claim: Claim, stop: Stop) -> Iterator[None]:
    """Beat for an attempt while it is carried out, and stop if it was taken away."""
    done = threading.Event()

    def beat() -> None:
        count = 0
        while not done.wait(ledgers.BEAT):
            count += 1
            try:
                if not ledger.beat(claim, count):
                    stop.ask()
            except StorageError as error:
                sys.stderr.write(f"no beat for trial {claim.planned.number}: {error}\n")

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield
    finally:
        done.set()
        heart.join()


def _attempt(plan: Plan, ledger: StudyLedger, claim: Claim, directory: Path, stop: Stop) -> None:
    start = time.monotonic()
    result: dict[str, Any] = {"run_dir": run_directory(claim.planned.number)}
    values = None
    try:
        with _beating(ledger, claim, stop):
            result |= _carry_out(plan, ledger, claim, directory, stop)
        if result["state"] == "complete" and claim.planned.stage != TUNING:
            values = _values(plan, result["metrics"])
    except StorageError:
        raise
    except (StoppedError, SystemExit, KeyboardInterrupt):
        stop.ask()
        ledger.release(claim)
        return
    except Exception as error:
        full = disk_is_full(error)
        if full or (isinstance(error, UnreadableError) and stop.name is not None):
            ledger.release(claim)
            if full:
                raise
            return
        sys.stderr.write("".join(traceback.format_exception(error)))
        result |= {"state": layout.FAILED, "reason": _one_line(error)}
    result["seconds"] = time.monotonic() - start
    _patiently(stop, lambda: ledger.finish(claim, result, values))


def _carry_out(plan: Plan, ledger: StudyLedger, claim: Claim, directory: Path, stop: Stop) -> dict[str, Any]:
    trial, folder = claim.planned, directory / run_directory(claim.planned.number)
    choice = choose(plan, ledger, claim)
    if choice is None:
        return {"state": "skipped", "reason": f"{trial.beyond:g} is not the best level"}
    config = compose(choice.overrides)
    facts = {**choice.facts, "learning_rate": config["optimizer"]["lr"]}
    metrics = _patiently(stop, lambda: earlier_result(folder, config))
    if metrics is None:
        begun = _patiently(stop, lambda: continued(folder, config))
        rate = facts["tuned"] and plan.tuning is not None and plan.tuning.key == "optimizer.lr"
        memory = PeakMemory()
        callbacks = [memory, *filter(None, [choice.pruning])]
        metrics = execute(begun, folder, callbacks=callbacks, stop=stop, tuned=rate)
        if memory.megabytes is not None:
            metrics = {**metrics, PEAK: memory.megabytes}
        if config["logger"]["name"] == "tensorboard":
            log_settings(folder, {"lr": facts["learning_rate"], "seed": trial.seed, **trial.factors}, metrics)
    pruned = choice.pruning is not None and choice.pruning.pruned
    state = "diverged" if metrics["status"] == "diverged" else "pruned" if pruned else "complete"
    return {"state": state, "metrics": json.loads(json.dumps(metrics)), **facts}


def _values(plan: Plan, metrics: Mapping[str, Any]) -> list[float]:
    """What Optuna is told."""
    for one in plan.objectives:
        if not isinstance(metrics.get(one.metric), int | float):
            known = ", ".join(key for key, value in metrics.items() if isinstance(value, int | float))
            raise InputError(f"the run has no number {one.metric!r}: it has {known}")
    return [float(metrics[one.metric]) for one in plan.objectives]


def _one_line(error: BaseException) -> str:
    lines = str(error).split()
    return f"{type(error).__name__}: {' '.join(lines)}" if lines else type(error).__name__


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
            what = f"{task['directory']}: the disk is full" if full else _one_line(error)
            sys.stderr.write("" if full else "".join(traceback.format_exception(error)))
        sys.stderr.write(f"error: {what}\n")
        return FAILED
    return OK


if __name__ == "__main__":
    conclude(main)
