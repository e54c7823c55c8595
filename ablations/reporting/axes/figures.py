"""Lines with bands over budgets, numbers of trials, or thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ablations.reporting.svg import SERIES, Axis, Canvas, clip, tick_text

BOTTOM, LEFT = 236, 56.0


class Mark(NamedTuple):
    """A point of a figure in print units; without an interval where an end is None."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """What is drawn in a colour: a line with a band about it, and dots with whiskers."""

    label: str
    line: Sequence[Mark] = ()
    dots: Sequence[Mark] = ()


@dataclass(frozen=True)
class Frame:
    """The titles of the axes, and whether the one across is logarithmic or holds whole numbers."""

    title: str
    across: str
    up: str
    logarithmic: bool = False
    whole: bool = False
    share: bool = False


def lines(series: Sequence[Series], frame: Frame, width: int) -> Canvas:
    """At most one series for each colour; bands and whiskers are cut at the figure's edge."""
    series = series[:SERIES]
    columns = 2 if width < 500 else 3
    rows = math.ceil(len(series) / columns)
    canvas = Canvas(width, 286 + 20 * rows, frame.title)
    marks = [mark for line in series for mark in (*line.line, *line.dots)]
    low, high = _reach(marks, frame.share)
    y = Axis(low, high, BOTTOM, 26)
    x = Axis(min(mark.x for mark in marks), max(mark.x for mark in marks), LEFT + 10, width - 20, log=frame.logarithmic)
    canvas.text(4, 13, frame.up, kind="soft")
    ticks = y.ticks(5)
    for tick in ticks:
        canvas.line(LEFT, y(tick), width - 8, y(tick), "grid")
        canvas.text(LEFT - 6, y(tick) + 4, tick_text(tick, ticks), "end", "soft")
    _across(canvas, x, series, frame, width)
    for number, line in enumerate(series):
        banded = [mark for mark in line.line if mark.low is not None and mark.high is not None]
        if banded:
            lower = [(x(mark.x), y(_cut(mark.low, low, high))) for mark in banded]
            canvas.band(lower, [(x(mark.x), y(_cut(mark.high, low, high))) for mark in banded], number)
    for number, line in enumerate(series):
        if line.line:
            canvas.curve([(x(mark.x), y(mark.y)) for mark in line.line], number)
        shift = 4.0 * (number - (len(series) - 1) / 2) if line.dots and len(series) > 1 else 0.0
        for mark in line.dots:
            place = x(mark.x) + shift
            if mark.low is not None and mark.high is not None:
                ends = (y(_cut(mark.low, low, high)), y(_cut(mark.high, low, high)))
                canvas.whisker(place, ends[0], place, ends[1], number)
            canvas.circle(place, y(mark.y), 3.5, series=number)
        part = (width - 16) / columns
        left, top = 10 + part * (number % columns), 294 + 20 * (number // columns)
        canvas.curve([(left, top - 4), (left + 22, top - 4)], number)
        canvas.text(left + 28, top, clip(line.label, part - 34))
    return canvas


def _across(canvas: Canvas, x: Axis, series: Sequence[Series], frame: Frame, width: int) -> None:
    """Ticks at the budgets themselves where they are few, else at round values."""
    places = sorted({mark.x for line in series for mark in line.dots})
    ticks = places if frame.logarithmic and places else x.ticks(4 if width < 500 else 8, whole=frame.whole)
    taken = -math.inf
    for tick in ticks:
        text = _short(tick) if frame.logarithmic and places else tick_text(tick, ticks)
        reach = 4.0 * len(text)
        if x(tick) - reach > taken:
            canvas.text(x(tick), BOTTOM + 18, text, "middle", "soft")
            taken = x(tick) + reach
    canvas.text((LEFT + width) / 2, BOTTOM + 36, frame.across, "middle", "soft")


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            unit = 1e3 if letter == "k" else size
            return f"{value / unit:.4g} {letter}"
    return f"{value:.4g}"


def _reach(marks: Sequence[Mark], share: bool) -> tuple[float, float]:
    """From the lowest to the highest point, with room for intervals that are not much wider than that."""
    if share:
        return -0.03, 1.03
    values = [mark.y for mark in marks]
    low, high = min(values), max(values)
    room = 0.35 * (high - low)
    ends = [end for mark in marks for end in (mark.low, mark.high) if end is not None and math.isfinite(end)]
    reach = min([low, *ends]), max([high, *ends])
    return max(reach[0], low - room) - 0.02 * room, min(reach[1], high + room) + 0.02 * room


def _cut(value: float | None, low: float, high: float) -> float:
    assert value is not None
    return min(max(value, low), high)
