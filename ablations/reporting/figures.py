"""The report's figures. Each is drawn for a width in pixels: once for laptops and paper, once for phones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablations.analysis.words import Scale, minus
from ablations.reporting.svg import SERIES, Axis, Canvas, clip, tick_text

ROW = 26
MOST_ROWS = 40
MOST_ACROSS = 4


@dataclass(frozen=True)
class Bar:
    """A row of a forest plot: an estimate with its interval, if it has one."""

    label: str
    estimate: float
    low: float | None
    high: float | None
    hollow: bool = False


def forest(bars: Sequence[Bar], scale: Scale, title: str, axis_title: str, width: int) -> Canvas:
    """Estimates with intervals about a line at zero; on a phone, a label and its numbers stand above each interval."""
    bars = bars[:MOST_ROWS]
    narrow = width < 500
    step = 60 if narrow else ROW
    height = 14 + step * len(bars) + 44
    canvas = Canvas(width, height, title)
    longest = max(len(bar.label) for bar in bars)
    left = 10 if narrow else min(20 + 7.2 * longest, 0.38 * width)
    written = [_written(bar, scale) for bar in bars]
    right = width - (10 if narrow else 20 + 7 * max(map(len, written)))
    values = [0.0, *(v for bar in bars for v in (bar.estimate, bar.low, bar.high) if v is not None)]
    x = Axis(*padded([value * scale.factor for value in values]), left, right)
    bottom = height - 40
    rows = [14 + step * place + (46 if narrow else 10) for place in range(len(bars))]
    # Lines stop at the letters of a phone's rows.
    bands = [(y - 9, y + 9) for y in rows] if narrow else [(8, bottom)]
    _horizontal(canvas, x, bands, bottom)
    for top, end in bands:
        canvas.line(x(0), top, x(0), end, "zero")
    canvas.text((left + right) / 2, height - 6, axis_title, "middle", "soft")
    for y, bar, words in zip(rows, bars, written, strict=True):
        if bar.low is not None and bar.high is not None:
            canvas.line(x(bar.low * scale.factor), y, x(bar.high * scale.factor), y, "bar")
        canvas.circle(x(bar.estimate * scale.factor), y, 4.5, "dot open" if bar.hollow else "dot")
        if narrow:
            canvas.text(left, y - 30, clip(bar.label, width - 20))
            canvas.text(left, y - 14, words, kind="soft")
        else:
            canvas.text(left - 12, y + 4, clip(bar.label, left - 12), "end")
            canvas.text(width - 4, y + 4, words, "end", "soft")
    return canvas


def _written(bar: Bar, scale: Scale) -> str:
    known = bar.low is not None and bar.high is not None
    return scale.signed(bar.estimate) + (f" ({scale.interval(bar.low, bar.high)})" if known else "")


def interaction(row: Mapping[str, Any], scale: Scale, width: int) -> Canvas:
    """Means over the levels of one factor, a line for each level of the other; in rows where there are many levels."""
    first, second = row["factors"]
    points = row["points"]
    if len({point[first] for point in points}) > MOST_ACROSS:
        return _rows_of(points, first, second, scale, width)
    if len({point[second] for point in points}) > MOST_ACROSS:
        return _rows_of(points, second, first, scale, width)
    across = list(dict.fromkeys(point[first] for point in points))
    series = list(dict.fromkeys(point[second] for point in points))
    height = 230 + 18 * math.ceil(len(series) / 2)
    canvas = Canvas(width, height, f"{scale.title} by {first} and {second}")
    ends = [(point["mean"] + side * (point["half"] or 0.0)) * scale.factor for point in points for side in (-1.0, 1.0)]
    y = Axis(*padded(ends), 182, 14)
    left = 52.0
    vertical_grid(canvas, y, left, width - 8, 4)
    gap = (width - left - 8) / len(across)
    places = {level: left + gap * (place + 0.5) for place, level in enumerate(across)}
    for level, place in places.items():
        canvas.text(place, 200, clip(str(level), gap), "middle")
    canvas.text((left + width) / 2, 218, clip(first, width - left), "middle", "soft")
    for number, level in enumerate(series):
        shift = (number - (len(series) - 1) / 2) * 6
        own = [point for point in points if point[second] == level]
        line = [(places[point[first]] + shift, y(point["mean"] * scale.factor)) for point in own]
        canvas.curve(line, number)
        for (place, middle), point in zip(line, own, strict=True):
            if point["half"] is not None:
                ends = [y((point["mean"] + side * point["half"]) * scale.factor) for side in (-1.0, 1.0)]
                canvas.whisker(place, ends[0], place, ends[1], number)
            canvas.circle(place, middle, 3.5, series=number)
        column = left + (number % 2) * (width - left) / 2
        _key(canvas, column, 236 + 18 * (number // 2), f"{second} {level}", number, (width - left) / 2)
    return canvas


def _rows_of(points: Sequence[Mapping[str, Any]], down: str, beside: str, scale: Scale, width: int) -> Canvas:
    """A row for each level of one factor, a point for each level of the other."""
    levels = list(dict.fromkeys(point[down] for point in points))
    series = list(dict.fromkeys(point[beside] for point in points))
    bottom = 14 + 22 * len(levels)
    height = bottom + 44 + 18 * math.ceil(len(series) / 2)
    canvas = Canvas(width, height, f"{scale.title} by {down} and {beside}")
    left = min(20 + 7.2 * max(len(str(level)) for level in levels), 0.4 * width)
    ends = [(p["mean"] + side * (p["half"] or 0.0)) * scale.factor for p in points for side in (-1.0, 1.0)]
    x = Axis(*padded(ends), left, width - 10)
    _horizontal(canvas, x, [(6, bottom)], bottom)
    canvas.text((left + width) / 2, bottom + 32, unit(scale), "middle", "soft")
    for row, level in enumerate(levels):
        y = 18 + 22 * row
        canvas.text(left - 8, y + 4, clip(str(level), left - 8), "end")
        for number, other in enumerate(series):
            for point in points:
                if point[down] == level and point[beside] == other:
                    shift = y + (number - (len(series) - 1) / 2) * 6
                    if point["half"] is not None:
                        low, high = (x((point["mean"] + side * point["half"]) * scale.factor) for side in (-1.0, 1.0))
                        canvas.whisker(low, shift, high, shift, number)
                    canvas.circle(x(point["mean"] * scale.factor), shift, 3.5, series=number)
    for number, level in enumerate(series):
        column = 10 + (number % 2) * width / 2
        _key(canvas, column, bottom + 50 + 18 * (number // 2), f"{beside} {level}", number, width / 2)
    return canvas


def curves(lines: Sequence[Mapping[str, Any]], scale: Scale, width: int) -> Canvas:
    """Learning curves with their bands, at most one for each colour."""
    lines = lines[:SERIES]
    columns = 2 if width < 500 else 3
    rows = math.ceil(len(lines) / columns)
    height = 286 + 20 * rows
    canvas = Canvas(width, height, f"learning curves of {scale.title}")
    points = [point for line in lines for point in line["points"]]
    # A band over two or three seeds can be much wider than anything else; the curves have to stay readable.
    means = [point["mean"] * scale.factor for point in points]
    low, high = padded(means, 0.15)
    y = Axis(low, high, 236, 12)
    x = Axis(min(point["step"] for point in points), max(point["step"] for point in points), 52, width - 16)
    vertical_grid(canvas, y, 52, width - 8, 5)
    ticks = x.ticks(4 if width < 500 else 8, whole=True)
    for tick in ticks:
        canvas.text(x(tick), 254, tick_text(tick, ticks), "middle", "soft")
    canvas.text((52 + width) / 2, 272, "optimiser steps", "middle", "soft")
    for number, line in enumerate(lines):
        banded = [point for point in line["points"] if point["low"] is not None]
        sides = [
            [(x(point["step"]), y(min(max(point[side] * scale.factor, low), high))) for point in banded]
            for side in ("low", "high")
        ]
        if banded:
            canvas.band(sides[0], sides[1], number)
    for number, line in enumerate(lines):
        means_of_line = [(x(point["step"]), y(point["mean"] * scale.factor)) for point in line["points"]]
        canvas.curve(means_of_line, number)
        if len(means_of_line) == 1:
            canvas.circle(*means_of_line[0], 3.5, series=number)
        part = (width - 16) / columns
        _key(canvas, 10 + part * (number % columns), 294 + 20 * (number // columns), line["arm"], number, part)
    return canvas


@dataclass(frozen=True)
class Dot:
    """A point of a scatter plot."""

    x: float
    y: float


def scatter(dots: Sequence[Dot], across: Scale, up: Scale, width: int) -> Canvas:
    """One metric against another, wide positive ranges by logarithms."""
    height = 330 if width > 500 else 280
    canvas = Canvas(width, height, f"{up.title} against {across.title}")
    xs, ys = [dot.x * across.factor for dot in dots], [dot.y * up.factor for dot in dots]
    logarithmic = min(xs) > 0 and max(xs) / min(xs) > 20
    left, bottom = 56.0, height - 44.0
    span = (min(xs) / 1.15, max(xs) * 1.15) if logarithmic else padded(xs)
    x = Axis(*span, left, width - 16, log=logarithmic)
    y = Axis(*padded(ys), bottom, 26)
    canvas.text(4, 13, unit(up), kind="soft")
    vertical_grid(canvas, y, left, width - 8, 5)
    ticks = x.ticks(4 if width < 500 else 8)
    for tick in ticks:
        canvas.text(
            x(tick), bottom + 18, tick_text(tick, ticks) if not logarithmic else power_text(tick), "middle", "soft"
        )
    canvas.text((left + width) / 2, height - 6, unit(across), "middle", "soft")
    for a, b in zip(xs, ys, strict=True):
        canvas.circle(x(a), y(b), 3.5, "faint")
    return canvas


def bars(shares: Mapping[str, float], title: str, width: int) -> Canvas:
    """Importances: a bar for each name, the longest first."""
    canvas = Canvas(width, 10 + ROW * len(shares), title)
    left = min(24 + 7.2 * max(map(len, shares)), 0.5 * width)
    x = Axis(0.0, max(*shares.values(), 1e-9), left, width - 56)
    for place, (name, share) in enumerate(shares.items()):
        y = 8 + ROW * place
        canvas.text(left - 10, y + 14, clip(name, left - 10), "end")
        canvas.bar(left, y + 3, x(share) - left, 14)
        canvas.text(x(share) + 6, y + 14, f"{100 * share:.0f} %", kind="soft")
    return canvas


def history(points: Sequence[Mapping[str, Any]], scale: Scale, width: int) -> Canvas:
    """Every trial's value, and the best so far as a staircase."""
    height = 260
    canvas = Canvas(width, height, f"{scale.title} trial by trial")
    y = Axis(*padded([point["value"] * scale.factor for point in points]), height - 44, 26)
    x = Axis(points[0]["number"], max(points[-1]["number"], points[0]["number"] + 1), 62, width - 16)
    canvas.text(4, 13, unit(scale), kind="soft")
    vertical_grid(canvas, y, 56, width - 8, 5)
    ticks = x.ticks(4 if width < 500 else 8, whole=True)
    for tick in ticks:
        canvas.text(x(tick), height - 26, tick_text(tick, ticks), "middle", "soft")
    canvas.text((56 + width) / 2, height - 6, "trial", "middle", "soft")
    stairs: list[tuple[float, float]] = []
    for point in points:
        place = x(point["number"])
        if stairs:
            stairs.append((place, stairs[-1][1]))
        stairs.append((place, y(point["best"] * scale.factor)))
        canvas.circle(place, y(point["value"] * scale.factor), 3.5, "faint")
    canvas.curve(stairs, 0, dashed=False)
    return canvas


