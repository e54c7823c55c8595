"""Published scores of a study's mixers beside its own: rank correlations, a table, a figure for each recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ablations.analysis.published.ranking import rho
from ablations.analysis.words import DASH, Scale, p_value, plural
from ablations.reporting.elements import Element, Figure, Folded, Grid, Heading, Paragraph, ReportTable
from ablations.reporting.figures import padded, unit, vertical_grid
from ablations.reporting.svg import Axis, Canvas, label_boxes, tick_text

HEIGHT = 290


def published(settings: Sequence[Mapping[str, Any]], metric: str, level: float) -> Iterator[Element]:
    """What `ablations.analysis.published.ranking` found of each setting."""
    if not settings:
        return
    yield Heading("Published scores", 2)
    yield Paragraph(_explained(settings, level), "soft")
    for place, setting in enumerate(settings):
        if setting["setting"]:
            yield Heading(setting["setting"], 3)
        yield _correlations(setting)
        scale = _scale(setting, metric)
        yield Grid([*_figures(setting, scale, f"published-{place}" if place else "published")])
        yield Folded("The scores in numbers", _scores(setting, scale, level))


def _explained(settings: Sequence[Mapping[str, Any]], level: float) -> str:
    shared = [recipe for setting in settings for recipe in setting["recipes"] if len(recipe["models"]) > 1]
    once = (
        f" The models of {shared[0]['name']} share their arms, so there it counts once, by the means of their ranks."
        if shared
        else ""
    )
    spread = f"{100 * level:g} %"
    return (
        "Are mixers ranked as their papers rank them? Spearman's rank correlation, inside each recipe: 1 is the same "
        "order, 0 none in common. p: the share of all orders that agree, or disagree, as much. Other seeds: a "
        f"{spread} interval for the correlation of these mixers without the noise of runs. Other mixers: a {spread} "
        "interval for mixers like these with runs like these, which inverts the test of each correlation in a normal "
        "copula; three mixers say next to nothing. Together: the mean over recipes, weighted by their mixers less "
        f"one.{once} Published models have other trunks, shells, sizes, data and training than the arms here."
    )


def _correlations(setting: Mapping[str, Any]) -> ReportTable:
    rows = [
        [f"{recipe['name']}, {model['model']}", str(len(recipe["arms"])), *_numbers(model)]
        for recipe in setting["recipes"]
        for model in recipe["models"]
    ]
    strong = []
    if setting["together"]:
        strong = [len(rows)]
        members = sum(len(recipe["arms"]) for recipe in setting["recipes"])
        rows.append(["together", str(members), *_numbers(setting["together"])])
    header = ["published model", "mixers", "rank correlation", "p", "for other seeds", "for other mixers"]
    return ReportTable(header, rows, strong, kind="cards")


def _numbers(row: Mapping[str, Any]) -> list[str]:
    ends = [
        DASH if row[f"low_{which}"] is None else f"{rho(row[f'low_{which}'])} to {rho(row[f'high_{which}'])}"
        for which in ("seeds", "members")
    ]
    return [rho(row["correlation"]), p_value(row["p"]), *ends]


def _scale(setting: Mapping[str, Any], metric: str) -> Scale:
    arms = [arm for recipe in setting["recipes"] for arm in recipe["arms"]]
    halves = [None if arm["low"] is None else (arm["high"] - arm["low"]) / 2 for arm in arms]
    return Scale.of(metric, halves, [arm["score"] for arm in arms])


def _scores(setting: Mapping[str, Any], scale: Scale, level: float) -> ReportTable:
    rows = []
    for recipe in setting["recipes"]:
        for place, model in enumerate(recipe["models"]):
            for arm in sorted(recipe["arms"], key=lambda arm: -arm["published"][place]):
                rows.append(
                    [
                        f"{recipe['name']}, {model['model']}",
                        arm["name"],
                        f"{arm['published'][place]:g}",
                        scale.value(arm["score"]),
                        scale.interval(arm["low"], arm["high"]),
                        plural(arm["n"], "run") + (f", {arm['diverged']} diverged" if arm["diverged"] else ""),
                        f"{recipe['measure']}; {recipe['source']}",
                    ]
                )
    header = ["published model", "mixer", "published", scale.titled, f"{100 * level:g} % interval", "of", "source"]
    return ReportTable(header, rows, kind="cards")


def _figures(setting: Mapping[str, Any], scale: Scale, name: str) -> Iterator[Figure]:
    """A panel for each published model; the scores of the study have one axis in all of them."""
    arms = [arm for recipe in setting["recipes"] for arm in recipe["arms"]]
    ends = [arm[key] * scale.factor for arm in arms for key in ("score", "low", "high") if arm[key] is not None]
    for series, recipe in enumerate(setting["recipes"]):
        for place, model in enumerate(recipe["models"]):
            title = f"{recipe['name']}, {model['model']}"
            yield Figure(
                partial(_panel, recipe, place, scale, padded(ends), series),
                f"{title}: rank correlation {rho(model['correlation'])}.",
                f"{name}-{title}",
                small=True,
            )


def _panel(
    recipe: Mapping[str, Any], place: int, scale: Scale, span: tuple[float, float], series: int, width: int
) -> Canvas:
    """Scores of the study, with their intervals, against the published ones; `span` is of the study's."""
    arms = recipe["arms"]
    canvas = Canvas(width, HEIGHT, f"{scale.title} against {recipe['measure']} of {recipe['name']}")
    left, right, top, bottom = 58.0, width - 10.0, 26.0, HEIGHT - 44.0
    known = [arm["published"][place] for arm in arms]
    x, y = Axis(*padded(known, 0.2), left, right), Axis(*span, bottom, top)
    canvas.text(4, 13, unit(scale), kind="soft")
    vertical_grid(canvas, y, left, right, 5)
    ticks = x.ticks(5)
    for tick in ticks:
        canvas.line(x(tick), top, x(tick), bottom, "grid")
        canvas.text(x(tick), bottom + 18, tick_text(tick, ticks), "middle", "soft")
    canvas.text((left + right) / 2, HEIGHT - 6, recipe["measure"], "middle", "soft")
    places = [(x(value), y(arm["score"] * scale.factor)) for value, arm in zip(known, arms, strict=True)]
    whiskers = []
    for (a, _), arm in zip(places, arms, strict=True):
        if arm["low"] is not None:
            low, high = y(arm["low"] * scale.factor), y(arm["high"] * scale.factor)
            canvas.whisker(a, low, a, high, series)
            whiskers.append((a - 1, min(low, high), a + 1, max(low, high)))
    names = [arm["name"] for arm in arms]
    boxes = label_boxes(names, places, whiskers, (left, top, right - 8, bottom), range(len(arms)))
    for name, box in zip(names, boxes, strict=True):
        canvas.text(box[0], box[3] - 4, name)
    for a, b in places:
        canvas.circle(a, b, 4.5, series=series)
    return canvas
