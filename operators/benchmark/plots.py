"""Time and memory against tokens, as a figure for each section of the report; needs matplotlib."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from operators.benchmark.table import Row
from operators.benchmark.workload import WORKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0b62a8", "#c24a00", "#00805c", "#8a4b9c", "#8f6a00", "#c0326b", "#2d7f93", "#5a5f66", "#4f7a1f", "#3f3fbf")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))
MARKERS = "osD^v"
LABEL, FRAME, LEAST = 0.19, 0.8, 5.0
"""In inches: height of a label, what a panel needs around its axes, and the least height of a panel."""


def unavailable() -> str | None:
    """Why no figures can be drawn, or None."""
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError as error:
        return f"no figures: {error} (pip install 'operator-zoo[benchmark]')"
    return None


def draw(rows: Sequence[Row], path: Path) -> None:
    """Four panels, time and memory of both works, one line for each arm of one section; a PNG file.

    Bare operations, which are only read as ratios, are left out.
    """
    from matplotlib.figure import Figure

    rows = [row for row in rows if row.kind != "bare"]
    arms = list(dict.fromkeys(row.arm for row in rows))
    height = max(LEAST, LABEL * len(arms) + FRAME)
    figure = Figure(figsize=(15, 2 * height), dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots(2, len(WORKS), squeeze=False)
    first = rows[0]
    title = f"{first.hardware} ({first.device}), {first.threads} threads, level {first.level}, {first.dtype}"
    figure.suptitle(f"{title}, batch {first.batch}, {first.dim} channels", x=0.02, ha="left", fontweight="bold")
    gap = LABEL / (height - FRAME)
    for column, work in enumerate(WORKS):
        mine = [row for row in rows if row.work == work]
        times = {arm: [(row.tokens, 1e3 * row.seconds) for row in mine if row.arm == arm] for arm in arms}
        memory = {
            arm: [(row.tokens, row.peak_bytes / 2**20) for row in mine if row.arm == arm and row.peak_bytes]
            for arm in arms
        }
        _panel(axes[0][column], times, f"{work}: ms per call (median)", gap)
        _panel(axes[1][column], memory, f"{work}: peak memory, MiB", gap)
        for panel in axes[:, column]:
            _grid_ticks(panel, {row.tokens: row.grid for row in rows})
    figure.savefig(path)


def _panel(axes: Axes, lines: dict[str, list[tuple[int, float]]], title: str, gap: float) -> None:
    """Lines on logarithmic axes, each with its name at the right, in its colour, at least `gap` of the height apart."""
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(True, which="major", color="#d9dee3", linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    drawn = {}
    for place, (arm, points) in enumerate(lines.items()):
        if points:
            x, y = zip(*points, strict=True)
            colour, dash = COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)]
            marker = MARKERS[place % len(MARKERS)]
            axes.plot(x, y, color=colour, linestyle=dash, linewidth=1.6, marker=marker, markersize=4.5)
            drawn[arm] = (points[-1], colour)
    axes.get_ylim()  # settles the limits, which the next lines depend on
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = {arm: float(to_axes.transform(point)[1]) for arm, (point, _) in drawn.items()}
    for arm, height in spread(heights, gap).items():
        point, colour = drawn[arm]
        axes.annotate(
            arm,
            xy=point,
            xytext=(1.03, height),
            textcoords="axes fraction",
            color=colour,
            fontsize=8.5,
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.5, "shrinkB": 4},
        )


def _grid_ticks(axes: Axes, grids: dict[int, str]) -> None:
    """Ticks where something was measured, named by the grid."""
    axes.set_xticks(sorted(grids), [grids[tokens].replace("x", "×") for tokens in sorted(grids)])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("tokens of one image")


def spread(heights: dict[str, float], gap: float) -> dict[str, float]:
    """Heights moved as little as it takes for labels, bottom up, to be `gap` apart and, if they can, within 0 and 1."""
    names = sorted(heights, key=lambda name: heights[name])
    placed: list[float] = []
    for name in names:
        placed.append(max(heights[name], placed[-1] + gap) if placed else max(heights[name], 0.0))
    ceiling = 1.0
    for place in reversed(range(len(placed))):
        placed[place] = min(placed[place], ceiling)
        ceiling = placed[place] - gap
    return dict(zip(names, placed, strict=True))
