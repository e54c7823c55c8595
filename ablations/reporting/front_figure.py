"""A front: quality against a cost, a point for each arm, that says more where it is hovered over or has the focus.

Nothing but CSS does that, so that it also works in the figure's own file. On paper every point has its name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ablations.analysis.fronts import BEATEN, MEASURED, OPEN
from ablations.analysis.words import Scale, plural
from ablations.reporting.figures import padded, power_text, unit, vertical_grid
from ablations.reporting.svg import Axis, Box, Canvas, Place, clip, label_boxes, tick_text

DECADES = 8.0
"""Costs that differ by more than this factor are drawn by their logarithms."""
MOST_NAMES = 20
"""With more points than this, only those of the front have their names on paper."""
MEANING = {
    MEASURED: "on the front as measured",
    OPEN: "beaten as measured, not shown to be",
    BEATEN: "shown to be beaten",
}


def front(points: Sequence[Mapping[str, Any]], across: Scale, up: Scale, sign: int, width: int) -> Canvas:
    """Points as `ablations.analysis.fronts` gives them; `sign` is -1 where less quality is better."""
    wide = width > 500
    top = 92.0 if wide else 110.0
    height = int(top) + (310 if wide else 260)
    bottom, left, right = height - 44.0, 58.0, width - 14.0
    canvas = Canvas(width, height, f"{up.title} against {across.title}", role="group")
    xs = [point["cost"] * across.factor for point in points]
    ys = [point["quality"] * up.factor for point in points]
    logarithmic = min(xs) > 0 and max(xs) / min(xs) > DECADES
    x = Axis(*(_stretched(xs) if logarithmic else padded(xs, 0.1)), left, right, log=logarithmic)
    y = Axis(*padded(ys, 0.12), bottom, top)
    canvas.text(4, top - 14, unit(up), kind="soft")
    vertical_grid(canvas, y, left, right, 5)
    ticks = x.ticks(8 if wide else 4)
    for tick in ticks:
        canvas.line(x(tick), top, x(tick), bottom, "grid")
        canvas.text(x(tick), bottom + 18, power_text(tick) if logarithmic else tick_text(tick, ticks), "middle", "soft")
    canvas.text((left + right) / 2, height - 6, unit(across), "middle", "soft")
    canvas.text(4, 16, "Hover over, tap or tab to a point.", kind="soft hint")
    places = [(x(a), y(b)) for a, b in zip(xs, ys, strict=True)]
    frame = (left, top, right, bottom)
    stairs = _stairs([place for place, point in zip(places, points, strict=True) if point["stands"] == MEASURED], sign)
    if len(stairs) > 1:
        canvas.curve(stairs, 0, dashed=False)
    labels = _labels(points, places, stairs, frame)
    # Last what lies on top of the others.
    for number in sorted(range(len(points)), key=lambda each: (BEATEN, OPEN, MEASURED).index(points[each]["stands"])):
        _point(
            canvas, points[number], places[number], labels[number], (x, y), frame, (across, up),
            wide=wide, named=len(points) <= MOST_NAMES,
        )  # fmt: skip
    return canvas


def _point(
    canvas: Canvas,
    point: Mapping[str, Any],
    place: Place,
    label: Box,
    axes: tuple[Axis, Axis],
    frame: Box,
    scales: tuple[Scale, Scale],
    *,
    wide: bool,
    named: bool,
) -> None:
    """A point with its intervals, what it says above the axes, and its name: of the front, or for paper if `named`."""
    (a, b), (across, up), (x, y) = place, scales, axes
    left, top, right, bottom = frame
    lines = _said(point, across, up)
    with canvas.group("point", title="; ".join(lines)):
        if point["cost_low"] is not None:
            ends = [x(point[name] * across.factor) for name in ("cost_low", "cost_high")]
            kind, (low, high) = _within(ends, left, right)
            canvas.line(low, b, high, b, kind)
        if point["quality_low"] is not None:
            ends = [y(point[name] * up.factor) for name in ("quality_low", "quality_high")]
            kind, (low, high) = _within(ends, top, bottom)
            canvas.line(a, low, a, high, kind)
        if point["stands"] == BEATEN:
            canvas.line(a - 4, b - 4, a + 4, b + 4, "cross")
            canvas.line(a - 4, b + 4, a + 4, b - 4, "cross")
        else:
            canvas.circle(a, b, 5, "dot" if point["stands"] == MEASURED else "dot open")
        canvas.circle(a, b, 13, "hit")
        quiet = "" if point["stands"] == MEASURED else " quiet"
        if named or not quiet:
            canvas.text(label[0], label[3] - 4, _name(point), kind=f"label{quiet}")
        shown = [lines[0], "; ".join(lines[1:3]), *lines[3:]] if wide else lines
        for number, line in enumerate(shown):
            canvas.text(4, 16 + 18 * number, clip(line, canvas.width - 8), kind="readout" if number else "readout name")


def _within(ends: Sequence[float], low: float, high: float) -> tuple[str, list[float]]:
    """The class of an interval's line, and its ends, cut at those of the axis; one that is cut is seen on hover."""
    cut = [min(max(end, low), high) for end in ends]
    return ("reach" if cut == list(ends) else "reach beyond"), cut


def _said(point: Mapping[str, Any], across: Scale, up: Scale) -> list[str]:
    """What a point stands for, in lines."""
    stands = MEANING[point["stands"]]
    by = f" by {point['beaten_by']}" if point["beaten_by"] else ""
    return [
        str(point["title"]),
        f"{up.title}: {_value(point, 'quality', up)}",
        f"{across.title}: {_value(point, 'cost', across)}",
        f"{stands}{by}; {plural(point['n'], 'run')}",
    ]


def _value(point: Mapping[str, Any], name: str, scale: Scale) -> str:
    low, high = point[f"{name}_low"], point[f"{name}_high"]
    spread = "" if low is None else f" ({scale.interval(low, high)})"
    return f"{scale.value(point[name])}{scale.unit and f' {scale.unit}'}{spread}"


def _stairs(front_places: Sequence[Place], sign: int) -> list[Place]:
    """The line below (or above) which everything is beaten by a point of the front."""
    stairs: list[Place] = []
    for a, b in sorted(front_places, key=lambda place: (place[0], sign * place[1])):
        if stairs:
            stairs.append((a, stairs[-1][1]))
        stairs.append((a, b))
    return stairs


def _labels(
    points: Sequence[Mapping[str, Any]], places: Sequence[Place], stairs: Sequence[Place], frame: Box
) -> list[Box]:
    """A box for the name of each point; those of the front choose first."""
    lines = [(min(a, c) - 1, min(b, d) - 1, max(a, c) + 1, max(b, d) + 1) for (a, b), (c, d) in pairwise(stairs)]
    order = sorted(range(len(points)), key=lambda each: points[each]["stands"] != MEASURED)
    return label_boxes([_name(point) for point in points], places, lines, frame, order)


def _name(point: Mapping[str, Any]) -> str:
    return clip(str(point["title"]), 150)


def _stretched(values: Sequence[float]) -> tuple[float, float]:
    """The range with a margin of a tenth of its logarithm."""
    margin = math.exp(0.1 * math.log(max(values) / min(values)))
    return min(values) / margin, max(values) * margin
