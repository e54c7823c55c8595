"""`python -m ablations.scheduling.worker`: a process that carries out trials of a study until none waits.

Started by an engine, which tells it on standard input, as JSON, where the study is.
"""

from __future__ import annotations

from operators.command_line import begin, conclude

if __name__ == "__main__":
    begin()  # before torch is imported

import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch import Callback
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from ablations import layout
from ablations import plan as plans
from ablations.layout import run_directory
from ablations.plan import Plan
from ablations.scheduling import ledger as ledgers
from ablations.scheduling import matches, samplers
from ablations.scheduling.choosing import best_level
from ablations.scheduling.hparams import log_settings
from ablations.scheduling.ledger import Claim, StudyLedger, TrialEntry
from ablations.scheduling.storage import StorageError, close, disk_is_full, guard, open_storage
from ablations.trials import MAIN, TUNING, Trial, literal, merge, search_space
from operators.errors import InputError
from tasks.config.composition import compose
from tasks.run.execute import execute
from tasks.system import checkpoint, results
from tasks.system.atomic_files import LAST, set_aside
from tasks.system.reading import UnreadableError, reading

OK, FAILED = 0, 1
COSTS = "trainer.costs=true"
"""What a study asks of trials that do more than tune, unless it, or its owner, says otherwise."""
PAUSE = 3.0
"""Seconds between looks at a study in which nothing can be taken at the moment."""
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that ask a worker to stop; SLURM sends the last two before a job's time is over."""
TRIES = 7
"""How often a storage is asked that does not answer, a little later each time."""

T = TypeVar("T")


class WorkerStoppedError(BaseException):
    """The worker was asked to stop. Not an `Exception`: nobody is to take it for a failure of the run."""


class StopWatch(Callback):
    """Ends the run, at the next batch, once `stop` is set."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def look(self) -> None:
        """Raise `WorkerStoppedError` if the worker was asked to stop."""
        if self._stop.is_set():
            raise WorkerStoppedError

    def on_train_batch_start(self, *_: Any) -> None:
        """Stop the trial if its worker was asked to stop."""
        self.look()

    def on_validation_batch_start(self, *_: Any) -> None:
        """Stop the trial if its worker was asked to stop."""
        self.look()

    def on_test_batch_start(self, *_: Any) -> None:
        """Stop the trial if its worker was asked to stop."""
        self.look()


class Heart:
    """Beats for an attempt while it is carried out, and sets `stop` if it was taken away."""

    def __init__(self, ledger: StudyLedger, claim: Claim, stop: threading.Event) -> None:
        self._ledger, self._claim, self._stop = ledger, claim, stop
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        count = 0
        while not self._done.wait(ledgers.BEAT):
            count += 1
            try:
                alive = self._ledger.beat(self._claim, count)
            except StorageError as error:
                sys.stderr.write(f"no beat for trial {self._claim.planned.number}: {error}\n")
                continue
            if not alive:
                self._stop.set()


def work(plan: Plan, ledger: StudyLedger, directory: Path, stop: threading.Event) -> None:
    """Carry out trials until every one has ended, or `stop` is set.

    Raises:
        StorageError: the storage has failed for long.
        OSError: the disk is full.
    """

    def ready(trial: Trial, entries: Sequence[TrialEntry]) -> bool:
        if plan.tuning is None or (trial.stage == TUNING and trial.beyond is None):
            return True
        return best_level(plan, trial, entries) is not None

    def take() -> Claim | None:
        ledger.mend()
        return ledger.claim(ready)

    while not stop.is_set():
        claim = _patiently(stop, take)
        if claim is not None:
            _attempt(plan, ledger, claim, directory, stop)
        elif all(entry.result for entry in _patiently(stop, ledger.entries)):
            return
        else:
            stop.wait(PAUSE)


def _patiently(stop: threading.Event, ask: Callable[[], T]) -> T:
    """What the storage answers, or a file holds, also where it cannot be read for a minute."""
    for tries in range(1, TRIES):
        try:
            return ask()
        except (StorageError, UnreadableError) as error:
            if disk_is_full(error) or getattr(error, "fatal", False) or stop.wait(PAUSE * tries):
                raise
            sys.stderr.write(f"{error}; trying again\n")
    return ask()


def _attempt(plan: Plan, ledger: StudyLedger, claim: Claim, directory: Path, stop: threading.Event) -> None:
    start = time.monotonic()
    result: dict[str, Any] = {"run_dir": run_directory(claim.planned.number)}
    values = None
    try:
        with Heart(ledger, claim, stop):
            result |= _carry_out(plan, ledger, claim, directory, stop)
        if result["state"] == "complete" and claim.planned.stage != TUNING:
            values = _values(plan, result["metrics"])
    except (WorkerStoppedError, SystemExit, KeyboardInterrupt):
        stop.set()
        ledger.release(claim)
        return
    except StorageError:
        raise
    except Exception as error:
        if isinstance(error, UnreadableError) and stop.is_set():
            ledger.release(claim)
            return
        if disk_is_full(error):
            ledger.release(claim)
            raise
        sys.stderr.write("".join(traceback.format_exception(error)))
        result |= {"state": layout.FAILED, "reason": _one_line(error)}
    result["seconds"] = time.monotonic() - start
    _patiently(stop, lambda: ledger.finish(claim, result, values))


def _carry_out(plan: Plan, ledger: StudyLedger, claim: Claim, directory: Path, stop: threading.Event) -> dict[str, Any]:
    trial, folder = claim.planned, directory / run_directory(claim.planned.number)
    if trial.beyond is not None and best_level(plan, trial, ledger.entries()) != trial.beyond:
        return {"state": "skipped", "reason": f"{trial.beyond:g} is not the best level"}
    watch = StopWatch(stop)
    callbacks: list[Callback] = [watch]
    pruning = None
    facts: dict[str, Any] = {"tuned": trial.stage == MAIN and plan.tuning is not None}
    overrides = [*merge([] if trial.stage == TUNING else [COSTS], trial.overrides, [f"seed={trial.seed}"])]
    if plan.searches:
        proposed = ledger.trial(claim, samplers.sampler(plan, trial), samplers.pruner(plan))
        with guard(ledger.url):
            params = samplers.suggest(proposed, search_space(plan, compose(overrides)))
        overrides = [*merge(overrides, [f"{key}={literal(value)}" for key, value in params.items()])]
        facts["params"] = params
        if plan.pruner != "none":
            pruning = samplers.Pruning(proposed, plan.select)
            callbacks.append(pruning)
    elif facts["tuned"]:
        assert plan.tuning is not None
        best = best_level(plan, trial, ledger.entries())
        overrides = [*merge(overrides, [f"{plan.tuning.key}={literal(best)}"])]
    others = [] if plan.searches else ledger.entries()
    config = matches.settled(compose(overrides), directory, [one.planned.overrides for one in others], watch.look)
    facts["learning_rate"] = config["optimizer"]["lr"]
    metrics = _patiently(stop, lambda: earlier_result(folder, config))
    if metrics is None:
        begun = _patiently(stop, lambda: continued(folder, config))
        rate = facts["tuned"] and plan.tuning is not None and plan.tuning.key == "optimizer.lr"
        metrics = execute(begun, folder, callbacks=callbacks, tuned=rate)
        if config["logger"]["name"] == "tensorboard":
            log_settings(folder, {"lr": facts["learning_rate"], "seed": trial.seed, **trial.factors}, metrics)
    state = "diverged" if metrics["status"] == "diverged" else "pruned" if pruning and pruning.pruned else "complete"
    return {"state": state, "metrics": json.loads(json.dumps(metrics)), **facts}


def earlier_result(folder: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """`metrics.json` of the same run, if it has ended: whoever carried it out could not tell.

    Raises:
        UnreadableError: it cannot be read at the moment.
    """
    result, settings = (results.read(folder / name) for name in ("metrics.json", "config.yaml"))
    if result is None or settings is None:
        return None
    try:
        metrics = json.loads(result)
        same = OmegaConf.to_container(OmegaConf.create(settings)) == dict(config)
    except (ValueError, YAMLError, OmegaConfBaseException, RecursionError):
        return None
    return metrics if same and isinstance(metrics, dict) and metrics.get("status") in ("ok", "diverged") else None


def continued(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that goes on where an interrupted run stands, or that begins it in a new folder.

    A folder that the run cannot go on from is set aside if it holds a checkpoint or a result, and else removed.

    Raises:
        UnreadableError: the folder, or what is in it, cannot be read at the moment; it is left as it is.
    """
    last = folder / "checkpoints" / LAST
    reason = "of another configuration"
    try:
        last, content = checkpoint.resumable(last)
        if content[checkpoint.KEY]["config"] == {**config, "ckpt": None, "init": None}:
            return {**config, "ckpt": str(last)}
    except UnreadableError:
        raise
    except InputError as error:
        reason = str(error)
    with reading(str(folder)):
        if _holds_work(folder):
            sys.stderr.write(f"warning: {folder} is kept as {set_aside(folder).name}: {reason}\n")
        elif folder.exists():
            shutil.rmtree(folder)
    return dict(config)


