"""Of a block or a search: quality against each cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ablations.analysis.words import Scale
from ablations.reporting import front_figure
from ablations.reporting.elements import Element, Figure, Folded, Heading, Paragraph, ReportTable
from ablations.reporting.front_figure import MEANING
from ablations.reporting.svg import Canvas

MOST_ROWS = 100


def of_block(fronts: Sequence[Mapping[str, Any]], level: float, name: str) -> Iterator[Element]:
    """The fronts of an objective, in figures whose files are named after `name`, and in a table."""
    if not fronts:
        return
    quality = _quality(fronts)
    yield Heading(f"What {quality.title} costs", 3)
    yield Paragraph(
        "Filled: on the front as measured: no arm has as good a mean at as low a cost. Hollow: beaten by the means, "
        "but by no arm that is shown to be better and cheaper. Cross: one is shown to be both. "
        f"With {100 * level:g} % certainty the true front is among the filled and the hollow (intervals that hold for "
        "all pairs of arms together, of quality and of the logarithm of the cost, each at half of the error). Bars: t "
        "intervals over seeds; those that leave the figure are drawn on hover. Costs are measured after training, on "
        "the device of the run.",
        "soft",
    )
    for front in fronts:
        alone = " One run each: nothing can be shown to be beaten." if front["seeds"] < 2 else ""
        caption = f"{quality.title.capitalize()} against {_cost(front).title}.{alone}"
        yield Figure(partial(_draw, front), caption, f"front-{name}-{front['cost']}")
    yield Folded("The fronts in numbers", _table(fronts, quality))


def of_search(front: Mapping[str, Any]) -> Figure:
    """The front of two objectives of a search."""
    caption = "Filled: no other candidate is as good in both and better in one. Hollow: another one is."
    return Figure(partial(_draw, front), caption, f"front-{front['cost']}")


def _draw(front: Mapping[str, Any], width: int) -> Canvas:
    return front_figure.front(front["points"], _cost(front), _quality([front]), front["sign"], width)


def _table(fronts: Sequence[Mapping[str, Any]], quality: Scale) -> ReportTable:
    """A row for each arm, the best first: its quality, its costs, and where it stands."""
    points = {point["arm"]: point for front in fronts for point in front["points"]}
    best_first = sorted(points.values(), key=lambda point: -fronts[0]["sign"] * float(point["quality"]))
    rows = []
    for arm in best_first[:MOST_ROWS]:
        row = [str(arm["title"]), quality.value(arm["quality"])]
        for front in fronts:
            own = next((point for point in front["points"] if point["arm"] == arm["arm"]), None)
            row += ["", ""] if own is None else [_cost(front).value(own["cost"]), MEANING[own["stands"]]]
        rows.append(row)
    header = ["arm", quality.titled, *(title for front in fronts for title in (_cost(front).title, "where it stands"))]
    return ReportTable(header, rows, kind="cards")


def _quality(fronts: Sequence[Mapping[str, Any]]) -> Scale:
    points = fronts[0]["points"]
    return Scale.of(fronts[0]["metric"], [_half(point, "quality") for point in points], [p["quality"] for p in points])


def _cost(front: Mapping[str, Any]) -> Scale:
    return Scale.of(front["cost"], (), [point["cost"] for point in front["points"]])


def _half(point: Mapping[str, Any], name: str) -> float | None:
    low, high = point[f"{name}_low"], point[f"{name}_high"]
    return None if low is None else (high - low) / 2
