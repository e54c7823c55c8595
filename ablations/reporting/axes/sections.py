"""Of a block: arms along a budget, arms over data sets, and what a number of tuning trials is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ablations.analysis.answer import scale_of
from ablations.analysis.axes import budgets as words
from ablations.analysis.words import DASH, Scale, p_value, plural
from ablations.reporting.axes.figures import Frame, Mark, Series, lines
from ablations.reporting.elements import Element, Figure, Folded, Heading, Paragraph, ReportTable
from ablations.reporting.svg import SERIES

MOST_ROWS = 100


def budgets(result: Mapping[str, Any], level: float, name: str) -> Iterator[Element]:
    """Score against budget, the laws, the paired differences at each budget, and the crossing points."""
    budgets = result["budgets"]
    if not budgets:
        return
    scale, counts = scale_of(result), budgets["counts"]
    yield Heading(f"Along {counts}", 3)
    drawn = budgets["arms"][:SERIES]
    series = [
        Series(
            row["arm"],
            [_mark(scale, point["budget"], point["value"], point["low"], point["high"]) for point in row["line"]],
            [_mark(scale, point["budget"], point["mean"], point["low"], point["high"]) for point in row["points"]],
        )
        for row in drawn
    ]
    rest = f" {len(drawn)} of {len(budgets['arms'])} arms." if len(drawn) < len(budgets["arms"]) else ""
    yield Figure(
        partial(lines, series, Frame(f"{scale.title} along {counts}", counts, scale.titled, logarithmic=True)),
        f"{scale.titled.capitalize()} against {counts}. Points: means over seeds with {100 * level:g} % t intervals. "
        f"Lines: the law c + a·n^−b with its interval at each budget; no line where there is no law.{rest}",
        f"budgets-{name}",
    )
    yield from _laws(budgets, scale, level)
    yield from _differences(budgets, scale, level)


def _laws(budgets: Mapping[str, Any], scale: Scale, level: float) -> Iterator[Element]:
    rows = []
    for row in budgets["arms"]:
        law = row["law"]
        if law is None:
            rows.append([row["arm"], row["refused"], DASH, DASH])
            continue
        limit, exponent = law["limit"], law["exponent"]
        rows.append(
            [
                row["arm"],
                _with_interval(limit, scale.value),
                _with_interval(exponent, lambda value: f"{value:.2g}"),
                p_value(law["misfit"]),
            ]
        )
    header = ["arm", f"limit c{f' ({scale.unit})' if scale.unit else ''}", "exponent b", "p of a bend"]
    yield ReportTable(header, rows[:MOST_ROWS], kind="cards")
    yield Paragraph(
        f"The law, with {100 * level:g} % intervals over seeds alone: noise may differ between budgets. An interval "
        "without an end means that the scores do not say how large, or how small, the number is. A small p of a bend "
        "says that no power law fits.",
        "soft",
    )


def _with_interval(interval: Mapping[str, Any], write: Callable[[float], str]) -> str:
    estimate = "no estimate" if interval["estimate"] is None else write(interval["estimate"])
    return f"{estimate} ({words.open_interval(interval, write)})"


def _differences(budgets: Mapping[str, Any], scale: Scale, level: float) -> Iterator[Element]:
    if not budgets["differences"]:
        return
    rows, details = [], []
    for row in budgets["differences"]:
        if row["mean"] is None:
            rows.append([row["arm"], row["refused"], DASH, DASH, DASH])
            continue
        better = ", ".join(map(words.amount, row["better"]))
        worse = ", ".join(map(words.amount, row["worse"]))
        shown = "; ".join(part for part in (better and f"better at {better}", worse and f"worse at {worse}") if part)
        crossing = words.crossing_point(row["crossing"])
        rows.append(
            [row["arm"], *(_signed(row[key], scale) for key in ("mean", "per_doubling")), shown or "nowhere", crossing]
        )
        details += [
            [
                row["arm"],
                words.amount(point["budget"]),
                scale.signed(point["difference"]),
                scale.interval(point["low"], point["high"]),
                scale.interval(point["simultaneous_low"], point["simultaneous_high"]),
            ]
            for point in row["at"]
        ]
    less = f"arm less {budgets['reference']}"
    header = [less, f"mean over budgets{scale.in_brackets}", "change per doubling", "shown to differ", "crossing"]
    yield ReportTable(header, rows[:MOST_ROWS], kind="cards")
    yield Paragraph(
        f"Differences are paired by seed. Budgets are {budgets['counts']}. Shown to differ: by intervals that hold at "
        "all budgets of the two arms together (Bonferroni), without any law. Crossing: every budget at which the two "
        f"laws are not told apart ({100 * level:g} % of such sets hold the crossing, if there is one).",
        "soft",
    )
    header = [less, budgets["counts"], f"difference{scale.in_brackets}", f"{100 * level:g} % interval", "simultaneous"]
    yield Folded("The differences at each budget", ReportTable(header, details[: 5 * MOST_ROWS]))


def _signed(ends: Mapping[str, Any], scale: Scale) -> str:
    return f"{scale.signed(ends['difference'])} ({scale.interval(ends['low'], ends['high'])})"


def effort(result: Mapping[str, Any], level: float) -> Iterator[Element]:
    """The best score on validation to expect of so many tuning trials."""
    rows = [row for row in result["effort"] if len(row["points"]) > 1]
    if not rows:
        return
    scale = Scale.of(result["tuning_metric"], (), [point["expected"] for row in rows for point in row["points"]])
    series = [
        Series(row["title"], [_mark(scale, p["trials"], p["expected"], p["low"], p["high"]) for p in row["points"]])
        for row in rows[:SERIES]
    ]
    rest = f" {SERIES} of {len(rows)} arms; all are in effort.csv." if len(rows) > SERIES else ""
    yield Heading("Best so far against tuning effort", 3)
    yield Figure(
        partial(lines, series, Frame("best of m tuning trials", "tuning trials", f"expected best {scale.titled}",
                                     whole=True)),
        "The best score to expect of m of the tuned levels, tried in random order (mean over all subsets of m). Bands: "
        f"{100 * level:g} % t intervals over seeds, where several were tuned. Trials without a score count as the "
        f"worst.{rest}",
        f"effort-{result['name']}",
    )  # fmt: skip


def datasets(result: Mapping[str, Any], level: float, name: str) -> Iterator[Element]:
    """Gains over data sets, the probability of improvement, and performance profiles."""
    datasets = result["datasets"]
    if not datasets:
        return
    scale = scale_of(result)
    yield Heading(f"Over {plural(len(datasets['data']), 'data set')}", 3)
    header, rows = data_table(datasets, scale)
    strong = [place for place, row in enumerate(datasets["arms"]) if row["reference"]]
    yield ReportTable(header, rows[:MOST_ROWS], strong, kind="cards")
    unit = (
        ""
        if not datasets["relative"]
        else " Scores are over the reference's mean on each data set for the middle half."
    )
    yield Paragraph(
        "Like these: the data set is a random effect (restricted maximum likelihood, t intervals with one degree of "
        "freedom fewer than there are data sets). On these: no other data set is meant. P(better): how probably a run "
        "beats one of the reference on the same data set, averaged over data sets. Middle half: mean of the middle "
        f"half of all runs.{unit}",
        "soft",
    )
    per_data = [
        [row["arm"], data, scale.signed(gain["difference"]), scale.interval(gain["low"], gain["high"])]
        for row in datasets["arms"]
        for data, gain in row["by_data"].items()
    ]
    less = f"arm less {datasets['reference']}"
    interval = f"{100 * level:g} % interval"
    yield Folded("Data set by data set", ReportTable([less, "data set", "difference", interval], per_data))
    factor = 1.0 if datasets["relative"] else scale.factor
    series = [
        Series(row["arm"], [Mark(p["threshold"] * factor, p["value"], p["low"], p["high"]) for p in row["points"]])
        for row in datasets["profiles"][:SERIES]
    ]
    across = f"{scale.title} over the reference's mean" if datasets["relative"] else scale.titled
    word = "at least" if result["direction"] == "maximize" else "at most"
    yield Figure(
        partial(lines, series, Frame("performance profiles", f"threshold: {across}", "share of runs", share=True)),
        f"Performance profiles: the share of runs with a score of {word} the threshold, data sets counting alike; "
        f"higher is better. Bands: {100 * level:g} % intervals at each threshold by itself.",
        f"profiles-{name}",
    )


def data_table(datasets: Mapping[str, Any], scale: Scale) -> tuple[list[str], list[list[str]]]:
    """Header and rows of arms over data sets."""
    unit = scale.in_brackets
    header = ["arm", f"less {datasets['reference']}, sets like these{unit}", "Holm p", f"on these{unit}", "P(better)",
              "middle half", "data sets", "runs"]  # fmt: skip
    middle = Scale(
        scale.metric, 1.0 if datasets["relative"] else scale.factor, 3 if datasets["relative"] else scale.digits
    )
    rows = []
    for row in datasets["arms"]:
        half = f"{middle.value(row['middle'])} ({middle.interval(row['middle_low'], row['middle_high'])})"
        if row["gain"] is None:
            note = "reference" if row["reference"] else "no seed in common"
            rows.append([row["arm"], note, DASH, DASH, DASH, half, str(len(row["data"])), str(row["runs"])])
            continue
        better = f"{row['improvement']:.2f} ({row['improvement_low']:.2f} to {row['improvement_high']:.2f})"
        rows.append(
            [
                row["arm"],
                f"{scale.signed(row['gain'])} ({scale.interval(row['low'], row['high'])})",
                p_value(row["p_holm"]),
                f"{scale.signed(row['these'])} ({scale.interval(row['these_low'], row['these_high'])})",
                better,
                half,
                str(row["data_sets"]),
                str(row["runs"]),
            ]
        )
    return header, rows


def _mark(scale: Scale, x: float, y: float, low: float | None, high: float | None) -> Mark:
    ends: Sequence[float | None] = [None if end is None else end * scale.factor for end in (low, high)]
    return Mark(float(x), y * scale.factor, ends[0], ends[1])
