"""Pictures and times of mixers as figures: `operators.pictures` and the benchmark give the numbers, matplotlib draws.

Every figure has a transparent background and one of two sets of colours, for light and for dark pages. The colour maps
can be told apart by readers with any kind of colour vision, and keep their order in grey.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from operators.benchmark.table import Row
from operators.benchmark.workload import WORKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 150
PANELS = 4
"""Channels that a figure shows at most."""
LINEAR = 0.01
"""Impulse responses below this share of the peak have a linear scale of colours."""
FREQUENCIES = (-0.4, 0, 0.4)
"""Ticks of spectra, in cycles per token."""
DECADES = 6
"""The receptive field is drawn down to ten to the minus this of its peak."""


@dataclass(frozen=True)
class Theme:
    """Colours of a figure.

    Attributes:
        text: of letters and ticks.
        lines: of frames, and of what a mixer is compared with.
        line: of the mixer in diagrams.
        signed: colour map whose middle stands for zero and is close to the page.
        amount: colour map from little to much.
    """

    text: str
    lines: str
    line: str
    signed: str
    amount: str


LIGHT = Theme(text="#24292f", lines="#8c959f", line="#0b62a8", signed="RdBu_r", amount="cividis")
DARK = Theme(text="#e6e8eb", lines="#8c959f", line="#6cb6ff", signed="berlin", amount="cividis")
THEMES = {"light": LIGHT, "dark": DARK}


def draw_impulse_response(response: Tensor, theme: Theme, *, at: tuple[int, int] | None = None) -> Figure:
    """The first channels of a response (H, W, C), each over its own largest magnitude, centred at the pulse `at`.

    Colours are linear up to `LINEAR` and logarithmic above: tails stay visible beside the peak.
    """
    from matplotlib.colors import SymLogNorm

    height, width, channels = response.shape
    extent = from_token(height, width, at)
    figure, panels = _panels(min(channels, PANELS), theme)
    for channel, panel in enumerate(panels):
        values = response[..., channel].detach().cpu().double()
        peak = float(values.abs().max())
        shown = (values / peak if peak else values).numpy()
        norm = SymLogNorm(linthresh=LINEAR, vmin=-1, vmax=1)
        image = panel.imshow(shown, cmap=theme.signed, norm=norm, extent=extent, interpolation="nearest")
        panel.set_title(f"channel {channel}: peak {peak:.2g}", color=theme.text, fontsize=11)
    count_tokens(panels)
    label(panels, "columns from the pulse (tokens)", "rows from the pulse (tokens)", theme)
    bar(figure, image, panels, "response / largest magnitude", theme)
    return figure


def draw_receptive_field(field: Tensor, theme: Theme, *, at: tuple[int, int] | None = None) -> Figure:
    """A receptive field (H, W) on a logarithmic scale; tokens without any influence stay blank."""
    height, width = field.shape
    extent = from_token(height, width, at)
    figure, (panel,) = _panels(1, theme)
    values = field.detach().cpu().double()
    logarithm = (values / values.max()).clamp_min(10.0**-DECADES).log10().masked_fill(values == 0, torch.nan)
    image = panel.imshow(
        logarithm.numpy(), cmap=theme.amount, vmin=-DECADES, vmax=0, extent=extent, interpolation="nearest"
    )
    seen = int((values > 0).sum())
    panel.set_title(f"{seen} of {values.numel()} tokens reach the output", color=theme.text, fontsize=11)
    count_tokens([panel])
    label([panel], "columns from the output token", "rows from the output token", theme)
    bar(figure, image, [panel], "log₁₀ (mean squared gradient / peak)", theme)
    return figure


def draw_spectrum(transfer: Tensor, theme: Theme) -> Figure:
    """Magnitudes |G(k)| of the first channels of a transfer function (H, W, C), zero frequency in the middle."""
    height, width, channels = transfer.shape
    figure, panels = _panels(min(channels, PANELS), theme)
    gains = torch.fft.fftshift(transfer.detach().cpu().abs().double(), dim=(0, 1))[..., : len(panels)]
    (bottom, top), (left, right) = (frequencies(side) for side in (height, width))
    most = float(gains.max())
    for channel, panel in enumerate(panels):
        image = panel.imshow(
            gains[..., channel].numpy(), cmap=theme.amount, vmin=0, vmax=most, extent=(left, right, top, bottom)
        )
        panel.set_title(f"channel {channel}", color=theme.text, fontsize=11)
        panel.set_xticks(FREQUENCIES)
        panel.set_yticks(FREQUENCIES)
    label(panels, "along columns (cycles per token)", "along rows (cycles per token)", theme)
    bar(figure, image, panels, "gain |G(k)|", theme)
    return figure


def draw_times(rows: Sequence[Row], reference: Sequence[Row], theme: Theme) -> Figure:
    """Times of a mixer and of the reference against the number of tokens, forward and with gradients, in two panels."""
    figure, panels = _panels(len(WORKS), theme)
    for panel, work in zip(panels, WORKS, strict=True):
        compared = [] if reference == rows else reference
        for source, colour, mark in ((compared, theme.lines, "s"), (rows, theme.line, "o")):
            chosen = [row for row in source if row.work == work]
            if chosen:
                tokens, times = [row.tokens for row in chosen], [1e3 * row.seconds for row in chosen]
                panel.loglog(tokens, times, marker=mark, color=colour, label=chosen[0].arm)
        panel.set_xticks(sorted({row.tokens for row in rows}), [str(n) for n in sorted({row.tokens for row in rows})])
        panel.minorticks_off()
        panel.set_title(work, color=theme.text, fontsize=11)
        panel.legend(labelcolor=theme.text, frameon=False)
    label(panels, "tokens", "milliseconds", theme)
    return figure


def png(figure: Figure) -> bytes:
    """A figure as PNG with a transparent background."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, transparent=True)
    return buffer.getvalue()


