"""The page of a mixer as Markdown, from its card, its docstring, its pictures and its times."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

import operators
from operators import BARE, COMMON, InputError, Mixer, MixerCard, pictures, registry
from operators.__main__ import allowed_values, as_written, meanings, paper, properties
from operators.benchmark.table import Row
from operators.benchmark.workload import BOTH, FORWARD
from operators.pages import drawing, timing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIM = 64
GRID = (17, 17)
COST_DIM = 192
COST_GRIDS = ((14, 14), (32, 32), (64, 64))
ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
REPOSITORY = re.compile(r"\b([\w-]+/[\w.-]+)(?: ([\w./-]+\.(?:py|md)))?(?: at ([0-9a-f]{7,40}))?\b")
SECTION = re.compile(r"^(Args|Raises|Source|Returns|Attributes):$", re.MULTILINE)
YES_OR_NO = {True: "yes", False: "no", None: "no"}


@dataclass(frozen=True)
class Page:
    """A page's text, and its figures by file name."""

    markdown: str
    figures: dict[str, Figure]


def overview(names: Sequence[str]) -> str:
    """A table of mixers, each row with a link to its page."""
    rows = []
    for name in names:
        card = operators.describe(name)
        rows.append((f"[`{name}`]({name}.md)", card.title, properties(card), linked(paper(card))))
    return f"""# The mixers

Every mixer maps a grid `(B, H, W, C)` to a grid of the same shape. Each has a *card* that states what it is and what it
promises. Tests verify every property, where the card claims it and where the card denies it. These pages are generated
from the cards. `python -m operators.pages NAME` writes the page of any mixer that is installed.

{table(("name", "mixer", "properties", "paper"), rows)}

How to read the properties:

* **position-aware**: the mixer uses where tokens are. Otherwise positions must come from the trunk.
* **permutation-equivariant**: permuted tokens give permuted outputs.
* **shift-equivariant**: shifted tokens give shifted outputs, for wrapped shifts (`circular`) or away from the border
  (`interior`).
* **linear**: the core is linear in its input, up to a constant.
* **fixed grid**: parameters or buffers depend on the grid.
* **float32 core**: the core computes in float32 under autocast.
* **videos**: with `axes=3` the mixer maps videos `(B, T, H, W, C)` in the same way.
* **reads a context**: `mixer(x, context=tokens)` reads from other tokens `(B, M, C)`, such as those of a text.

In a terminal, `python -m operators` prints this table with costs, and `python -m operators describe NAME` one card.
"""


def mixer_page(name: str, times: timing.Times) -> Page:
    """The page of mixer `name`; where a picture or a time is missing, the page says why."""
    core = registry.core_class(name)
    card = core.card
    figures, illustrations = illustrate(name)
    timing_figures, timing_text = timed(name, times)
    parts = [
        f"# `{name}`: {card.title}",
        f"```{{.text .equation}}\n{card.equation}\n```",
        facts(name, card),
        COMMANDS.format(name=name),
        *description(core),
        "## Pictures",
        PICTURES,
        *illustrations,
        "## Time",
        timing_text,
        "## Cost",
        cost(name),
        "## Parameters",
        parameters(core),
        "## Properties",
        properties_table(card),
        "## Shells",
        shells(card),
        "## Backends",
        backends(card),
    ]
    if card.published:
        numbers = [(n.model, n.quantity, f"{n.value:g}", linked(n.source)) for n in card.published]
        parts += [
            "## Published numbers",
            "The authors report these numbers for their own models and training. They are not measured here.",
            table(("model", "quantity", "value", "source"), numbers),
        ]
    if card.exempt:
        exemptions = [(f"`{test}`", reason) for test, reason in card.exempt.items()]
        parts += [
            "## Exemptions",
            "The card exempts this mixer from these promises of the contract.",
            table(("promise", "why"), exemptions),
        ]
    return Page("\n\n".join(parts) + "\n", {**figures, **timing_figures})


COMMANDS = """```bash
python run.py mixer={name}
python -m operators describe {name}
python -m operators test {name}
```"""
PICTURES = (
    f"The pictures show the core alone (bare shell) at initialisation: {DIM} channels, default parameters, seed 0. "
    "Training changes them."
)
TIMES = (
    "Batch {batch}, {dim} channels, common shell, float32; {hardware}, torch threads: {threads}, {day}. "
    "The times come from the machine that built this page, and may have been disturbed by other work. All mixers are "
    "sampled in turn, so that the ratio to `{reference}` suffers less. `python -m operators.benchmark --mixers {name}` "
    "measures on your machine."
)


