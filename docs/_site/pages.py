"""The page of a mixer, written from its card, its docstring and its pictures."""

from __future__ import annotations

import inspect
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

import operators
from operators import BARE, COMMON, InputError, Mixer, MixerCard, drawing, pictures, registry
from operators.__main__ import paper, properties

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

DIM = 64
GRID = (17, 17)
COST_DIM = 192
COST_GRIDS = ((14, 14), (32, 32), (64, 64))
ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
REPOSITORY = re.compile(r"\b([A-Za-z0-9-]+/[A-Za-z0-9_.-]+) at ([0-9a-f]{7,40})\b")
REPRESENTATION = {True: "yes", False: "no", None: "no"}


@dataclass(frozen=True)
class Page:
    """A page's text, and its figures by the names of picture and theme."""

    markdown: str
    figures: dict[str, dict[str, Figure]]


def overview() -> str:
    """All mixers in one table, each row with a link to its page."""
    rows = []
    for name in operators.names():
        card = operators.describe(name)
        rows.append((f"[`{name}`]({name}.md)", card.title, properties(card), linked(paper(card)), f"`{file_of(name)}`"))
    return f"""# The mixers

Every mixer maps a grid `(B, H, W, C)` to a grid of the same shape. Each has a *card* that states what it is and what it
promises. Tests verify every property, where the card claims it and where the card denies it. The pages below are
generated from the cards, so a mixer of your own package that is installed here has a page too.

{table(("name", "mixer", "properties", "paper", "file"), rows)}

How to read the properties:

* **position-aware**: the mixer uses where tokens are. Otherwise positions must come from the trunk.
* **permutation-equivariant**: permuted tokens give permuted outputs.
* **shift-equivariant**: shifted tokens give shifted outputs, for wrapped shifts (`circular`) or away from the border
  (`interior`).
* **linear**: the core is linear in its input, up to a constant.
* **fixed grid**: parameters or buffers depend on the grid.
* **float32 core**: the core computes in float32 under autocast.

In a terminal, `python -m operators` prints this table with costs, and `python -m operators describe NAME` one card.
"""


def mixer_page(name: str) -> Page:
    """The page of mixer `name` with its pictures; where a picture cannot be made, the page says why."""
    core = registry.core_class(name)
    card = core.card
    figures, illustrations = illustrate(name)
    parts = [
        f"# `{name}`: {card.title}",
        f"```text\n{card.equation}\n```",
        facts(name, card),
        f"```bash\npython run.py mixer={name}\npython -m operators describe {name}\n```",
        "## Pictures",
        PICTURES_INTRODUCTION,
        *illustrations,
        "## Properties",
        properties_table(card),
        "## Parameters",
        parameters(card),
        DOCSTRING.format(path=f"{core.__module__}.{core.__qualname__}"),
        "## Cost",
        cost(name),
        "## Shells",
        shells(card),
        "## Backends",
        backends(card),
    ]
    if card.published:
        rows = [(n.model, n.quantity, f"{n.value:g}", n.source) for n in card.published]
        parts += [
            "## Published numbers",
            "What the authors report for their own models and training. These numbers are not measured here.",
            table(("model", "quantity", "value", "source"), rows),
        ]
    if card.exempt:
        rows = [(f"`{test}`", reason) for test, reason in card.exempt.items()]
        parts += [
            "## Exemptions",
            "Contract tests that this mixer does not have to pass.",
            table(("test", "why"), rows),
        ]
    return Page("\n\n".join(parts) + "\n", figures)


DOCSTRING = """::: {path}
    options:
      heading_level: 3
      members: false
      show_bases: false
      show_root_full_path: true"""
PICTURES_INTRODUCTION = (
    f"The core alone (bare shell) as it is initialised, with {DIM} channels, on {GRID[0]} × {GRID[1]} tokens, default "
    "parameters, seed 0. Training changes these pictures; `operators.pictures` makes them for any mixer."
)


def illustrate(name: str) -> tuple[dict[str, dict[str, Figure]], list[str]]:
    """Figures by picture and theme, and the Markdown that shows them."""
    torch.manual_seed(0)
    mixer = operators.create(name, DIM, grid=GRID, cond_dim=DIM, shell=BARE)
    cond = torch.zeros(DIM) if mixer.core.needs_cond else None
    figures: dict[str, dict[str, Figure]] = {}
    texts = []

    background, setting = None, "It does not depend on the input, up to a constant."
    if not mixer.card.linear:
        background = torch.randn(*GRID, DIM)
        setting = "This mixer is not linear: the response is that to a pulse of size 1 on a background of normal noise."
    response = pictures.impulse_response(mixer, GRID, background=background, cond=cond)
    figures["impulse"] = {k: drawing.draw_impulse_response(response, theme) for k, theme in drawing.THEMES.items()}
    text = "What a unit in all channels of the centre token adds to the output."
    texts.append(picture(name, "impulse", "Impulse response", f"{text} {setting}"))

    field = pictures.receptive_field(mixer, GRID, cond=cond)
    figures["receptive-field"] = {k: drawing.draw_receptive_field(field, theme) for k, theme in drawing.THEMES.items()}
    text = (
        "Mean squared gradient of the centre output with respect to each input token, over random inputs "
        "([Luo et al. 2016](https://arxiv.org/abs/1701.04128)). Blank tokens have no influence at all."
    )
    texts.append(picture(name, "receptive-field", "Effective receptive field", text))

    try:
        transfer = pictures.spectrum(mixer, GRID, cond=cond)
    except InputError as error:
        texts.append(f"### Spectrum\n\nNot drawn: {error}.")
    else:
        figures["spectrum"] = {k: drawing.draw_spectrum(transfer, theme) for k, theme in drawing.THEMES.items()}
        text = "Gain of a plane wave of wave number k. Zero frequency is in the middle."
        texts.append(picture(name, "spectrum", "Spectrum", text))
    return figures, texts