def _holds_work(folder: Path) -> bool:
    """Whether there is a checkpoint, or the result of a run that did not fail. Raises `OSError` where it cannot say."""
    try:
        names = os.listdir(folder / "checkpoints")
    except FileNotFoundError:
        names = []
    if any(name.endswith(".ckpt") for name in names):
        return True
    result = results.read(folder / "metrics.json")
    try:
        return result is not None and json.loads(result)["status"] != "failed"
    except (ValueError, LookupError, TypeError):
        return True


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


def _follow(parent: int, stop: threading.Event) -> None:
    """Set `stop` once the process that has started this one is gone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    stop.set()


def main() -> int:
    """Do what standard input says; exit status 1 with a last line that begins with `error:` if that cannot go on."""
    line = sys.stdin.readline()
    if not line:
        sys.stderr.write("error: a study starts this process: give python -m ablations study=NAME\n")
        return FAILED
    task = json.loads(line)
    stop = threading.Event()
    for number in STOPS:
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=_follow, args=(task["parent"], stop), daemon=True).start()
    directory = Path(task["directory"])
    storage = None
    try:
        storage = open_storage(task["storage"])
        ledger = StudyLedger(storage, task["storage"], task["name"], Path(task["locks"]), task["worker"])
        work(plans.read(task["plan"]), ledger, directory, stop)
    except (StorageError, InputError) as error:
        sys.stderr.write(f"error: {error}\n")
        return FAILED
    except Exception as error:  # noqa: BLE001 - the parent shows the last line
        if not disk_is_full(error):
            sys.stderr.write("".join(traceback.format_exception(error)))
        what = f"{directory}: the disk is full" if disk_is_full(error) else _one_line(error)
        sys.stderr.write(f"error: {what}\n")
        return FAILED
    finally:
        if storage is not None:
            close(storage)
    return OK


if __name__ == "__main__":
    conclude(main)