def description(core: type[operators.Core]) -> Iterator[str]:
    """The core's docstring up to its sections, and the section `Source`."""
    text, *sections = SECTION.split(inspect.getdoc(core) or "")
    yield text.strip()
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        if title == "Source":
            yield f"Source: {linked(' '.join(body.split()))}"


def rounded(number: float) -> str:
    """Three digits, or the whole number where it has more."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def illustrate(name: str) -> tuple[dict[str, Figure], list[str]]:
    """Figures by file name, and the Markdown that shows them."""
    torch.manual_seed(0)
    grid = at_least(GRID, operators.describe(name).min_grid)
    mixer = operators.create(name, DIM, grid=grid, cond_dim=DIM, shell=BARE)
    cond = torch.zeros(DIM) if mixer.core.needs_cond else None
    figures: dict[str, Figure] = {}
    texts = []

    def add(kind: str, title: str, text: str, draw: Callable[[drawing.Theme], Figure]) -> None:
        files = {theme: f"{name}-{kind}-{theme}.png" for theme in drawing.THEMES}
        figures.update({file: draw(drawing.THEMES[theme]) for theme, file in files.items()})
        texts.append(f"### {title}\n\n{text}\n\n{images(f'{title} of {name}', files)}")

    background, setting = None, "It does not depend on the input, up to a constant."
    if not mixer.card.linear:
        background = torch.randn(*grid, DIM)
        setting = "This mixer is not linear: the pulse has size 1 and stands on a background of normal noise."
    response = pictures.impulse_response(mixer, grid, background=background, cond=cond)
    text = f"The change of the output for a unit in all channels of the centre token. {setting}"
    add("impulse", "Impulse response", text, lambda theme: drawing.draw_impulse_response(response, theme))

    field = pictures.receptive_field(mixer, grid, cond=cond)
    text = (
        "The mean squared gradient of the centre output with respect to each input token, over random inputs "
        "([Luo et al. 2016](https://arxiv.org/abs/1701.04128)). Blank tokens have no influence."
    )
    add("receptive-field", "Effective receptive field", text, lambda theme: drawing.draw_receptive_field(field, theme))

    try:
        transfer = pictures.spectrum(mixer, grid, cond=cond)
    except InputError as error:
        texts.append(f"### Spectrum\n\nNot drawn: {error}.")
    else:
        text = "The gain of a plane wave of wave number k. Zero frequency is in the middle."
        add("spectrum", "Spectrum", text, lambda theme: drawing.draw_spectrum(transfer, theme))
    return figures, texts


def images(alternative: str, files: Mapping[str, str]) -> str:
    """The same picture for either colour scheme; Material for MkDocs shows the one that fits."""
    return "".join(f"![{alternative}]({file}#only-{theme})" for theme, file in files.items())


def timed(name: str, times: timing.Times) -> tuple[dict[str, Figure], str]:
    """The times of a mixer as a table and a figure, or why there are none."""
    rows = times.of(name)
    missing = "".join(f"\n\nNot timed: {reason}." for reason in times.absent.get(name, ()))
    if not rows:
        return {}, missing.strip()
    first = rows[0]
    by_work = {work: [row for row in rows if row.work == work] for work in (FORWARD, BOTH)}
    lines = [
        (f"{forward.height} × {forward.width}", *(cell for row in (forward, both) for cell in time_cells(row)))
        for forward, both in zip(by_work[FORWARD], by_work[BOTH], strict=True)
    ]
    columns = ("tokens", "forward", f"/ {first.reference}", "with gradients", f"/ {first.reference}")
    text = TIMES.format(
        batch=first.batch, dim=first.dim, threads=first.threads, hardware=first.hardware, day=first.utc[:10],
        reference=first.reference, name=name,
    )  # fmt: skip
    files = {theme: f"{name}-time-{theme}.png" for theme in drawing.THEMES}
    reference = times.of(str(first.reference))
    figures = {file: drawing.draw_times(rows, reference, drawing.THEMES[theme]) for theme, file in files.items()}
    shown = images(f"Time of {name} against the number of tokens", files)
    return figures, f"{text}\n\n{table(columns, lines, right=range(1, 5))}\n\n{shown}{missing}"


def time_cells(row: Row) -> tuple[str, str]:
    """Milliseconds with quartiles, and the ratio to the reference with quartiles."""
    middle, low, high = (rounded(1e3 * seconds) for seconds in (row.seconds, row.seconds_low, row.seconds_high))
    time = f"{middle} ms ({low}–{high})"
    if row.ratio is None or row.ratio_low is None or row.ratio_high is None:
        return time, "–"
    return time, f"{row.ratio:.2f} ({row.ratio_low:.2f}–{row.ratio_high:.2f})"


def facts(name: str, card: MixerCard) -> str:
    """Where the mixer is from and where its code is."""
    compared = f"* Compared with: {linked(card.code)}\n" if card.code else ""
    return f"* Paper: {linked(card.source)}\n* Year: {card.year}\n{compared}* File: `{file_of(name)}`"


def properties_table(card: MixerCard) -> str:
    """Every property of the card, claimed or denied."""
    rows = [
        ("position-aware", YES_OR_NO[card.position_aware]),
        ("permutation-equivariant", YES_OR_NO[card.permutation_equivariant]),
        ("translation-equivariant", card.translation_equivariant or "no"),
        ("linear", YES_OR_NO[card.linear]),
        ("causal along", card.causal_along or "no order"),
        ("state scaled by", f"`{card.state_param}`" if card.state_param else "no parameter"),
        ("grid", "fixed at construction" if card.fixed_grid else "any"),
        ("smallest grid", f"{card.min_grid[0]} × {card.min_grid[1]}"),
        ("output grows with the number of tokens", YES_OR_NO[card.extensive]),
        ("float32 under autocast", YES_OR_NO[card.fp32_core]),
        ("reads a context", YES_OR_NO[card.reads_context]),
        ("serves videos", YES_OR_NO[3 in card.axes]),
    ]
    return "They hold for the core alone, with default parameters.\n\n" + table(("property", "value"), rows)


def parameters(core: type[operators.Core]) -> str:
    """The mixer's own parameters: default, and meaning from the docstring of its class."""
    card = core.card
    if not card.defaults:
        return "This mixer has no parameters of its own."
    prefix, texts = "pde" if card.name == "pde_ssm" else "mixer", meanings(core)
    rows = [
        (f"`{prefix}.{key}`", f"`{as_written(value)}`", allowed_values(card.name, key), texts.get(key, ""))
        for key, value in card.defaults.items()
    ]
    return table(("option of `run.py`", "default", "allowed", "meaning"), rows)


