"""Figures of layers with equations: spots, coefficients over depth, and films of a field; matplotlib draws."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from operators.mixers.equations.pde_ssm import PdeSsm
from operators.pages.drawing import LIGHT, bar
from operators.show.equation import QUANTILES, Spots, example_field, film, spots
from operators.show.figures import COLOURS, FROM_PULSE, LETTERS, from_zero, name_axes, of, sheet, tokens
from operators.show.layers import START, Layer, State

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 10
"""Spots in a panel, more of them from the longer half of the states: the short ones lie on one another."""
REACH = 1.5
"""Half sides of the grid that a panel of spots shows at most."""
LINEAR = 0.1
"""Fields below this share of their highest value at the start have a linear scale of colours."""
STRIP = (0.0, 0.25, 0.5, 0.75, 1.0)
FRAMES = 21
"""Of a film, evenly over τ."""
DURATION, STAY = 120, 1200
"""Milliseconds of a frame, and of the last one."""
DOTS_PER_INCH = 80


def spot_panels(layers: Sequence[Layer]) -> Figure:
    """Where a pulse goes and how it spreads, state by state: arrows v τ, and at their ends ellipses of √(2 K τ)."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    states = [state.name for state in layers[0].states]
    title = f"What a pulse becomes in states{of(layers)}: arrow v τ, ellipse √(2 K τ)"
    share = len({layer.states[0].grid for layer in layers}) == 1
    figure, panels = sheet(len(states), len(layers), layers[0].states[0].grid, title, share=share)
    for column, layer in enumerate(layers):
        reach = torch.zeros(2)
        last = spots(layer.states[-1])  # of earlier times, the same states
        which = last.chosen(torch.linspace(0, 1, min(SHOWN, len(last.weights))).sqrt().tolist())
        for row, state in zip(panels, layer.states, strict=True):
            text, far = paint_spots(row[column], state, which)
            heading = f"{layer.title}\n{text}" if len(layers) > 1 else text
            row[column].set_title(heading, color=LIGHT.text, fontsize=LETTERS)
            reach = torch.maximum(reach, far)
        half = torch.tensor(layer.states[0].grid) / 2
        down, across = torch.minimum(1.04 * reach, REACH * half).tolist()
        for row in panels:
            left, right = row[column].get_xlim() if share and column else (0.0, 0.0)
            bottom, top = row[column].get_ylim() if share and column else (0.0, 0.0)
            row[column].set_xlim(min(left, -across), max(right, across))
            row[column].set_ylim(max(bottom, down), min(top, -down))  # rows run down
    name_axes(panels, FROM_PULSE, states)
    colours = ScalarMappable(Normalize(0, 1), cmap="viridis_r")
    bar(figure, colours, [panel for row in panels for panel in row], "weight |w| / largest shown", LIGHT, LETTERS)
    return figure


def paint_spots(panel: Axes, state: State, which: Tensor) -> tuple[str, Tensor]:
    """Draw the spots `which` of a layer and the frame of its grid; say how many, and their reach (rows, columns)."""
    from matplotlib import colormaps
    from matplotlib.patches import Ellipse, Rectangle

    made = spots(state)
    weights = made.weights[which] / made.weights[which].max().clamp_min(1e-12)
    semi, directions = made.axes
    height, width = state.grid
    panel.add_patch(Rectangle((-width / 2, -height / 2), width, height, fill=False, color=LIGHT.lines, linestyle=":"))
    reach = torch.tensor([height / 2, width / 2])
    for number, weight in zip(which.tolist(), weights.tolist(), strict=True):
        colour = colormaps["viridis_r"](weight)
        row, column = made.shifts[number].tolist()
        down, across = directions[number, 0].tolist()
        long, short = (2 * semi[number]).tolist()
        angle = math.degrees(math.atan2(down, across))
        panel.add_patch(Ellipse((column, row), long, short, angle=angle, fill=False, edgecolor=colour, linewidth=1.3))
        panel.annotate(
            "", (column, row), (0, 0),
            arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0},
            annotation_clip=False, clip_on=True,
        )  # fmt: skip
        reach = torch.maximum(reach, (made.shifts[number].abs() + semi[number].max()).to(reach))
    panel.set_aspect("equal")
    tokens(panel)
    return f"{len(which)} of {len(made.weights)} states", reach


