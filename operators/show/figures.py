"""Figures of layers: responses, receptive fields and spectra, each readable by itself; matplotlib draws."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from operators.pages.drawing import DECADES, FREQUENCIES, LIGHT, LINEAR, bar, dress, frequencies, from_token
from operators.response import magnitude
from operators.show.layers import START, Layer, State, gain, mixing_distance

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHANNELS = 4
"""Channels of a response that are drawn."""
WIDTH, LEAST, MOST = 2.1, 1.1, 3.0
"""Inches: of a panel, and its least and greatest height."""
LEAST_WIDTH = 5.4
"""Inches: of a figure."""
LETTERS, LETTERS_PER_INCH = 9, 13.5
"""Size of letters, and how many of a title fit."""
FROM_PULSE = ("columns from the pulse (tokens)", "rows from the pulse (tokens)")
FROM_OUTPUT = ("columns from the output token", "rows from the output token")
WAVES = ("along columns (cycles per token)", "along rows (cycles per token)")
COLOURS = {"": LIGHT.line, START: "#8c959f"}
"""Of what is compared over depth, by the state; every other is as a mixer alone."""


def sheet(
    rows: int, columns: int, shape: tuple[int, int], title: str, *, share: bool = True
) -> tuple[Figure, list[list[Axes]]]:
    """A figure with a title and panels of equal size for grids of a shape; `share`: all have the same axes."""
    from matplotlib.figure import Figure

    height = min(max(WIDTH * shape[0] / shape[1], LEAST), MOST)
    width = min(max(height * shape[1] / shape[0], LEAST), MOST) if share else WIDTH + 0.2
    # Names of axes, the bar of colours and the title need room of their own.
    size = (max((width + 0.25) * columns + 1.9, LEAST_WIDTH), (height + 0.4) * rows + 0.9)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)
    for panel in panels.flatten():
        dress(panel, LIGHT, LETTERS)
    lines = textwrap.wrap(title, int(size[0] * LETTERS_PER_INCH))
    figure.suptitle("\n".join(lines), color=LIGHT.text, fontsize=LETTERS + 1)
    return figure, [list(row) for row in panels]


def name_axes(panels: Sequence[Sequence[Axes]], names: tuple[str, str], rows: Sequence[str]) -> None:
    """Name the axis across below the last row, the axis down at the first column, each row with its own name."""
    figure = panels[0][0].get_figure()
    assert figure is not None
    if len(panels[0]) == 1:
        panels[-1][0].set_xlabel(names[0], color=LIGHT.text, fontsize=LETTERS)
    else:
        figure.supxlabel(names[0], color=LIGHT.text, fontsize=LETTERS)
    for row, name in zip(panels, rows, strict=True):
        down = f"{name}\n{names[1]}" if name else names[1]
        row[0].set_ylabel(down, color=LIGHT.text, fontsize=LETTERS)


def tokens(panel: Axes) -> None:
    """Ticks at whole tokens."""
    panel.locator_params(integer=True, nbins=5)


def from_zero(panel: Axes) -> None:
    """Let an axis of amounts start at zero, with room above the highest."""
    panel.set_ylim(0, 1.08 * panel.dataLim.y1 or 1)


def responses(layer: Layer) -> Figure:
    """Responses of some channels, each over its own largest magnitude; a row for each state of the layer."""
    from matplotlib.colors import SymLogNorm

    first = layer.states[0].response
    chosen = torch.linspace(0, first.shape[-1] - 1, min(first.shape[-1], CHANNELS)).round().long().tolist()
    figure, panels = sheet(
        len(layer.states), len(chosen), layer.states[0].grid, f"Response of {layer.title} to a pulse in the middle"
    )
    image: Any = None
    for state, row in zip(layer.states, panels, strict=True):
        extent = from_token(*state.grid)
        for channel, panel in zip(chosen, row, strict=True):
            values = state.response[..., channel].detach().cpu().double()
            peak = float(values.abs().max())
            image = panel.imshow(
                (values / peak if peak else values).numpy(),
                cmap=LIGHT.signed,
                norm=SymLogNorm(linthresh=LINEAR, vmin=-1, vmax=1),
                extent=extent,
                interpolation="nearest",
            )
            panel.set_title(f"channel {channel}\npeak {peak:.2g}", color=LIGHT.text, fontsize=LETTERS)
            tokens(panel)
    name_axes(panels, FROM_PULSE, [described(state) for state in layer.states])
    bar(figure, image, [p for row in panels for p in row], "response / panel's largest magnitude", LIGHT, LETTERS)
    return figure


def described(state: State) -> str:
    """The state's name and how far it mixes."""
    distance = f"mixing distance {mixing_distance(magnitude(state.response)):.1f} tokens"
    return f"{state.name}\n{distance}" if state.name else distance


