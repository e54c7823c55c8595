"""The table against the plan, the trials' own files, their predictions and the storage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from ablations.analysis.image_differences import DAMAGE, read_predictions
from ablations.auditing.checks import ABSENT, Check, number
from ablations.auditing.evidence import METRICS, PREDICTIONS, AuditedTrial, Evidence
from ablations.layout import CHOSEN, COMPLETE, DIVERGED, FACTOR, PARAMETER, PLANNED, PRUNED, TABLE, run_directory
from tasks.system.atomic_files import asides

OF_THE_STUDY = ("train/memory_mb", "seconds", "attempts", "begun", "reason")
"""Columns that no file of a trial has: they come from the storage."""
IN_SINGLE = 1e-6
"""Difference of two accuracies of which one was computed in single precision."""


def planned(evidence: Evidence) -> Check:
    """Every planned trial once, and no other: in the table, as run directories, and in the storage."""
    check = Check("planned trials, each once")
    if not evidence.planned:
        check.skip(evidence.reasons["planned"])
        return check
    counts = Counter(trial.number for trial in evidence.trials)
    for wanted in {**evidence.planned, **counts}:
        check.compare(TABLE, f"rows of trial {wanted}", counts[wanted], int(wanted in evidence.planned))
    for trial in evidence.trials:
        plan = trial.planned
        if plan is None:
            continue
        for key in ("block", "arm", "seed"):
            check.compare(TABLE, f"trial {trial.number}, {key}", trial.row[key], str(getattr(plan, key)))
        levels = {key.removeprefix(FACTOR): text for key, text in trial.row.items() if key.startswith(FACTOR) and text}
        check.compare(TABLE, f"trial {trial.number}, levels", levels, dict(plan.factors))
        if trial.ended and trial.metrics is None:
            check.skip("the run directory of an ended trial is not here, or has no metrics.json")
    _folders(evidence, check)
    for place, times in evidence.stored.results.items() if evidence.stored else ():
        check.compare("storage", f"results of trial {place}", min(times, 2), min(times, 1))
    return check


def _folders(evidence: Evidence, check: Check) -> None:
    """Run directories that the plan does not have, and earlier results that were set aside."""
    root = evidence.path / "trials"
    known = {run_directory(place).rpartition("/")[2] for place in evidence.planned}
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if (folder / METRICS).is_file() and folder.name not in known:
            check.compare(f"trials/{folder.name}", "a result of no planned trial", METRICS, ABSENT)
    for path in asides(evidence.path):
        if path.name.startswith(METRICS):
            check.compare(str(path.parent), "an earlier result", path.name, ABSENT)


def table(evidence: Evidence) -> Check:
    """Each value of the table that a trial's own files have."""
    check = Check("trials.csv against the trials' files")
    for trial in evidence.trials:
        if not trial.ended:
            check.skip(f"the trial is {trial.state}")
        elif trial.metrics is None:
            check.skip("no metrics.json to be read")
        else:
            _row(trial, trial.metrics, check)
    return check


def _row(trial: AuditedTrial, metrics: Mapping[str, Any], check: Check) -> None:
    status = {"ok": (COMPLETE, PRUNED), "diverged": (DIVERGED,)}.get(str(metrics.get("status")), ())
    where = f"trial {trial.number}"
    check.compare(TABLE, f"{where}, state", trial.state, trial.state if trial.state in status else ", ".join(status))
    own = {*PLANNED, *CHOSEN, *OF_THE_STUDY} - {"seed"}
    columns = {key for key, text in trial.row.items() if text and not key.startswith((FACTOR, PARAMETER))} - own
    for key in sorted(columns | set(metrics) - own):
        recorded, derived = trial.row.get(key, ""), metrics.get(key)
        check.compare(TABLE, f"{where}, {key}", number(recorded), number("" if derived is None else str(derived)))
    config = trial.config or {}
    if trial.row.get("learning_rate") and trial.config is not None:
        rate = at(config, "optimizer.lr")
        check.compare(TABLE, f"{where}, learning_rate", number(trial.row["learning_rate"]), number(str(rate)))
    for key, text in trial.row.items():
        if key.startswith(PARAMETER) and text:
            value = at(config, key.removeprefix(PARAMETER))
            check.compare(TABLE, f"{where}, {key}", number(text), number(str(value)))


def at(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key; of a group its name."""
    value: Any = config
    for name in key.lstrip("+").split("."):
        value = value.get(name, ABSENT) if isinstance(value, Mapping) else ABSENT
    return value.get("name", ABSENT) if isinstance(value, Mapping) else value


def storage(evidence: Evidence) -> Check:
    """Each value of the table, by the storage."""
    check = Check("trials.csv against the storage")
    if evidence.stored is None:
        check.skip(evidence.reasons["stored"], len(evidence.trials))
        return check
    for trial in evidence.trials:
        stored = evidence.stored.rows.get(trial.number)
        if stored is None:
            check.compare(TABLE, f"trial {trial.number}", trial.state, "no such trial in the storage")
        elif not trial.ended and stored["state"] != trial.state:
            check.skip("the trial has gone on since the table was written")
        else:
            if absent := {key for key, value in stored.items() if value is not None} - set(trial.row):
                check.skip("an older version wrote the table, without this column", len(absent))
            for key in trial.row:
                value = stored.get(key)
                derived = "" if value is None else str(value)
                check.compare(TABLE, f"trial {trial.number}, {key}", number(trial.row.get(key, "")), number(derived))
    return check


def accuracy(evidence: Evidence) -> Check:
    """The accuracy on the test split, by the predictions for each image."""
    check = Check("test accuracy from predictions.npz")
    images: dict[Any, tuple[str, Any, Any]] = {}
    for trial in evidence.trials:
        metrics = trial.metrics or {}
        if not trial.ended or "test/accuracy" not in metrics:
            continue
        path, file = trial.folder / PREDICTIONS, trial.file(PREDICTIONS)
        if not path.is_file():
            check.skip("no predictions.npz")
            continue
        try:
            index, label, right = read_predictions(path)
        except DAMAGE as error:
            check.compare(file, "content", f"damaged: {' '.join(str(error).split())}", "index, label and logits")
            continue
        check.compare(file, "test/accuracy", metrics["test/accuracy"], float(right.mean()), IN_SINGLE)
        if "test/n" in metrics:
            check.compare(file, "test/n", metrics["test/n"], len(right))
        first, *known = images.setdefault(metrics.get("data"), (file, index, label))
        equal = np.array_equal(known[0], index) and np.array_equal(known[1], label)
        check.compare(file, f"test images and labels, as in {first}", "the same" if equal else "others", "the same")
    return check