def frequencies(side: int) -> tuple[float, float]:
    """First and last edge of the cells of `fftshift`, in cycles per token."""
    return (-(side // 2) - 0.5) / side, ((side - 1) // 2 + 0.5) / side


def _panels(count: int, theme: Theme) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    columns = 1 if count == 1 else 2
    rows = -(-count // columns)
    size = (5.2, 4.3) if count == 1 else (5.8, 2.6 * rows + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    for spare in grid[count:]:
        spare.remove()
    for panel in grid[:count]:
        dress(panel, theme)
    return figure, list(grid[:count])


def dress(panel: Axes, theme: Theme, size: float = 10) -> None:
    """Ticks, letters of that size and frame of a panel in the theme's colours, on a transparent ground."""
    panel.tick_params(colors=theme.text, labelsize=size)
    panel.patch.set_alpha(0)
    for spine in panel.spines.values():
        spine.set_color(theme.lines)


def from_token(height: int, width: int, at: tuple[int, int] | None = None) -> tuple[float, float, float, float]:
    """Edges (left, right, bottom, top) of an image of tokens in which the token `at`, or the middle one, is zero."""
    row, column = (height // 2, width // 2) if at is None else at
    return -0.5 - column, width - 0.5 - column, height - 0.5 - row, -0.5 - row


def count_tokens(panels: Sequence[Axes]) -> None:
    """Ticks at whole tokens."""
    for panel in panels:
        panel.locator_params(integer=True, nbins=5)


def label(panels: Sequence[Axes], across: str, down: str, theme: Theme) -> None:
    """Name the axes of all panels at once."""
    figure = panels[0].get_figure()
    assert figure is not None
    figure.supxlabel(across, color=theme.text, fontsize=11)
    figure.supylabel(down, color=theme.text, fontsize=11)


def bar(figure: Figure, image: Any, panels: Sequence[Axes], text: str, theme: Theme, size: float = 11) -> None:
    """A bar beside the panels that says what the colours of `image` stand for, in letters of that size."""
    made = figure.colorbar(image, ax=panels, shrink=0.9)
    made.set_label(text, color=theme.text, fontsize=size)
    made.ax.tick_params(colors=theme.text, labelsize=size - 1)
    made.outline.set_edgecolor(theme.lines)