def over_layers(
    layers: Sequence[Layer], title: str, names: tuple[str, str], paint: Callable[[Axes, State], tuple[Any, str]],
    colours: str,
) -> Figure:  # fmt: skip
    """A column for each layer, a row for each state; `paint` draws a panel, and gives its image and its title."""
    states = [state.name for state in layers[0].states]
    share = len({layer.states[0].grid for layer in layers}) == 1
    figure, panels = sheet(len(states), len(layers), layers[0].states[0].grid, title, share=share)
    image: Any = None
    for column, layer in enumerate(layers):
        for row, state in zip(panels, layer.states, strict=True):
            image, text = paint(row[column], state)
            heading = f"{layer.title}\n{text}" if len(layers) > 1 else text
            row[column].set_title(heading, color=LIGHT.text, fontsize=LETTERS)
    name_axes(panels, names, states)
    bar(figure, image, [panel for row in panels for panel in row], colours, LIGHT, LETTERS)
    return figure


def of(layers: Sequence[Layer]) -> str:
    """Words for the title of a figure of these layers."""
    return f" of {layers[0].title}" if len(layers) == 1 else " of the layers"


def fields(layers: Sequence[Layer]) -> Figure:
    """Effective receptive fields on a logarithmic scale; tokens without any influence stay blank."""

    def paint(panel: Axes, state: State) -> tuple[Any, str]:
        values = state.field.detach().cpu().double()
        logarithm = (values / values.max()).clamp_min(10.0**-DECADES).log10().masked_fill(values == 0, torch.nan)
        panel.set_facecolor("white")
        image = panel.imshow(
            logarithm.numpy(), cmap=LIGHT.amount, vmin=-DECADES, vmax=0, extent=from_token(*state.grid),
            interpolation="nearest",
        )  # fmt: skip
        tokens(panel)
        return image, f"{int((values > 0).sum())} of {values.numel()} tokens"

    title = f"Effective receptive field{of(layers)}: what reaches the middle output"
    return over_layers(layers, title, FROM_OUTPUT, paint, "log₁₀ (mean squared gradient / peak)")


def spectra(layers: Sequence[Layer]) -> Figure:
    """Root mean square over channels of |G(k)| of responses, zero frequency in the middle, over each one's largest."""

    def paint(panel: Axes, state: State) -> tuple[Any, str]:
        gains = torch.fft.fftshift(magnitude(gain(state.response).double().cpu()), dim=(0, 1))
        (bottom, top), (left, right) = (frequencies(side) for side in state.grid)
        most = float(gains.max())
        image = panel.imshow(
            (gains / most if most else gains).numpy(), cmap=LIGHT.amount, vmin=0, vmax=1,
            extent=(left, right, top, bottom), aspect=state.grid[0] / state.grid[1], interpolation="nearest",
        )  # fmt: skip
        panel.set_xticks([tick for tick in FREQUENCIES if left < tick < right])
        panel.set_yticks([tick for tick in FREQUENCIES if bottom < tick < top])
        return image, f"largest |G| {most:.2g}"

    title = f"Spectrum |G(k)|{of(layers)}: gain of waves in the linearised response"
    return over_layers(layers, title, WAVES, paint, "|G| / largest, rms over channels")


def distances(layers: Sequence[Layer]) -> Figure:
    """Mixing distances over depth in pixels of the image, or in tokens where there is none; one line for each state."""
    figure, ((panel,),) = sheet(1, 1, (2, 3), "How far layers mix: mean distance weighted by the response")
    unit = "tokens" if layers[0].pixels is None else "pixels of the image"
    for number, state in enumerate(layers[0].states):
        heights = [
            mixing_distance(magnitude(layer.states[number].response), layer.pixels or (1.0, 1.0)) for layer in layers
        ]
        colour = COLOURS.get(state.name, LIGHT.line)
        panel.plot(range(len(layers)), heights, "o-" if state.name != START else "s--", color=colour, label=state.name)
    panel.set_xticks(range(len(layers)), [layer.title.replace(": ", "\n") for layer in layers], fontsize=LETTERS - 1)
    from_zero(panel)
    panel.set_ylabel(f"mixing distance ({unit})", color=LIGHT.text, fontsize=LETTERS)
    if len(layers[0].states) > 1:
        panel.legend(labelcolor=LIGHT.text, frameon=False, fontsize=LETTERS)
    return figure