def cost(name: str) -> str:
    """What `mixer.cost` counts on several grids, in the common shell."""
    rows = []
    for usual in COST_GRIDS:
        grid = at_least(usual, operators.describe(name).min_grid)
        mixer: Mixer = operators.create(name, COST_DIM, grid=grid, cond_dim=COST_DIM)
        counted = mixer.cost(*grid)
        values = (counted.projection_macs, counted.mixing_macs, counted.state_elements, counted.parameters)
        rows.append((f"{grid[0]} × {grid[1]}", *(f"{value:,}" for value in values)))
    columns = ("tokens", "projection MACs", "mixing MACs", "state elements", "parameters")
    text = (
        f"For one image, {COST_DIM} channels, common shell. A counter that sees every product, convolution, transform "
        "and scan confirms the formulas."
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


def at_least(grid: tuple[int, int], smallest: tuple[int, int]) -> tuple[int, int]:
    """The grid, enlarged where a mixer needs more tokens."""
    return max(grid[0], smallest[0]), max(grid[1], smallest[1])


def plain(value: Any) -> str:
    """A value as the command line writes it."""
    return "null" if value is None else str(value).lower()


def linked(text: str) -> str:
    """The text with arXiv numbers, and repositories with a file or at a commit, as links."""
    return ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", REPOSITORY.sub(_on_github, text))


def _on_github(match: re.Match[str]) -> str:
    repository, file, commit = match.groups()
    if not file and not commit:
        return match[0]
    place = f"{'blob' if file else 'tree'}/{commit or 'HEAD'}"
    return f"[{match[0]}](https://github.com/{repository}/{place}{f'/{file}' if file else ''})"


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
