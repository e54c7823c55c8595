"""`python docs/_site/picture.py`: the README's picture, from the table of effects in docs/results/mixers-cifar10.md.

Common shell: what each mixer and the local convolution change in test accuracy, with 95 % intervals that hold together;
blue where p, for all together, is below 0.05.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

DOCS = Path(__file__).parents[1]
RESULTS = DOCS / "results" / "mixers-cifar10.md"
PICTURE = DOCS / "results" / "mixers-cifar10.svg"
_ROW = re.compile(r"^\| (?:mixer )?(.+?) rather than \S+ \| (\S+) \| (\S+) to (\S+) \| (?:< )?(\S+) \|$", re.MULTILINE)
CLEAR, UNCLEAR = "#0b62a8", "#6e7781"
LEVEL = 0.05


@dataclass(frozen=True)
class Effect:
    """Points of test accuracy with a 95 % interval, and p (or a bound of it), both for all effects together."""

    name: str
    estimate: float
    low: float
    high: float
    p: float


def effects(text: str) -> list[Effect]:
    """The effects of the first block of the page (the common shell), best first."""
    block = text.partition("## Common shell")[2].partition("\n## ")[0]
    rows = [(m[1], *(float(m[i].replace("−", "-")) for i in (2, 3, 4, 5))) for m in _ROW.finditer(block)]
    named = [Effect("with a 3 × 3 convolution" if name == "conv 3" else name, *numbers) for name, *numbers in rows]
    return sorted(named, key=lambda effect: -effect.estimate)


def draw(shown: list[Effect]) -> Figure:
    """One line for each effect."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.axvline(0, color="#24292f", linewidth=0.8)
    for row, effect in enumerate(reversed(shown)):
        colour = CLEAR if effect.p < LEVEL else UNCLEAR
        axes.plot([effect.low, effect.high], [row, row], color=colour, linewidth=2)
        axes.plot([effect.estimate], [row], "o", color=colour)
        axes.text(8.9, row, f"{effect.estimate:+.1f}".replace("-", "−"), va="center", ha="right", color=colour)
    axes.set_yticks(range(len(shown)), [effect.name for effect in reversed(shown)])
    axes.set_xlim(-5, 9)
    axes.set_xlabel("points of test accuracy; mixers against identity, 95 % intervals, together")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def main() -> None:
    """Draw the picture; its letters stay text, and equal numbers give equal bytes."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "operator-zoo", "font.family": "sans-serif"}):
        draw(effects(RESULTS.read_text(encoding="utf-8"))).savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
