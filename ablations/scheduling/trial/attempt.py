"""An attempt at a trial: its run, and what the storage is told of it."""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ablations import layout
from ablations.layout import run_directory
from ablations.plan import Plan
from ablations.scheduling import ledger as ledgers
from ablations.scheduling import matches
from ablations.scheduling.ledger import Claim, StudyLedger
from ablations.scheduling.storage import StorageError, disk_is_full
from ablations.scheduling.trial.choosing import choose
from ablations.scheduling.trial.hparams import log_settings
from ablations.scheduling.trial.patience import patiently
from ablations.trials import TUNING
from operators.errors import InputError
from tasks.config.composition import compose
from tasks.run.execute import execute
from tasks.system.reading import UnreadableError
from tasks.system.resuming import continued, earlier_result
from tasks.system.signals import Stop, StoppedError


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


def attempt(plan: Plan, ledger: StudyLedger, claim: Claim, directory: Path, stop: Stop) -> None:
    """Carry out a trial that is claimed, and enter what came out; give it back where `stop` is asked.

    Raises:
        StorageError: the storage has failed for long.
        OSError: the disk is full.
    """
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
        result |= {"state": layout.FAILED, "reason": one_line(error)}
    result["seconds"] = time.monotonic() - start
    patiently(stop, lambda: ledger.finish(claim, result, values))


def _carry_out(plan: Plan, ledger: StudyLedger, claim: Claim, directory: Path, stop: Stop) -> dict[str, Any]:
    trial, folder = claim.planned, directory / run_directory(claim.planned.number)
    choice = choose(plan, ledger, claim)
    if choice is None:
        return {"state": "skipped", "reason": f"{trial.beyond:g} is not the best level"}

    def look() -> None:
        if stop.name is not None:
            raise StoppedError(stop.name)

    others = [] if plan.searches else ledger.entries()
    planned = [entry.planned.overrides for entry in others]
    config = matches.settled(compose(choice.overrides), directory, planned, look)
    facts = {**choice.facts, "learning_rate": config["optimizer"]["lr"]}
    metrics = patiently(stop, lambda: earlier_result(folder, config))
    if metrics is None:
        begun = patiently(stop, lambda: continued(folder, config))
        rate = facts["tuned"] and plan.tuning is not None and plan.tuning.key == "optimizer.lr"
        callbacks = [] if choice.pruning is None else [choice.pruning]
        metrics = execute(begun, folder, callbacks=callbacks, stop=stop, tuned=rate)
        if config["logger"]["name"] == "tensorboard":
            log_settings(folder, {"lr": facts["learning_rate"], "seed": trial.seed, **trial.factors}, metrics)
    pruned = choice.pruning is not None and choice.pruning.pruned
    state = "diverged" if metrics["status"] == "diverged" else "pruned" if pruned else "complete"
    return {"state": state, "metrics": json.loads(json.dumps(metrics)), **facts}


def _values(plan: Plan, metrics: Mapping[str, Any]) -> list[float]:
    """What Optuna is told."""
    for objective in plan.objectives:
        if not isinstance(metrics.get(objective.metric), int | float):
            known = ", ".join(key for key, value in metrics.items() if isinstance(value, int | float))
            raise InputError(f"the run has no number {objective.metric!r}: it has {known}")
    return [float(metrics[objective.metric]) for objective in plan.objectives]


def one_line(error: BaseException) -> str:
    """What the error is and says, without line breaks."""
    lines = str(error).split()
    return f"{type(error).__name__}: {' '.join(lines)}" if lines else type(error).__name__
