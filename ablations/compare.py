"""`python -m ablations.compare RUN_DIR…`: runs side by side, as a Markdown table.

Runs that differ in nothing but the seed are one arm. Arms are named by the settings in which they differ; scores are
means over seeds with 95 % t intervals; differences to the reference arm are paired by seed. What forbids a comparison
(other data, another revision, a run that did not end well) is said above the table.
"""

from __future__ import annotations

from operators.command_line import Parser, begin, conclude

if __name__ == "__main__":
    begin()  # before torch is imported

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ablations.analysis.runs import Run, arms, find, warnings
from ablations.statistics import Interval, t_interval
from operators.errors import InputError, check_choice


def headline(runs: Sequence[Run]) -> list[str]:
    """The metrics that runs of a task are compared by.

    Raises:
        InputError: runs of several tasks.
    """
    tasks = sorted({str(run.metrics["task"]) for run in runs})
    if len(tasks) > 1:
        raise InputError(f"runs of several tasks ({', '.join(tasks)}): compare those of one, or give --metric")
    if tasks == ["classification"]:
        return ["test/accuracy"]
    distances = {key for run in runs for key in run.metrics if re.fullmatch(r"test/(fid|fd_[^/]+)", key)}
    return ["test/loss", *sorted(distances)]


def table(runs: Sequence[Run], metrics: Sequence[str], reference: str | None = None) -> str:
    """Markdown table of arms, data set by data set, best first by the mean of the first of `metrics` over seeds."""
    ended = [run for run in runs if run.metrics["status"] == "ok"]
    for run in ended:
        known = [key for key, value in run.metrics.items() if isinstance(value, int | float)]
        for metric in metrics:
            check_choice("metric", metric, known)
    by_data: dict[str, list[Run]] = {}
    for run in ended:
        by_data.setdefault(run.metrics["data"], []).append(run)
    named = {data: arms(members) for data, members in by_data.items()}
    if reference is not None:
        check_choice("reference", reference, sorted({name for group in named.values() for name in group}))
    header = ["data", "arm", "seeds"]
    for metric in metrics:
        header += [metric, f"paired difference to {reference}"] if reference else [metric]
    header += ["parameters", "mixer MACs", "MACs", "training s", "backend"]
    rows = [row for data, group in named.items() for row in _rows(data, group, metrics, reference)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])


def _rows(
    data: str, group: Mapping[str, list[Run]], metrics: Sequence[str], reference: str | None
) -> Iterator[list[str]]:
    by_metric = {
        metric: {name: {run.settings["seed"]: run.metrics[metric] for run in runs} for name, runs in group.items()}
        for metric in metrics
    }
    means = {name: t_interval(list(values.values())).mean for name, values in by_metric[metrics[0]].items()}
    for name in sorted(group, key=lambda name: means[name], reverse=_more_is_better(metrics[0])):
        row = [data, name, str(len(group[name]))]
        for by_arm in by_metric.values():
            row.append(show(t_interval(list(by_arm[name].values()))))
            if reference:
                other = by_arm.get(reference, {})
                row.append("—" if name == reference or not other else show(paired(by_arm[name], other)))
        first = group[name][0].metrics
        seconds = [float(run.metrics["train/seconds"]) for run in group[name] if run.metrics.get("train/seconds")]
        row += [f"{first['params']:,}", f"{first['mixer_macs']:,}", f"{first['macs']:,}"]
        row.append(f"{median(seconds):.0f}" if seconds else "—")
        yield [*row, str(first["backend"])]


def _more_is_better(metric: str) -> bool:
    return "accuracy" in metric or metric.endswith("per_second")


def paired(values: Mapping[Any, float], others: Mapping[Any, float]) -> Interval | None:
    """Interval of the differences of two arms over the seeds they share; None if they share none."""
    shared = sorted(values.keys() & others.keys())
    return t_interval([values[seed] - others[seed] for seed in shared]) if shared else None


def show(interval: Interval | None) -> str:
    """`mean ± half`, or the mean alone where one value gives no interval."""
    if interval is None:
        return "no common seed"
    return f"{interval.mean:.4f}" + (f" ± {interval.half:.4f}" if interval.n > 1 else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; exit status 2 with one line on wrong input."""
    parser = Parser(prog="python -m ablations.compare", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="run directories, or folders of runs")
    parser.add_argument(
        "--metric",
        action="append",
        help="a key of metrics.json; may be given again (default: test/accuracy, or test/loss and Fréchet distances)",
    )
    parser.add_argument("--reference", help="the arm that others are compared with, as the table names it")
    try:
        given = parser.parse_args(arguments)
        runs = find(given.runs)
        text = table(runs, given.metric or headline(runs), given.reference)
        notes = warnings(runs)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    for line in notes:
        sys.stdout.write(f"> not the same for all: {line}\n")
    sys.stdout.write(f"{text}\n")
    return 0


if __name__ == "__main__":
    conclude(main)
