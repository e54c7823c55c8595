"""`python -m operators`: the zoo as a table; `python -m operators describe NAME`: one mixer's card and its kernel."""

from __future__ import annotations

from operators.command_line import Parser, begin, conclude, console

if __name__ == "__main__":
    begin()  # before torch is imported

import inspect
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from operators import registry, response, value_types
from operators.card import MixerCard
from operators.errors import InputError
from operators.mixer import Core
from operators.shell.spec import COMMON

EXAMPLE_DIM = 192
EXAMPLE_GRID = (14, 14)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> Table:
    """A table whose columns are no narrower than their longest word, so that lines break between words."""
    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        longest = max((len(word) for row in rows for word in row[index].split()), default=0)
        justify: Literal["left", "right"] = "right" if column in right else "left"
        made.add_column(column, overflow="fold", justify=justify, min_width=longest)
    for row in rows:
        made.add_row(*row)
    return made


def short_number(number: float) -> str:
    """Three significant digits and a suffix: 28901376 is 28.9M."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{suffix}"
    return f"{number:g}"


def properties(card: MixerCard) -> str:
    """The card's properties in words."""
    words = [
        f"{card.family} family" if card.family else "",
        "position-aware" if card.position_aware else "position-blind",
        "permutation-equivariant" if card.permutation_equivariant else "",
        f"shift-equivariant ({card.translation_equivariant})" if card.translation_equivariant else "",
        "linear" if card.linear else "",
        f"causal along {card.causal_along}" if card.causal_along else "",
        "fixed grid" if card.fixed_grid else "",
        "extensive" if card.extensive else "",
        "float32 core" if card.fp32_core else "",
        "reads a context" if card.reads_context else "",
        "videos" if 3 in card.axes else "",
        f"grid from {card.min_grid[0]}×{card.min_grid[1]}" if card.min_grid != (1, 1) else "",
    ]
    return ", ".join(word for word in words if word)


def paper(card: MixerCard) -> str:
    """The card's arXiv number (its whole source where there is none) and year."""
    number = re.search(r"arXiv \S*\d", card.source)
    return f"{number.group() if number else card.source} ({card.year})"


