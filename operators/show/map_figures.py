"""Figures of what `mixer.inspect` gives: attention, decays, kernels and gates, in one frame; matplotlib draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from operators.pages.drawing import FREQUENCIES, LIGHT, bar, frequencies
from operators.show.figures import LETTERS, name_axes, sheet, tokens
from operators.show.maps import OFFSETS, READS, TOKENS, WAVES, Curves, Maps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 4
"""Maps of a tensor that are drawn at most."""
AXES = {
    TOKENS: ("column (tokens)", "row (tokens)"),
    READS: ("columns from the reading token", "rows from the reading token"),
    OFFSETS: ("offset in columns (tokens)", "offset in rows (tokens)"),
    WAVES: ("along columns (cycles per token)", "along rows (cycles per token)"),
}
MEANINGS = {
    TOKENS: "by token",
    READS: "what the middle token reads of each token",
    OFFSETS: "by offset",
    WAVES: "by wave number",
}


def draw(shown: Maps | Curves, title: str, grid: tuple[int, int]) -> Figure:
    """The figure of one tensor of a mixer that stands on a grid; `title` names the layer and its state."""
    return _maps(shown, title, grid) if isinstance(shown, Maps) else _curves(shown, title)


def _maps(shown: Maps, title: str, grid: tuple[int, int]) -> Figure:
    count = len(shown.maps)
    chosen = torch.linspace(0, count - 1, min(count, COLUMNS)).round().long().tolist()
    # A kernel may be far smaller than the grid: its panels are as its own sides are.
    shape = tuple(shown.maps.shape[-2:]) if shown.frame == OFFSETS else grid
    some = f", {len(chosen)} of {count}" if count > len(chosen) else ""
    heading = f"{shown.name} of {title}: {MEANINGS[shown.frame]}{some}"
    figure, (panels,) = sheet(1, len(chosen), (shape[0], shape[1]), heading)
    values = shown.maps[chosen]
    signed = bool((values < 0).any())
    most = float(values.abs().max()) or 1.0
    extent, aspect = _frame(shown, grid)
    for panel, number, each in zip(panels, chosen, values, strict=True):
        image = panel.imshow(
            each.numpy(), cmap=LIGHT.signed if signed else LIGHT.amount, vmin=-most if signed else 0, vmax=most,
            extent=extent, aspect=aspect, interpolation="nearest",
        )  # fmt: skip
        if shown.frame == WAVES:
            left, right, bottom, top = extent
            panel.set_xticks([tick for tick in FREQUENCIES if left < tick < right])
            panel.set_yticks([tick for tick in FREQUENCIES if top < tick < bottom])
        else:
            tokens(panel)
        index = shown.index[number]
        if index:
            panel.set_title(f"[{', '.join(map(str, index))}]", color=LIGHT.text, fontsize=LETTERS)
    name_axes([panels], AXES[shown.frame], [""])
    bar(figure, image, panels, shown.name, LIGHT, LETTERS)
    return figure


def _frame(shown: Maps, grid: tuple[int, int]) -> tuple[tuple[float, float, float, float], float]:
    """Edges of a map and the height of a unit over its width."""
    rows, columns = shown.maps.shape[-2:]
    height, width = rows * shown.span[0], columns * shown.span[1]
    if shown.frame == WAVES:
        bottom, top = frequencies(grid[0])
        return (-0.5 / grid[1], (columns - 0.5) / grid[1], top, bottom), grid[0] / grid[1]
    if shown.frame == TOKENS:
        return (-0.5, width - 0.5, height - 0.5, -0.5), 1.0
    row, column = height // 2, width // 2
    return (-0.5 - column, width - 0.5 - column, height - 0.5 - row, -0.5 - row), 1.0


def _curves(shown: Curves, title: str) -> Figure:
    count = len(shown.values)
    chosen = torch.linspace(0, count - 1, min(count, COLUMNS)).round().long().tolist()
    some = f": {len(chosen)} of {count}" if count > len(chosen) else ""
    figure, ((panel,),) = sheet(1, 1, (2, 3), f"{shown.name} of {title}{some}")
    for style, number in zip(("-", "--", ":", "-."), chosen, strict=False):
        values = shown.values[number].numpy()
        if shown.along == "channel":
            panel.vlines(range(len(values)), 0, values, color=LIGHT.line)
        else:
            panel.plot(values, style, label=f"[{', '.join(map(str, shown.index[number]))}]" if count > 1 else None)
    panel.axhline(0, color=LIGHT.lines, linewidth=0.8)
    panel.set_xlabel(shown.along, color=LIGHT.text, fontsize=LETTERS)
    panel.set_ylabel(shown.name, color=LIGHT.text, fontsize=LETTERS)
    if count > 1:
        panel.legend(labelcolor=LIGHT.text, frameon=False, fontsize=LETTERS)
    return figure
