"""`python -m ablations.compare RUN_DIR…`: runs side by side, as a table in Markdown, LaTeX or CSV.

Runs that differ in nothing but the seed are one arm. Arms are named by the settings in which they differ; scores are
means over seeds with 95 % t intervals; differences to the reference arm are paired by seed. What forbids a comparison
(other data, another revision, a run that did not end well) is said above the table. With `--aggregate`, arms are put
together over data sets.
"""

from __future__ import annotations

from operators.command_line import Parser, begin, conclude

if __name__ == "__main__":
    begin()  # before torch is imported

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.analysis import runs
from operators.errors import InputError, check_choice

if TYPE_CHECKING:
    from ablations.analysis.comparison import ComparedArm
    from ablations.statistics import Interval

NOTE = {"markdown": "> ", "latex": "% ", "csv": ""}
"""What a line above the table begins with, by format."""


def text_table(
    arms: Sequence[ComparedArm], metrics: Sequence[str], reference: str | None
) -> tuple[list[str], list[list[str]]]:
    """Header and rows for people."""
    header = ["data", "arm", "seeds"]
    for metric in metrics:
        header += [metric, f"paired difference to {reference}"] if reference else [metric]
    rows = []
    for arm in arms:
        row = [arm.data, arm.name, str(arm.seeds)]
        for metric in metrics:
            row.append(show(arm.scores[metric]))
            row += [_difference(arm, metric)] if reference else []
        row += [f"{arm.params:,}", f"{arm.mixer_macs:,}", f"{arm.macs:,}"]
        rows.append([*row, "—" if arm.seconds is None else f"{arm.seconds:.0f}", arm.backend])
    return [*header, "parameters", "mixer MACs", "MACs", "training s", "backend"], rows


def number_table(arms: Sequence[ComparedArm], reference: str | None) -> list[dict[str, Any]]:
    """Rows for programs: numbers with all their digits, each interval with both ends and its number of values."""
    rows = []
    for arm in arms:
        row: dict[str, Any] = {"data": arm.data, "arm": arm.name, "seeds": arm.seeds}
        for metric, score in arm.scores.items():
            row |= _numbers(metric, score)
            if reference:
                row |= _numbers(f"{metric} less {reference}", arm.differences.get(metric))
        row |= {"params": arm.params, "mixer_macs": arm.mixer_macs, "macs": arm.macs}
        rows.append({**row, "train/seconds": arm.seconds, "backend": arm.backend})
    return rows


def show(interval: Interval | None) -> str:
    """`mean ± half`, or the mean alone where one value gives no interval."""
    if interval is None:
        return "no common seed"
    return f"{interval.mean:.4f}" + (f" ± {interval.half:.4f}" if interval.n > 1 else "")


def _difference(arm: ComparedArm, metric: str) -> str:
    if metric not in arm.differences:
        return "—"
    interval = arm.differences[metric]
    pairs = "" if interval is None or interval.n == arm.seeds else f" (n = {interval.n})"
    return f"{show(interval)}{pairs}"


def _numbers(name: str, interval: Interval | None) -> Mapping[str, float | int | None]:
    columns = (name, f"{name} low", f"{name} high", f"{name} n")
    if interval is None:
        return dict.fromkeys(columns)
    ends = (interval.low, interval.high) if interval.n > 1 else (None, None)
    return dict(zip(columns, (interval.mean, *ends, interval.n), strict=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; exit status 2 with one line on wrong input."""
    parser = Parser(prog="python -m ablations.compare", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="run directories, or folders of runs")
    parser.add_argument(
        "--metric",
        action="append",
        help="a key of metrics.json; may be given again (default: test/accuracy; of generators test/loss and Fréchet "
        "distances; of probes test/score and test/error)",
    )
    parser.add_argument("--reference", help="the arm that others are compared with, as the table names it")
    parser.add_argument(
        "--aggregate",
        action="store_true",
        help="put the arms together over the data sets of the runs: gain over --reference with the data set at random "
        "and on these data sets, probability of improvement, interquartile mean",
    )
    parser.add_argument(
        "--format",
        default="markdown",
        help="markdown (the default), latex, or csv with all digits, both ends of each interval and n",
    )
    try:
        given = parser.parse_args(arguments)
        check_choice("--format", given.format, NOTE)
        ended = runs.find(given.runs)
        notes = [f"not the same for all: {line}" for line in runs.warnings(ended)]
        form = _aggregated if given.aggregate else _formatted
        text = form(ended, given.metric, given.reference, given.format)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    prefix, stream = {"markdown": ("> ", sys.stdout), "latex": ("% ", sys.stdout), "csv": ("", sys.stderr)}[
        given.format
    ]
    stream.write("".join(f"{prefix}{line}\n" for line in notes))
    sys.stdout.write(text)
    return 0


def _formatted(ended: Sequence[runs.EndedRun], asked: Sequence[str] | None, reference: str | None, form: str) -> str:
    from ablations.analysis import comparison  # here, since the statistics take a second to import
    from ablations.reporting import formats

    metrics = asked or comparison.headline(ended)
    arms = comparison.compare(ended, metrics, reference)
    if form == "csv":
        return formats.csv_text(number_table(arms, reference))
    header, rows = text_table(arms, metrics, reference)
    return formats.latex(header, rows) if form == "latex" else formats.markdown(header, rows)


def _aggregated(ended: Sequence[runs.EndedRun], asked: Sequence[str] | None, reference: str | None, form: str) -> str:
    from ablations.analysis import comparison
    from ablations.analysis.summary import finite
    from ablations.analysis.words import Scale
    from ablations.reporting import formats, tables
    from ablations.reporting.axes import sections

    if reference is None:
        raise InputError("--aggregate needs --reference, the arm that others are compared with")
    texts, numbers = [], []
    for metric in asked or comparison.headline(ended):
        result = finite(comparison.over_data(ended, metric, reference))
        numbers += tables.over_data(result, {"metric": metric})
        halves = [row["high"] - row["gain"] for row in result["arms"] if row["high"] is not None]
        header, rows = sections.data_table(result, Scale.of(metric, halves, [row["middle"] for row in result["arms"]]))
        text = formats.latex(header, rows) if form == "latex" else formats.markdown(header, rows)
        texts.append(f"{NOTE[form]}{metric} over {', '.join(result['data'])}\n{text}" if form == "latex" else
                     f"{metric} over {', '.join(result['data'])}\n\n{text}")  # fmt: skip
    return formats.csv_text(numbers) if form == "csv" else "\n".join(texts)


if __name__ == "__main__":
    conclude(main)