def picture(name: str, kind: str, title: str, text: str) -> str:
    """A heading, a sentence and the picture for either colour scheme."""
    images = "".join(f"![{title} of {name}]({name}-{kind}-{theme}.png#only-{theme})" for theme in drawing.THEMES)
    return f"### {title}\n\n{text}\n\n{images}"


def facts(name: str, card: MixerCard) -> str:
    """Where the mixer is from and where its code is."""
    rows = [("paper", f"{linked(card.source)} ({card.year})"), ("file", f"`{file_of(name)}`")]
    return table(("", ""), rows)


def properties_table(card: MixerCard) -> str:
    """Every property of the card, claimed or denied."""
    rows = [
        ("position-aware", REPRESENTATION[card.position_aware]),
        ("permutation-equivariant", REPRESENTATION[card.permutation_equivariant]),
        ("translation-equivariant", card.translation_equivariant or "no"),
        ("linear", REPRESENTATION[card.linear]),
        ("causal along", card.causal_along or "no order"),
        ("grid", "fixed at construction" if card.fixed_grid else "any"),
        ("smallest grid", f"{card.min_grid[0]} × {card.min_grid[1]}"),
        ("output grows with the number of tokens", REPRESENTATION[card.extensive]),
        ("float32 under autocast", REPRESENTATION[card.fp32_core]),
    ]
    return "Of the core alone, with default parameters.\n\n" + table(("property", "value"), rows)


def parameters(card: MixerCard) -> str:
    """Defaults of the mixer's own parameters."""
    if not card.defaults:
        return "This mixer has no parameters of its own."
    prefix = "pde" if card.name == "pde_ssm" else "mixer"
    rows = [(f"`{prefix}.{key}`", f"`{value!r}`") for key, value in card.defaults.items()]
    return table(("option of `run.py`", "default"), rows)


def cost(name: str) -> str:
    """What `mixer.cost` counts on several grids, in the common shell."""
    rows = []
    for grid in COST_GRIDS:
        mixer: Mixer = operators.create(name, COST_DIM, grid=grid, cond_dim=COST_DIM)
        counted = mixer.cost(*grid)
        values = (counted.projection_macs, counted.mixing_macs, counted.state_elements, counted.parameters)
        rows.append((f"{grid[0]} × {grid[1]}", *(f"{value:,}" for value in values)))
    columns = ("tokens", "projection MACs", "mixing MACs", "state elements", "parameters")
    text = (
        f"For one image, {COST_DIM} channels, common shell. A counter that sees every product, convolution, transform "
        "and scan confirms the formulas. Measured times are in [the operators' results](../results/operators.md); "
        f"`python -m operators.benchmark --mixers {name}` measures them on your machine."
    )
    return f"{text}\n\n{table(columns, rows, right=range(1, 5))}"


def shells(card: MixerCard) -> str:
    """The switches of every shell preset of the mixer."""
    presets = {"common": COMMON, **card.shells}
    rows: list[tuple[str, ...]] = []
    for switch in asdict(COMMON):
        rows.append((f"`{switch}`", *(plain(getattr(spec, switch)) for spec in presets.values())))
    for parameter in sorted({key for meant in card.preset_params.values() for key in meant}):
        values = (card.preset_params.get(preset, {}).get(parameter, card.defaults[parameter]) for preset in presets)
        rows.append((f"`mixer.{parameter}`", *(plain(value) for value in values)))
    return table(("switch", *(f"`shell={preset}`" for preset in presets)), rows)


def backends(card: MixerCard) -> str:
    """The names that `mixer.backend` takes."""
    names = ", ".join(f"`{backend}`" for backend in card.backends)
    return f"`mixer.backend=auto`, or one of {names}. `metrics.json` names the backend that served a run."


def plain(value: Any) -> str:
    """A value as the command line writes it."""
    return "null" if value is None else str(value).lower()


def linked(text: str) -> str:
    """The text with arXiv numbers and repositories at a commit as links."""
    text = ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", text)
    return REPOSITORY.sub(r"[\1 at \2](https://github.com/\1/tree/\2)", text)


def file_of(name: str) -> str:
    """The file of a mixer's core, from the package's folder on."""
    core = registry.core_class(name)
    parts = core.__module__.split(".")
    package = inspect.getmodule(core)
    is_package = package is not None and hasattr(package, "__path__")
    return "/".join(parts) + ("/__init__.py" if is_package else ".py")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """A Markdown table; cells may hold Markdown, a bar in them is escaped."""
    rule = ["---:" if index in right else "---" for index in range(len(columns))]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [list(columns), rule, *cells])
