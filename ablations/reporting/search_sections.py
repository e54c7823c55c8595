"""The report of a search: importances, the front, the course of the trials, the candidates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ablations.analysis.words import DASH, Scale, seconds
from ablations.reporting import figures, html
from ablations.reporting.figures import NARROW, Dot
from ablations.reporting.sections import MOST_PLOTS, MOST_ROWS, Named, samples
from ablations.reporting.svg import Canvas


def results(summary: Mapping[str, Any]) -> Iterator[str]:
    """The results of `tune` and `pareto`."""
    found, objectives = summary["search"], summary["objectives"]
    candidates = found["candidates"]
    yield html.heading("Results", 2)
    if not candidates:
        return
    scales = {one["metric"]: _scale(candidates, one["metric"]) for one in objectives}
    main = objectives[0]["metric"]
    for one in objectives[1:]:
        yield html.heading(f"{scales[main].title.capitalize()} against {scales[one['metric']].title}", 3)
        joined = len(objectives) == 2
        caption = "Filled: the front. No other candidate is as good in every objective and better in one."
        yield html.figure(partial(_front, candidates, scales[one["metric"]], scales[main], joined), caption)
    for metric, shares in found["importances"].items():
        if shares:
            yield html.heading(f"What {scales[metric].title} depends on", 3)
            yield html.figure(
                partial(figures.bars, shares, f"importances for {scales[metric].title}"),
                "Importances by PED-ANOVA (Optuna): by how much a parameter's values among the best tenth of trials "
                "differ from those among all.",
            )
            yield html.grid(_slices(candidates, shares, scales[metric]))
    if found["history"] and len(objectives) == 1:
        yield html.heading("Trial by trial", 3)
        yield html.figure(
            partial(figures.history, found["history"], scales[main]), "Points: trials; line: the best so far."
        )
    yield html.heading("Candidates", 3)
    header = ["candidate", *(scale.titled for scale in scales.values()), "runs", *found["parameters"], "time"]
    shown = candidates[:MOST_ROWS]
    rows = [
        [
            row["arm"],
            *(f"{scales[m].value(v)} {scales[m].half(row['halves'][m])}".strip() for m, v in row["values"].items()),
            str(row["n"]),
            *(_setting(row["parameters"].get(name)) for name in found["parameters"]),
            seconds(row["seconds"]),
        ]
        for row in shown
    ]
    yield html.table(header, rows, [place for place, row in enumerate(shown) if row["front"]])
    if len(candidates) > len(shown):
        yield html.paragraph(f"The best {len(shown)} of {len(candidates)}; all are in candidates.csv.", "soft")
    yield from samples(found["sheets"])


def drawn(summary: Mapping[str, Any]) -> Iterator[Named]:
    """Every figure again, at full width, for files of their own."""
    if not summary["search"]["candidates"]:
        return
    candidates = summary["search"]["candidates"]
    scales = [_scale(candidates, one["metric"]) for one in summary["objectives"]]
    for scale in scales[1:]:
        yield f"front-{scale.metric}", _front(candidates, scale, scales[0], len(scales) == 2, figures.WIDE)
    for metric, shares in summary["search"]["importances"].items():
        if shares:
            yield f"importances-{metric}", figures.bars(shares, f"importances for {metric}", figures.WIDE)
    if len(scales) == 1:
        yield "history", figures.history(summary["search"]["history"], scales[0], figures.WIDE)


def _front(candidates: Sequence[Mapping[str, Any]], across: Scale, up: Scale, joined: bool, width: int) -> Canvas:
    dots = [Dot(row["values"][across.metric], row["values"][up.metric], row["arm"], row["front"]) for row in candidates]
    return figures.scatter(dots, across, up, width, joined=joined)


def _slices(candidates: Sequence[Mapping[str, Any]], shares: Mapping[str, float], up: Scale) -> list[str]:
    """The metric against each of the most important numbers."""
    plots: list[str] = []
    for name in shares:
        dots = [
            Dot(row["parameters"][name], row["values"][up.metric])
            for row in candidates
            if isinstance(row["parameters"].get(name), float | int)
        ]
        if len(dots) == len(candidates) and len(plots) < MOST_PLOTS:
            plots.append(html.small(figures.scatter(dots, Scale(name, 1.0, 3), up, NARROW), ""))
    return plots


def _scale(candidates: Sequence[Mapping[str, Any]], metric: str) -> Scale:
    return Scale.of(
        metric, [row["halves"][metric] for row in candidates], [row["values"][metric] for row in candidates]
    )


def _setting(value: Any) -> str:
    return DASH if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