def padded(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """The range of the values, with a share of it as margin."""
    low, high = min(values), max(values)
    margin = share * (high - low)
    return low - margin, high + margin


def vertical_grid(canvas: Canvas, y: Axis, left: float, right: float, about: int) -> None:
    """Lines at about so many round values of y, and what they are."""
    ticks = y.ticks(about)
    for tick in ticks:
        canvas.line(left, y(tick), right, y(tick), "grid")
        canvas.text(left - 6, y(tick) + 4, tick_text(tick, ticks), "end", "soft")


def _horizontal(canvas: Canvas, x: Axis, bands: Sequence[tuple[float, float]], bottom: float) -> None:
    """A horizontal axis at the bottom, with lines at its ticks that cross these bands of the figure."""
    ticks = x.ticks(int((x.end - x.start) / 70))
    for tick in ticks:
        for top, end in bands:
            canvas.line(x(tick), top, x(tick), end, "grid")
        canvas.text(x(tick), bottom + 16, tick_text(tick, ticks), "middle", "soft")


def _key(canvas: Canvas, x: float, y: float, label: str, series: int, room: float) -> None:
    canvas.curve([(x, y - 4), (x + 22, y - 4)], series)
    canvas.text(x + 28, y, clip(label, room - 34))


def unit(scale: Scale) -> str:
    """The title of an axis of values."""
    return f"{scale.title} {scale.unit}".strip()


def power_text(value: float) -> str:
    """A tick of a logarithmic axis: 0.5, 200, 1e5."""
    exponent = math.floor(math.log10(value) + 1e-9)
    if -3 < exponent < 4:
        return f"{value:g}"
    return minus(f"{value / 10.0**exponent:.0f}e{exponent}")
