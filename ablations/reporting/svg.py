"""Drawing of figures as SVG: a canvas, axes with round ticks, and colours that follow the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise

SERIES = 8
"""Colours there are; see `COLOURS`."""

COLOURS = """
:root { --paper: #ffffff; --ink: #1b1f24; --soft: #5b6570; --rule: #d9dee3; --mark: #0b62a8;
  --s0: #0b62a8; --s1: #c24a00; --s2: #00805c; --s3: #8a4b9c; --s4: #8f6a00; --s5: #c0326b; --s6: #2d7f93; --s7: #5a5f66; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e8eaed; --soft: #a3adb8; --rule: #353c44;
  --mark: #6cb6ff; --s0: #6cb6ff; --s1: #ff9e5e; --s2: #4fcf9f; --s3: #d3a0e6; --s4: #e0bd54; --s5: #ff8fb8;
  --s6: #7fd0e2; --s7: #b3bac2; } }
@media print { :root { --paper: #ffffff; --ink: #000000; --soft: #444444; --rule: #cccccc; --mark: #0b62a8;
  --s0: #0b62a8; --s1: #c24a00; --s2: #00805c; --s3: #8a4b9c; --s4: #8f6a00; --s5: #c0326b; --s6: #2d7f93; --s7: #5a5f66; } }
"""  # noqa: E501 - one colour after the other

STYLE = """
svg.figure { font: 13px/1.2 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
svg.figure text { fill: var(--ink); paint-order: stroke; stroke: var(--paper); stroke-width: 4px;
  stroke-linejoin: round; }
svg.figure .soft { fill: var(--soft); }
svg.figure .grid { stroke: var(--rule); stroke-width: 1; }
svg.figure .zero { stroke: var(--soft); stroke-width: 1; }
svg.figure .bar { stroke: var(--mark); stroke-width: 2.5; stroke-linecap: round; }
svg.figure .dot { fill: var(--mark); stroke: var(--mark); stroke-width: 2; }
svg.figure .open { fill: var(--paper); }
svg.figure .faint { fill: var(--soft); opacity: .45; }
svg.figure .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg.figure .band { opacity: .15; }
"""

UNITS = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))

DASHES = ("", "7 3", "2 3", "9 3 2 3")
"""So that series differ without their colours."""


class Canvas:
    """An SVG of `width` by `height` pixels that is filled element by element."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self.parts: list[str] = []

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """A line of a class of `STYLE`."""
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>')

    def circle(self, x: float, y: float, radius: float, kind: str = "dot", series: int | None = None) -> None:
        """A point, of a class of `STYLE` or in the colour of a series."""
        colour = "" if series is None else f' style="{_ink(series, "fill", "stroke")}"'
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{kind}"{colour}/>')

    def bar(self, x: float, y: float, width: float, height: float) -> None:
        """A filled rectangle in the colour of marks."""
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" fill="var(--mark)"/>'
        )

    def text(self, x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> None:
        """Text on the baseline y."""
        style = f' class="{kind}"' if kind else ""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(text)}</text>')

    def curve(self, points: Sequence[tuple[float, float]], series: int, dashed: bool = True) -> None:
        """A line through points, in the colour and dashes of a series."""
        dash = DASHES[(series // 2) % len(DASHES)] if dashed else ""
        stroke = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<polyline points="{_path(points)}" class="curve" style="{_ink(series, "stroke")}"{stroke}/>'
        )

    def band(self, lower: Sequence[tuple[float, float]], upper: Sequence[tuple[float, float]], series: int) -> None:
        """The area between two lines."""
        outline = _path([*lower, *reversed(upper)])
        self.parts.append(f'<polygon points="{outline}" class="band" style="{_ink(series, "fill")}"/>')

    def whisker(self, x1: float, y1: float, x2: float, y2: float, series: int) -> None:
        """An interval in the colour of a series."""
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" style="{_ink(series, "stroke")}"'
            ' stroke-width="1.5"/>'
        )

    def render(self, alone: bool = False) -> str:
        """The element; `alone` with a name space and its own style, for a file."""
        space = ' xmlns="http://www.w3.org/2000/svg"' if alone else ""
        size = f' width="{self.width}" height="{self.height}"' if alone else ""
        style = f"<style>{COLOURS}{STYLE}</style>" if alone else ""
        ground = '<rect width="100%" height="100%" fill="var(--paper)"/>' if alone else ""
        return (
            f'<svg{space} class="figure" role="img" viewBox="0 0 {self.width} {self.height}"{size}'
            f' style="max-width:{self.width}px">'
            f"<title>{escape(self.title)}</title>{style}{ground}{''.join(self.parts)}</svg>"
        )


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

    def ticks(self, about: int) -> list[float]:
        """Round values within the axis, at most about so many."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            fine = (1, 2, 5) if len(decades) <= 3 else (1,)
            found = [m * 10.0**d for d in decades for m in fine if self.low <= m * 10.0**d <= self.high]
            return found[:: max(1, math.ceil(len(found) / max(about, 1)))]
        rough = (self.high - self.low) / max(about, 1)
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= rough * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [place * step for place in range(first, math.floor(self.high / step + 1e-9) + 1)]


def tick_text(value: float, ticks: Sequence[float]) -> str:
    """A tick with as many digits as its neighbours need: 1.5 M, 0.25."""
    size = max((abs(tick) for tick in ticks), default=0.0)
    if size >= 1e4:
        letter, unit = next((letter, unit) for letter, unit in UNITS if size >= unit)
        return f"{value / unit:g} {letter}" if value else "0"
    steps = [b - a for a, b in pairwise(ticks)]
    digits = max(0, -math.floor(math.log10(min(steps)) + 1e-9)) if steps else 2
    if steps and abs(min(steps) * 10**digits - round(min(steps) * 10**digits)) > 1e-6:
        digits += 1
    return f"{value + 0.0:.{digits}f}".replace("-", "\N{MINUS SIGN}") if size >= 1e-3 else f"{value:.0e}"


def clip(text: str, pixels: float) -> str:
    """The text, shortened to about so many pixels."""
    most = max(4, int(pixels / 7))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _ink(series: int, *properties: str) -> str:
    return ";".join(f"{name}:var(--s{series % SERIES})" for name in properties)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
