"""The pictures of layers in sections, and their page: PNG files, and one HTML file that holds them all."""

from __future__ import annotations

import base64
import inspect
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from operators.errors import InputError
from operators.show import equation, equation_figures, figures, map_figures, maps
from operators.show.layers import Layer, State

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 110
MOST = 6
"""Layers that are drawn side by side; of more these are evenly over depth."""


@dataclass(frozen=True)
class Picture:
    """A PNG file: its name, its bytes, and what it shows in words."""

    file: str
    content: bytes
    alternative: str

    @property
    def address(self) -> str:
        """The picture as an address that holds it whole."""
        return f"data:image/png;base64,{base64.b64encode(self.content).decode()}"


@dataclass(frozen=True)
class Section:
    """A heading, what is to be said, and pictures."""

    title: str
    texts: Sequence[str]
    pictures: Sequence[Picture] = field(default_factory=tuple)


def some(layers: Sequence[Layer]) -> list[Layer]:
    """At most `MOST` layers, evenly over depth, the first and the last among them."""
    places = torch.linspace(0, len(layers) - 1, min(len(layers), MOST)).round().long()
    return [layers[place] for place in places.tolist()]


def sections(layers: Sequence[Layer]) -> Iterator[Section]:
    """All sections of a page; where a picture cannot be drawn, its section says why."""
    shown = some(layers)
    yield _responses(shown)
    yield _fields(shown)
    yield _spectra(shown)
    if len(layers) > 1:
        yield _distances(layers)
    yield from equations(layers)
    for layer in shown:
        yield from evolution(layer)
    for layer in shown:
        yield from _inspected(layer)


def overview(layers: Sequence[Layer]) -> list[Picture]:
    """What several layers have together: the pictures that a run draws again and again."""
    shown = some(layers)
    parts = [_fields(shown), _spectra(shown), _distances(layers), *equations(layers)]
    parts += [part for layer in shown for part in _inspected(layer, 1)]
    return [each for part in parts for each in part.pictures]


def _responses(shown: Sequence[Layer]) -> Section:
    return Section(
        "Impulse response",
        [
            "How the output changes for a small pulse in all channels of the middle token, per unit of the pulse. Each "
            "panel is over its own largest magnitude; white is zero; colours are linear up to 1 %, then logarithmic."
        ],
        [picture(f"response-{_slug(layer.title)}", figures.responses(layer)) for layer in shown],
    )


def _fields(shown: Sequence[Layer]) -> Section:
    return Section(
        "Effective receptive field",
        [
            "Mean squared gradient of the middle output with respect to each input token, over inputs of normal noise "
            "(Luo et al. 2016, arXiv 1701.04128). White tokens have no influence."
        ],
        [picture("receptive-field", figures.fields(shown))],
    )


def _spectra(shown: Sequence[Layer]) -> Section:
    return Section(
        "Spectrum",
        [
            "Size of the Fourier transform of the response, root mean square over channels; zero frequency in the "
            "middle. Where shifted inputs give shifted outputs it is the gain of waves."
        ],
        [picture("spectrum", figures.spectra(shown))],
    )


def _distances(layers: Sequence[Layer]) -> Section:
    return Section(
        "Mixing distance over depth",
        ["The mean distance from the pulse, weighted by the size of the response: 0 for a layer that mixes nothing."],
        [picture("mixing-distance", figures.distances(layers))],
    )


def equations(layers: Sequence[Layer]) -> Iterator[Section]:
    """Spots and coefficients of the layers that have equations, and why others have none."""
    drawn = [layer for layer in layers if equation.undrawn(layer.states[-1]) is None]
    reasons = {layer.title: equation.undrawn(layer.states[-1]) for layer in layers}
    refused = [f"{title} is not drawn. {reason}" for title, reason in reasons.items() if reason]
    if not drawn:
        if refused:
            yield Section("Diffusion and velocity", refused)
        return
    yield Section(
        "Diffusion and velocity",
        [
            "Each state of a layer moves a pulse by v τ and spreads it to an ellipse of semi-axes √(2 K τ), its "
            "standard deviations. The dotted frame is the grid.",
            *refused,
        ],
        [
            picture("spots", equation_figures.spot_panels(some(drawn))),
            picture("coefficients", equation_figures.coefficients(drawn)),
        ],
    )


def evolution(layer: Layer) -> Iterator[Section]:
    """A field under the equations of a layer, if it has some, or why that is not drawn."""
    if equation.undrawn(layer.states[-1]) is not None:
        return
    title = f"A field over time: {layer.title}"
    forcing = equation.spots(layer.states[-1]).forcing
    if forcing == "steady":
        yield Section(title, ["Not drawn: with steady forcing the field is the limit of long times, not of a time τ."])
        return
    source = "is the state at t = 0" if forcing == "initial" else "is a constant source, and the state at t = 0 is zero"
    try:
        strip, film = equation_figures.strip(layer), equation_figures.animation(layer)
    except InputError as error:
        yield Section(title, [f"Not drawn: {error}."])
        return
    slug = _slug(layer.title)
    words = f"Film of a field under the equations of {layer.title}"
    yield Section(
        title,
        [
            f"A square and a single token: the field {source}. Three states, from short to long √(2 K τ). Ripples are "
            "the grid's: what moves by a part of a token cannot stay sharp on it."
        ],
        [picture(f"evolution-{slug}", strip), Picture(f"film-{slug}.png", film, words)],
    )


def _inspected(layer: Layer, most: int | None = None) -> Iterator[Section]:
    """What `mixer.inspect` gives, state by state, or the first `most` of it; what is no map is listed."""
    pictures, texts = [], []
    for state in layer.states:
        drawn = set()
        for shown in islice(maps.drawable(state.named, state.grid), most):
            drawn.add(shown.name)
            title = f"{layer.title}, {state.name}" if state.name else layer.title
            figure = map_figures.draw(shown, title, state.grid)
            pictures.append(picture(f"map-{_slug(title)}-{shown.name}", figure))
        texts = [_rest(state, drawn)] if set(state.named) - drawn else []
    meaning = inspect.getdoc(layer.states[0].mixer.core.inspect) or ""
    if pictures:
        yield Section(f"Inside {layer.title}", [" ".join(meaning.replace("`", "").split()), *texts], pictures)


def _rest(state: State, drawn: set[str]) -> str:
    left = [f"{name} {tuple(value.shape)}" for name, value in state.named.items() if name not in drawn]
    return f"Not drawn here: {', '.join(left)}."


def picture(name: str, figure: Figure) -> Picture:
    """A figure as PNG, whose title says in words what it shows."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    title = figure.get_suptitle()
    return Picture(f"{name}.png", buffer.getvalue(), title)


def write(folder: Path, title: str, facts: Mapping[str, str], parts: Sequence[Section]) -> Path:
    """Write the pictures and `index.html` into a folder, made if need be; returns the path of the page.

    Raises:
        InputError: the folder cannot be written to.
    """
    from jinja2 import Environment

    source = files("operators.show").joinpath("page.html").read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True).from_string(source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for section in parts:
            for each in section.pictures:
                (folder / each.file).write_bytes(each.content)
        page = folder / "index.html"
        page.write_text(template.render(title=title, facts=facts, sections=parts), encoding="utf-8")
    except OSError as error:
        raise InputError(f"out: {folder} cannot be used: {error.strerror}") from error
    return page


def _slug(title: str) -> str:
    return "".join(letter if letter.isalnum() or letter == "_" else "-" for letter in title).replace("--", "-")
