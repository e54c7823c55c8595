"""Runs side by side: arms with intervals over seeds, and differences paired by seed, data set by data set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ablations.analysis.axes import datasets
from ablations.analysis.runs import EndedRun, arms
from ablations.plan import Objective
from ablations.statistics import Interval, t_interval
from operators.errors import InputError, check_choice


@dataclass(frozen=True)
class ComparedArm:
    """An arm on a data set. By metric: its score, and its difference to the reference, None where no seed is shared."""

    data: str
    name: str
    seeds: int
    scores: Mapping[str, Interval]
    differences: Mapping[str, Interval | None]
    params: int
    mixer_macs: int
    macs: int
    seconds: float | None
    backend: str


def headline(runs: Sequence[EndedRun]) -> list[str]:
    """The metrics that runs of a task are compared by.

    Raises:
        InputError: runs of several tasks.
    """
    tasks = sorted({str(run.metrics["task"]) for run in runs})
    if len(tasks) > 1:
        raise InputError(f"runs of several tasks ({', '.join(tasks)}): compare those of one, or give --metric")
    if tasks == ["classification"]:
        return ["test/accuracy"]
    if tasks == ["probe"]:
        return ["test/score", "test/error"]
    distances = {key for run in runs for key in run.metrics if re.fullmatch(r"test/(fid|fd_[^/]+)", key)}
    return ["test/loss", *sorted(distances)]


def compare(runs: Sequence[EndedRun], metrics: Sequence[str], reference: str | None = None) -> list[ComparedArm]:
    """Arms of the runs that ended well, data set by data set, best first by the mean of the first of `metrics`.

    The reference itself has no difference, nor has any arm on a data set without it.

    Raises:
        InputError: a metric that a run lacks, or no such reference.
    """
    ended = [run for run in runs if run.metrics["status"] == "ok"]
    for run in ended:
        known = [key for key, value in run.metrics.items() if isinstance(value, int | float)]
        for metric in metrics:
            check_choice("metric", metric, known)
    by_data: dict[str, list[EndedRun]] = {}
    for run in ended:
        by_data.setdefault(run.metrics["data"], []).append(run)
    named = {data: arms(members) for data, members in by_data.items()}
    if reference is not None:
        check_choice("reference", reference, sorted({name for group in named.values() for name in group}))
    return [arm for data, group in named.items() for arm in _compared(data, group, metrics, reference)]


def over_data(runs: Sequence[EndedRun], metric: str, reference: str, level: float = 0.95) -> dict[str, Any]:
    """Arms put together over the data sets of the runs that ended well, by the names that `compare` gives them.

    Raises:
        InputError: fewer than two data sets, a metric that a run lacks, or no such reference.
    """
    ended = [run for run in runs if run.metrics["status"] == "ok"]
    by_data: dict[str, list[EndedRun]] = {}
    for run in ended:
        check_choice("metric", metric, [key for key, value in run.metrics.items() if isinstance(value, int | float)])
        by_data.setdefault(run.metrics["data"], []).append(run)
    if len(by_data) < 2:
        raise InputError(f"runs of {', '.join(by_data) or 'no data set'}: to put arms together takes several data sets")
    scores: dict[str, dict[str, dict[int, float]]] = {}
    for data, group in by_data.items():
        for name, members in arms(group).items():
            values = {int(run.settings["seed"]): float(run.metrics[metric]) for run in members}
            scores.setdefault(name, {})[data] = values
    direction = "maximize" if _more_is_better(metric) else "minimize"
    return datasets.analyse(scores, Objective(metric, direction), reference, level)


def _compared(
    data: str, group: Mapping[str, list[EndedRun]], metrics: Sequence[str], reference: str | None
) -> Iterator[ComparedArm]:
    values = {
        metric: {name: {run.settings["seed"]: run.metrics[metric] for run in runs} for name, runs in group.items()}
        for metric in metrics
    }
    scores = {
        metric: {name: t_interval(list(of_arm.values())) for name, of_arm in by_arm.items()}
        for metric, by_arm in values.items()
    }
    first = scores[metrics[0]]
    for name in sorted(group, key=lambda name: first[name].mean, reverse=_more_is_better(metrics[0])):
        metrics_of_first = group[name][0].metrics
        seconds = [float(run.metrics["train/seconds"]) for run in group[name] if run.metrics.get("train/seconds")]
        others = (
            {m: of[reference] for m, of in values.items() if reference in of} if reference and name != reference else {}
        )
        yield ComparedArm(
            data=data,
            name=name,
            seeds=len(group[name]),
            scores={metric: by_arm[name] for metric, by_arm in scores.items()},
            differences={metric: paired(values[metric][name], other) for metric, other in others.items()},
            params=metrics_of_first["params"],
            mixer_macs=metrics_of_first["mixer_macs"],
            macs=metrics_of_first["macs"],
            seconds=median(seconds) if seconds else None,
            backend=str(metrics_of_first["backend"]),
        )


def _more_is_better(metric: str) -> bool:
    return "accuracy" in metric or metric.endswith(("per_second", "score"))


def paired(values: Mapping[Any, float], others: Mapping[Any, float]) -> Interval | None:
    """Interval of the differences of two arms over the seeds they share; None if they share none."""
    shared = sorted(values.keys() & others.keys())
    return t_interval([values[seed] - others[seed] for seed in shared]) if shared else None