def meanings(core: type[Core]) -> dict[str, str]:
    """What the parameters of a core's constructor are, from the section `Args` of its class's docstring."""
    section = (inspect.getdoc(core) or "").partition("Args:\n")[2].partition("\n\n")[0]
    entries = re.finditer(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    return {entry[1]: " ".join(entry[2].split()) for entry in entries}


def allowed_values(name: str, parameter: str) -> str:
    """What a parameter of mixer `name` may be, in the words with which the mixer refuses a value that it cannot be."""
    annotation = inspect.signature(registry.core_class(name)).parameters[parameter].annotation
    words = value_types.word(annotation)
    for impossible in ("?", ["?"]):  # a list shows what the entries of a list may be
        params: dict[str, Any] = {parameter: impossible}
        try:
            registry.create(name, EXAMPLE_DIM, grid=EXAMPLE_GRID, cond_dim=EXAMPLE_DIM, **params)
        except InputError as error:
            allowed = re.search(r"(?:allowed are|must be) (.*)", str(error))
            words = allowed[1] if allowed else words
        except Exception:  # noqa: BLE001 - a stranger's mixer may fail in any way; the annotation says enough
            continue
    optional = not any(word in words for word in ("null", "?")) and "null" in value_types.word(annotation)
    return words.replace("True, False", "true, false") + (", or null" if optional else "")


def as_written(value: Any) -> str:
    """A default as the command line writes it: null, true, [row, col]."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_written, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def print_zoo(console: Console) -> None:
    """All mixers: what they are, what they cost, what serves them here, and whatever is unavailable and why."""
    mixers, costs, notes = [], [], []
    for name in registry.names():
        core = registry.core_class(name)
        mixers.append((name, f"{core.card.title}\n{paper(core.card)}", properties(core.card)))
        availability = core.availability()
        notes += [(name, f"backend {backend}: {reason}") for backend, reason in availability.items() if reason]
        usable = ", ".join(backend for backend, reason in availability.items() if not reason)
        numbers = ["–"] * 4
        try:
            cost = registry.create(name, EXAMPLE_DIM, grid=EXAMPLE_GRID, cond_dim=EXAMPLE_DIM).cost(*EXAMPLE_GRID)
            numbers = [short_number(number) for number in asdict(cost).values()]
        except Exception as error:  # noqa: BLE001 - a stranger's mixer may fail in any way; the others are shown
            reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            notes.append((name, f"no cost for the example: {reason}"))
        costs.append((name, *numbers, usable or "none"))
    notes += [(name, f"installed, but does not load: {reason}") for name, reason in sorted(registry.broken().items())]

    height, width = EXAMPLE_GRID
    title = f"Cost for one image: width {EXAMPLE_DIM}, {height}×{width} tokens, common shell; backends usable here"
    measures = ("projection MACs", "mixing MACs", "state elements", "parameters")
    console.print(table("Mixers", ("name", "mixer", "properties"), mixers))
    console.print(table(title, ("name", *measures, "backends"), costs, right=measures))
    if notes:
        console.print(table("Not available here", ("name", "reason"), notes))


def print_card(console: Console, name: str) -> None:
    """Everything one card says, and which of its backends are usable here."""
    card = registry.describe(name)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("equation", card.equation)
    facts.add_row("source", f"{card.source} ({card.year})")
    if card.code:
        facts.add_row("compared with", card.code)
    facts.add_row("properties", properties(card))
    core = registry.core_class(name)
    for key, items in (
        ("backends", [f"{backend}: {reason or 'usable here'}" for backend, reason in core.availability().items()]),
        ("exempt from", [f"{test}: {reason}" for test, reason in card.exempt.items()]),
    ):
        if items:
            facts.add_row(key, "\n".join(items))
    console.print(f"{card.name}: {card.title}", style="bold")
    console.print(facts)
    console.print()

    if card.defaults:
        texts = meanings(core)
        parameters = [
            (key, as_written(value), allowed_values(name, key), texts.get(key, ""))
            for key, value in card.defaults.items()
        ]
        console.print(table("Parameters", ("name", "default", "allowed", "meaning"), parameters))
    shells = {"common": COMMON, **card.shells}
    rows = [(switch, *(str(getattr(spec, switch)).lower() for spec in shells.values())) for switch in asdict(COMMON)]
    meant = {parameter for params in card.preset_params.values() for parameter in params}
    for parameter in sorted(meant):
        values = (card.preset_params.get(preset, {}).get(parameter, card.defaults[parameter]) for preset in shells)
        rows.append((f"mixer.{parameter}", *(str(value).lower() for value in values)))
    console.print(table("Shells", ("switch", *shells), rows))
    if card.published:
        numbers = [(n.model, n.quantity, f"{n.value:g}", n.source) for n in card.published]
        console.print(table("Published numbers", ("model", "quantity", "value", "source"), numbers, right=("value",)))


def print_kernel(console: Console, name: str, picture: Path | None) -> None:
    """What a pulse at one token becomes, as shades, and channel by channel in the file `picture`."""
    try:
        mixer, kernel = response.respond(name)
    except Exception as error:  # a stranger's mixer may fail in any way; its card has been shown
        if picture is not None:
            raise InputError(f"mixer {name} has no kernel to draw: {error}") from error
        console.print(f"No kernel to draw: {error}")
        return
    height, width, channels = kernel.shape
    unicode = console.encoding.startswith("utf")
    shades = response.BLOCKS if unicode else response.LETTERS
    around = "" if mixer.card.linear else " among random tokens, on which it depends"
    console.print("Kernel", style="bold")
    console.print(
        f"Response to a pulse in the middle of {height}×{width} tokens{around}: core alone, at its start, root mean "
        f"square over {channels} channels; {shades[-1]} is the peak, each lighter shade {response.STEP:g} times less."
    )
    console.print(response.as_text(response.magnitude(kernel), shades))
    if picture is not None:
        response.write_picture(picture, kernel)
        console.print(f"picture: {picture}", soft_wrap=True)


def print_verdict(console: Console, name: str, *, slow: bool, trace: bool) -> int:
    """Run the contract on a mixer and say which of its promises hold; 1 if one is broken, else 0."""
    registry.describe(name)
    try:
        from operators.testing import verdict
    except ModuleNotFoundError as error:
        raise InputError(f'the contract needs {error.name}: pip install "operator-zoo[contract]"') from error
    judged, output = verdict.judge(name, () if slow else ("-m", "not slow"))
    rows = []
    for promise, state in sorted(judged.promises.items(), key=lambda item: (item[1].state != verdict.BROKEN, item[0])):
        reasons = dict.fromkeys(state.reasons.values())
        rows.append((promise.replace("_", " "), state.state, str(state.runs), "\n".join(reasons)))
    console.print(table(f"Promises of {name}", ("promise", "state", "cases", "why"), rows, right=("cases",)))
    if trace:
        console.print(output)
    broken = sum(state.state == verdict.BROKEN for state in judged.promises.values())
    if not judged.promises:
        raise InputError(f"the contract could not be run on {name}: {' '.join(output.split())[-500:]}")
    console.print(
        f"{broken} of {len(judged.promises)} promises of {name} are broken"
        if broken
        else f"{name} keeps all its promises"
    )
    return 1 if broken else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 0, 1 if a mixer breaks a promise, or 2 for wrong input (one line)."""
    parser = Parser(prog="python -m operators", description="List the zoo of token mixers.")
    commands = parser.add_subparsers(dest="command", metavar="command")
    describe = commands.add_parser("describe", help="print one mixer's card and its kernel")
    describe.add_argument("name", metavar="NAME")
    describe.add_argument("--picture", type=Path, metavar="FILE", help="also draw the kernel's channels into a PNG")
    test = commands.add_parser("test", help="run the contract on one mixer: which of its promises hold")
    test.add_argument("name", metavar="NAME")
    test.add_argument("--slow", action="store_true", help="also what takes minutes: generated code in every shell")
    test.add_argument("--trace", action="store_true", help="also show where the tests fail")
    out = console(markup=False, highlight=False)
    try:
        options = parser.parse_args(argv)
        if options.command == "describe":
            print_card(out, options.name)
            print_kernel(out, options.name, options.picture)
        elif options.command == "test":
            return print_verdict(out, options.name, slow=options.slow, trace=options.trace)
        else:
            print_zoo(out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    conclude(main)
