"""Numbers and findings in words: the one place that rounds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ablations.layout import SHARES
from ablations.plan import Objective

SWITCHES = (("off", "on"), ("false", "true"), ("no", "yes"), ("without", "with"))
ON = tuple(on for _, on in SWITCHES)
TITLES = {
    "macs": "MACs",
    "mixer_macs": "mixer MACs",
    "params": "parameters",
    "train/memory_mb": "peak memory of training in MB",
    "train/images_per_second": "images per second in training",
    "train/seconds": "seconds of training",
    "train/step_ms": "time of a training step in ms",
    "inference/image_ms": "time of inference per image in ms",
    "inference/memory_mb": "peak memory of inference in MB",
}
LARGE = 1e5
"""From here on values are told as 1.2 M."""

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EM DASH}"


@dataclass(frozen=True)
class Scale:
    """How a metric is written: times `factor`, with `digits` after the point."""

    metric: str
    factor: float
    digits: int

    @classmethod
    def of(cls, metric: str, halves: Iterable[float | None], values: Iterable[float | None] = ()) -> Scale:
        """Digits such that a typical interval shows one or two of its own; without intervals four of the values'."""
        factor = 100.0 if is_share(metric.rpartition("/")[2]) else 1.0
        known = sorted(abs(half) * factor for half in halves if half is not None and math.isfinite(half) and half)
        if known:
            digits = 1 - math.floor(math.log10(known[len(known) // 2]))
        else:
            sizes = sorted(abs(value) * factor for value in values if value is not None and value)
            digits = 3 - math.floor(math.log10(sizes[len(sizes) // 2])) if sizes else 2
        return cls(metric, factor, min(max(digits, 1 if factor > 1 else 0), 6))

    @property
    def title(self) -> str:
        """The name in print, as in `test accuracy`."""
        return title(self.metric)

    @property
    def titled(self) -> str:
        """The title with the unit of a value."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def unit(self) -> str:
        """Of a value: `%` or nothing."""
        return "%" if self.factor > 1 else ""

    @property
    def points(self) -> str:
        """Unit of a difference: ` points` (of a percentage) or nothing."""
        return " points" if self.factor > 1 else ""

    @property
    def axis_title(self) -> str:
        """Of an axis of differences."""
        return f"{self.title},{self.points}" if self.points else self.title

    @property
    def in_brackets(self) -> str:
        """The unit of a difference for the head of a column: ` (points)` or nothing."""
        return f" ({self.points.strip()})" if self.points else ""

    def value(self, number: float | None) -> str:
        """A value without its unit."""
        if number is None:
            return DASH
        return count(number) if abs(number) >= LARGE else minus(f"{number * self.factor:,.{self.digits}f}")

    def signed(self, number: float | None) -> str:
        """A difference, always with its sign, without its unit."""
        if number is None:
            return DASH
        text = f"{number * self.factor:+,.{self.digits}f}"
        return minus(text if float(text.replace(",", "")) else text[1:])

    def half(self, half: float | None) -> str:
        """`± 0.4`, or nothing where one run gives no interval."""
        return "" if half is None else f"± {self.value(half)}"

    def interval(self, low: float | None, high: float | None) -> str:
        """An interval in print, as in `2.2 to 4.0`."""
        return "no interval" if low is None or high is None else f"{self.value(low)} to {self.value(high)}"


def is_share(name: str) -> bool:
    """Whether a metric, without its split, is a share of the images."""
    return name in SHARES


def title(metric: str) -> str:
    """A key of metrics.json in words: `test accuracy`, `MACs`."""
    if metric in TITLES:
        return TITLES[metric]
    return metric.replace("val/", "validation ").replace("/", " ").replace("_", " ")


def minus(text: str) -> str:
    """With a proper minus sign."""
    return text.replace("-", MINUS)


def p_value(p: float | None) -> str:
    """A probability in print, as in `0.03` or `< 0.001`."""
    if p is None:
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def p_said(p: float | None) -> str:
    """`p = 0.03`, `p < 0.001`."""
    text = p_value(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def count(number: float | None) -> str:
    """1.2 M, 3.4 G: parameters, MACs, images per second."""
    if number is None:
        return DASH
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.3g}"


def seconds(number: float | None) -> str:
    """45 s, 12 min, 3.4 h."""
    if number is None:
        return DASH
    if number < 120:
        return f"{number:.0f} s"
    return f"{number / 60:.0f} min" if number < 7200 else f"{number / 3600:.1f} h"


def plural(number: int, noun: str) -> str:
    """1 seed, 3 seeds."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def is_switch(levels: Iterable[str]) -> bool:
    """Whether two levels are off and on, so that the factor's name says what the effect is of."""
    return tuple(str(level).lower() for level in levels) in SWITCHES


def subject(factor: str, high: str, low: str) -> str:
    """What an effect is of: `diffusion`, or `boundary neumann rather than periodic`."""
    return factor if is_switch((low, high)) else f"{factor} {high} rather than {low}"


def change(estimate: float, objective: Objective, scale: Scale) -> str:
    """`adds 3.1 points of test accuracy`."""
    size = f"{scale.value(abs(estimate))}{scale.points}"
    if scale.points:
        return f"{'adds' if estimate > 0 else 'costs'} {size} of {scale.title}"
    return f"{'raises' if estimate > 0 else 'lowers'} {scale.title} by {size}"


def told(effect: Mapping[str, Any]) -> str:
    """Which interval of an effect is told, as its keys in the summary end: of a control that for it alone, of the
    largest that of the largest, of the others that for all together.
    """
    if effect["control"]:
        return ""
    return "_together" if effect["low_largest"] is None else "_largest"


def effect_finding(
    effect: Mapping[str, Any], objective: Objective, scale: Scale, level: float, notes: tuple[str, str]
) -> str:
    """What an effect says. Its interval is that of `told`.

    `notes` stand in the brackets behind the interval, the second also where there is none.
    """
    kind = told(effect)
    low, high = effect[f"low{kind}"], effect[f"high{kind}"]
    where = f"{scale.interval(low, high)}{''.join(notes)}"
    if low is None:
        size = change(effect["estimate"], objective, scale)
        return f"{effect['subject']} {size} (too few runs for an interval{notes[1]})"
    if effect["control"]:
        inside = "is zero within its interval" if low <= 0 <= high else "is NOT zero within its interval"
        return f"the negative control {effect['subject']} {inside} ({where})"
    if effect["p_together"] < 1 - level:
        return f"{effect['subject']} {change(effect['estimate'], objective, scale)} ({where})"
    findable = effect["findable"]
    size = "" if findable is None else f"; {scale.value(findable)}{scale.points} would be shown with probability 0.8"
    return f"no effect of {effect['subject']} is shown ({where}{size})"