def coefficients(layers: Sequence[Layer]) -> Figure:
    """Lengths, distances and decays of the states over depth: median, quarters and nine tenths of them."""
    quantities = {
        "length √(2 K τ) (tokens)": lambda made: made.axes[0].flatten(),
        "distance |v| τ (tokens)": lambda made: made.speeds,
        "decay −r τ": lambda made: made.decays,
    }
    figure, (panels,) = sheet(
        1, 3, (1, 1), f"Coefficients{of(layers)}: median, middle half, nine tenths of the states", share=False
    )
    states = [state.name for state in layers[0].states]
    for place, name in enumerate(states):
        colour = COLOURS.get(name, LIGHT.line)
        for depth, layer in enumerate(layers):
            made = spots(layer.states[place])
            at = depth + (0.18 * (2 * place - 1) if len(states) > 1 else 0)
            for panel, value in zip(panels, quantities.values(), strict=True):
                low, below, middle, above, high = _quantiles(value(made))
                panel.plot([at, at], [low, high], color=colour, linewidth=1)
                panel.plot([at, at], [below, above], color=colour, linewidth=4)
                mark = "s" if name == START else "o"
                label = name if panel is panels[0] and depth == 0 else None
                panel.plot([at], [middle], mark, color=colour, markeredgecolor="white", label=label)
    for panel, name in zip(panels, quantities, strict=True):
        panel.set_title(name, color=LIGHT.text, fontsize=LETTERS)
        panel.set_xlim(-0.6, len(layers) - 0.4)
        from_zero(panel)
        panel.set_xticks(range(len(layers)), [layer.title.split(":")[0].removeprefix("layer ") for layer in layers])
    if len(layers) > 1:
        figure.supxlabel("layer", color=LIGHT.text, fontsize=LETTERS)
    if len(states) > 1:
        figure.legend(labelcolor=LIGHT.text, frameon=False, fontsize=LETTERS, loc="outside lower right")
    return figure


def _quantiles(values: Tensor) -> list[float]:
    shares = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=values.dtype)
    return values.quantile(shares).tolist()


def _stage(state: State, times: Sequence[float]) -> tuple[Spots, Tensor, Tensor]:
    made = spots(state)
    which = made.chosen(QUANTILES)
    return made, which, film(made, which, example_field(*state.grid), times)


def _heading(made: Spots, state: State, number: int) -> str:
    core = state.mixer.core
    assert isinstance(core, PdeSsm)
    part, states = "channel" if core.condition == "none" else "group", core.agreed.states
    long, speed = float(made.axes[0][number, 0]), float(made.speeds[number])
    return f"{part} {number // states}, state {number % states}\n√(2Kτ) {long:.1f}, |v|τ {speed:.1f} tokens"


def strip(layer: Layer) -> Figure:
    """A field at several times, one row for each of some states from short to long lengths."""
    state = layer.states[-1]
    made, which, frames = _stage(state, STRIP)
    name = f"{layer.title}, {state.name}" if state.name else layer.title
    title = f"A field under the equations of {name}, over the layer's time τ"
    figure, panels = sheet(len(which), len(STRIP), state.grid, title)
    image: Any = None
    for row, fields in enumerate(frames.unbind(1)):
        for column, time in enumerate(STRIP):
            panel = panels[row][column]
            image = _paint(panel, fields[column])
            if row == 0:
                panel.set_title(f"t = {time:g} τ", color=LIGHT.text, fontsize=LETTERS)
    names = [_heading(made, state, number) for number in which.tolist()]
    name_axes(panels, ("column (tokens)", "row (tokens)"), names)
    bar(figure, image, [panel for row in panels for panel in row], "field / largest given value", LIGHT, LETTERS)
    return figure


def animation(layer: Layer) -> bytes:
    """The same as a film, an animated PNG that starts again and again."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    state = layer.states[-1]
    times = torch.linspace(0, 1, FRAMES).tolist()
    made, which, frames = _stage(state, times)
    figure, (panels,) = sheet(1, len(which), state.grid, f"{layer.title}: t = 0.00 τ")
    images = [_paint(panel, field) for panel, field in zip(panels, frames[0], strict=True)]
    for panel, number in zip(panels, which.tolist(), strict=True):
        panel.set_title(_heading(made, state, number), color=LIGHT.text, fontsize=LETTERS)
    name_axes([panels], ("column (tokens)", "row (tokens)"), [""])
    bar(figure, images[0], panels, "field / largest given value", LIGHT, LETTERS)
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(DOTS_PER_INCH)
    moving = [figure.suptitle(f"{layer.title}: t = 0.00 τ", color=LIGHT.text, fontsize=LETTERS + 1), *images]
    edges = [spine for panel in panels for spine in panel.spines.values()]  # over the images' edges
    for artist in moving:
        artist.set_animated(True)
    canvas.draw()
    still = canvas.copy_from_bbox(figure.bbox)  # what no frame changes
    pages = []
    for time, fields in zip(times, frames, strict=True):
        canvas.restore_region(still)
        moving[0].set_text(f"{layer.title}: t = {time:.2f} τ")
        for image, field in zip(images, fields, strict=True):
            image.set_data(field.numpy())
        for artist in [*moving, *edges]:
            figure.draw_artist(artist)
        pages.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    buffer = io.BytesIO()
    durations = [DURATION] * (len(pages) - 1) + [STAY]
    pages[0].save(buffer, "PNG", save_all=True, append_images=pages[1:], duration=durations, loop=0)
    return buffer.getvalue()


def _paint(panel: Axes, field: Tensor) -> Any:
    from matplotlib.colors import SymLogNorm

    norm = SymLogNorm(linthresh=LINEAR, vmin=-1, vmax=1)
    image = panel.imshow(field.numpy(), cmap=LIGHT.signed, norm=norm, interpolation="nearest")
    tokens(panel)
    return image
