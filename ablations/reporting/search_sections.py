"""The report of a search: importances, the front, the course of the trials, the candidates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ablations.analysis.words import DASH, Scale, seconds
from ablations.reporting import figures, front_sections, sample_sheets
from ablations.reporting.effect_sections import MOST_PLOTS, MOST_ROWS
from ablations.reporting.elements import Element, Figure, Grid, Heading, Paragraph, ReportTable
from ablations.reporting.figures import Dot


def results(summary: Mapping[str, Any]) -> Iterator[Element]:
    """The results of `tune` and `pareto`."""
    search, objectives = summary["search"], summary["objectives"]
    candidates = search["candidates"]
    yield Heading("Results", 2)
    if not candidates:
        return
    scales = {objective["metric"]: _scale(candidates, objective["metric"]) for objective in objectives}
    main = objectives[0]["metric"]
    for front in search["fronts"]:
        yield Heading(f"{scales[main].title.capitalize()} against {scales[front['cost']].title}", 3)
        yield front_sections.of_search(front)
    for metric, shares in search["importances"].items():
        if shares:
            yield Heading(f"What {scales[metric].title} depends on", 3)
            yield Figure(
                partial(figures.bars, shares, f"importances for {scales[metric].title}"),
                "Importances by PED-ANOVA (Optuna): by how much a parameter's values among the best tenth of trials "
                "differ from those among all.",
                f"importances-{metric}",
            )
            yield Grid(_slices(candidates, shares, scales[metric]))
    if search["history"] and len(objectives) == 1:
        yield Heading("Trial by trial", 3)
        draw = partial(figures.history, search["history"], scales[main])
        yield Figure(draw, "Points: trials; line: the best so far.", "history")
    yield Heading("Candidates", 3)
    header = ["candidate", *(scale.titled for scale in scales.values()), "runs", *search["parameters"], "time"]
    shown = candidates[:MOST_ROWS]
    rows = [
        [
            row["arm"],
            *(f"{scales[m].value(v)} {scales[m].half(row['halves'][m])}".strip() for m, v in row["values"].items()),
            str(row["n"]),
            *(_setting(row["parameters"].get(name)) for name in search["parameters"]),
            seconds(row["seconds"]),
        ]
        for row in shown
    ]
    yield ReportTable(header, rows, [place for place, row in enumerate(shown) if row["front"]])
    if len(candidates) > len(shown):
        yield Paragraph(f"The best {len(shown)} of {len(candidates)}; all are in candidates.csv.", "soft")
    yield from sample_sheets.sections(search["sheets"])


def _slices(candidates: Sequence[Mapping[str, Any]], shares: Mapping[str, float], up: Scale) -> list[Figure]:
    """The metric against each of the most important numbers."""
    plots: list[Figure] = []
    for name in shares:
        dots = [
            Dot(row["parameters"][name], row["values"][up.metric])
            for row in candidates
            if isinstance(row["parameters"].get(name), float | int)
        ]
        if len(dots) == len(candidates) and len(plots) < MOST_PLOTS:
            plots.append(Figure(partial(figures.scatter, dots, Scale(name, 1.0, 3), up), small=True))
    return plots


def _scale(candidates: Sequence[Mapping[str, Any]], metric: str) -> Scale:
    return Scale.of(
        metric, [row["halves"][metric] for row in candidates], [row["values"][metric] for row in candidates]
    )


def _setting(value: Any) -> str:
    return DASH if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
