"""Drawing of figures as SVG: a canvas, axes with round ticks, labels of points, and colours that follow the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from itertools import pairwise
from xml.etree import ElementTree

SERIES = 8
"""Colours there are in `figure.css`."""

UNITS = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))

DASHES = ("", "7 3", "2 3", "9 3 2 3")
"""So that series differ without their colours."""

_LETTER, _LINE, _NEAR = 7.4, 16.0, 9.0
"""Of a label: pixels of a letter, of a line, and between it and its point."""

Place = tuple[float, float]
Box = tuple[float, float, float, float]


class Canvas:
    """An SVG of `width` by `height` pixels that is filled element by element; classes are those of `figure.css`."""

    def __init__(self, width: int, height: int, title: str, role: str = "img") -> None:
        self.width, self.height = width, height
        size = {"viewBox": f"0 0 {width} {height}", "style": f"max-width:{width}px"}
        self._root = ElementTree.Element("svg", {"class": "figure", "role": role, **size})
        ElementTree.SubElement(self._root, "title").text = title
        self._parent = self._root

    @contextmanager
    def group(self, kind: str, title: str) -> Iterator[None]:
        """What is drawn within belongs together: it can have the focus, and is called `title`."""
        outer = self._parent
        named = {"class": kind, "tabindex": "0", "role": "img", "aria-label": title}
        self._parent = ElementTree.SubElement(outer, "g", named)
        try:
            yield
        finally:
            self._parent = outer

    def _add(self, tag: str, attributes: dict[str, str | float], text: str | None = None) -> None:
        written = {name: f"{value:.1f}" if isinstance(value, float) else value for name, value in attributes.items()}
        kept = {name: str(value) for name, value in written.items() if value != ""}
        ElementTree.SubElement(self._parent, tag, kept).text = text

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """A line of a class."""
        self._add("line", {**_ends(x1, y1, x2, y2), "class": kind})

    def circle(self, x: float, y: float, radius: float, kind: str = "dot", series: int | None = None) -> None:
        """A point, of a class or in the colour of a series."""
        style = "" if series is None else _ink(series, "fill", "stroke")
        self._add("circle", {"cx": float(x), "cy": float(y), "r": str(radius), "class": kind, "style": style})

    def bar(self, x: float, y: float, width: float, height: float) -> None:
        """A filled rectangle in the colour of marks."""
        size = {"width": float(max(width, 0)), "height": float(height)}
        self._add("rect", {"x": float(x), "y": float(y), **size, "fill": "var(--mark)"})

    def text(self, x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> None:
        """Text on the baseline y."""
        self._add("text", {"x": float(x), "y": float(y), "text-anchor": anchor, "class": kind}, text)

    def curve(self, points: Sequence[tuple[float, float]], series: int, dashed: bool = True) -> None:
        """A line through points, in the colour and dashes of a series."""
        dash = DASHES[(series // 2) % len(DASHES)] if dashed else ""
        style = {"class": "curve", "style": _ink(series, "stroke"), "stroke-dasharray": dash}
        self._add("polyline", {"points": _path(points), **style})

    def band(self, lower: Sequence[tuple[float, float]], upper: Sequence[tuple[float, float]], series: int) -> None:
        """The area between two lines."""
        outline = _path([*lower, *reversed(upper)])
        self._add("polygon", {"points": outline, "class": "band", "style": _ink(series, "fill")})

    def whisker(self, x1: float, y1: float, x2: float, y2: float, series: int) -> None:
        """An interval in the colour of a series."""
        self._add("line", {**_ends(x1, y1, x2, y2), "style": _ink(series, "stroke"), "stroke-width": "1.5"})

    def render(self, alone: bool = False) -> str:
        """The element; `alone` with a name space and its own style, for a file."""
        if not alone:
            return ElementTree.tostring(self._root, encoding="unicode")
        size = {"width": str(self.width), "height": str(self.height)}
        root = ElementTree.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **self._root.attrib, **size})
        title, *drawn = self._root
        style = ElementTree.Element("style")
        style.text = (files("ablations.reporting") / "templates" / "figure.css").read_text(encoding="utf-8")
        ground = ElementTree.Element("rect", {"width": "100%", "height": "100%", "fill": "var(--paper)"})
        root.extend([title, style, ground, *drawn])
        return ElementTree.tostring(root, encoding="unicode")


class Axis:
    """Values to pixels, linear or logarithmic, over `low` … `high` widened to something that can be drawn."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool = False) -> None:
        self.log = log and low > 0
        if not self.log and high - low <= 1e-12 * max(abs(low), abs(high)):
            low, high = low - (abs(low) * 0.05 or 0.5), high + (abs(high) * 0.05 or 0.5)
        if self.log and high <= low:
            low, high = low / 2, high * 2
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, about: int, whole: bool = False) -> list[float]:
        """Round values within the axis, at most about so many; integers alone where `whole`."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            ticks: list[float] = []
            for fine in ((1, 2, 5), (1, 3), (1,)):
                ticks = [m * 10.0**d for d in decades for m in fine if self.low <= m * 10.0**d <= self.high]
                if len(ticks) <= about:
                    break
            return ticks[:: max(1, math.ceil(len(ticks) / max(about, 1)))]
        rough = (self.high - self.low) / max(about, 1)
        unit = 10.0 ** math.floor(math.log10(rough))
        steps = [factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= rough * (1 - 1e-9)]
        step = next(step for step in (*steps, 1.0) if not whole or step == round(step))
        first = math.ceil(self.low / step - 1e-9)
        return [place * step for place in range(first, math.floor(self.high / step + 1e-9) + 1)]


def tick_text(value: float, ticks: Sequence[float]) -> str:
    """A tick with as many digits as its neighbours need to differ: 0.25, 1.5 M, 2e-4."""
    size = max((abs(tick) for tick in ticks), default=0.0)
    step = min((b - a for a, b in pairwise(ticks)), default=0.0)
    if not value:
        return "0" if size >= 1e4 or size < 1e-3 else _fixed(0.0, step)
    if size >= 1e4:
        letter, unit = next((letter, unit) for letter, unit in UNITS if size >= unit)
        return f"{_fixed(value / unit, step / unit)} {letter}"
    if size >= 1e-3:
        return _fixed(value, step)
    exponent = math.floor(math.log10(size) + 1e-9)
    return f"{_fixed(value / 10.0**exponent, step / 10.0**exponent)}e{exponent}".replace("-", "\N{MINUS SIGN}")


def _fixed(value: float, step: float) -> str:
    """`value`, a multiple of `step`, with the digits that the step has, or its own where there is no step."""
    if not step:
        return f"{value:.6g}".replace("-", "\N{MINUS SIGN}")
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if abs(step * 10**digits - round(step * 10**digits)) > 1e-6:
        digits += 1
    return f"{value + 0.0:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def label_boxes(
    names: Sequence[str], places: Sequence[Place], obstacles: Sequence[Box], frame: Box, order: Sequence[int]
) -> list[Box]:
    """A box for the name of each point, where it hides least of the others, of points and of obstacles.

    Points choose in this `order`. Boxes are (left, top, right, bottom); a name's baseline is 4 pixels above the bottom.
    """
    taken: list[Box] = [(a - 6, b - 6, a + 6, b + 6) for a, b in places]
    taken += obstacles
    boxes_by_number: dict[int, Box] = {}
    for number in order:
        a, b = places[number]
        wide = _LETTER * len(names[number])
        around = [(a - wide, b - _LINE), (a + _NEAR, b + _LINE), (a + _NEAR, b), (a - _NEAR - wide, b)]
        around += [(a - wide / 2, b - _LINE), (a - wide / 2, b + _LINE), (a + _NEAR, b - _LINE), (a - wide, b + _LINE)]
        around += [(a + side, b + shift) for shift in (-2 * _LINE, 2 * _LINE) for side in (0, -wide)]
        boxes = [(start, middle - _LINE / 2, start + wide, middle + _LINE / 2) for start, middle in around]
        own = taken[number]
        others = [box for box in taken if box is not own]
        boxes_by_number[number] = min(
            boxes, key=lambda box: (_hidden(box, others) + _outside(box, frame), boxes.index(box))
        )
        taken.append(boxes_by_number[number])
    return [boxes_by_number[number] for number in range(len(places))]


def _hidden(box: Box, others: Sequence[Box]) -> float:
    """Pixels that a box shares with others."""
    shared = 0.0
    for other in others:
        across = min(box[2], other[2]) - max(box[0], other[0])
        down = min(box[3], other[3]) - max(box[1], other[1])
        shared += max(across, 0.0) * max(down, 0.0)
    return shared


def _outside(box: Box, frame: Box) -> float:
    """How far a box is outside the frame, so weighted that this counts more than hiding others."""
    beyond = (frame[0] - box[0], frame[1] - box[1], box[2] - frame[2], box[3] - frame[3])
    return 1000 * sum(max(each, 0.0) for each in beyond)


def clip(text: str, pixels: float) -> str:
    """The text, shortened to about so many pixels."""
    most = max(4, int(pixels / 7))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _ink(series: int, *properties: str) -> str:
    return ";".join(f"{name}:var(--s{series % SERIES})" for name in properties)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _ends(x1: float, y1: float, x2: float, y2: float) -> dict[str, float]:
    return {"x1": float(x1), "y1": float(y1), "x2": float(x2), "y2": float(y2)}
