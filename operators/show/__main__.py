"""`python -m operators.show NAME`: a mixer as pictures on one page; with CKPT those of a run's checkpoint.

Trunks are above this package: checkpoints are read by `tasks.show`, which draws with the functions of this one.
"""

from __future__ import annotations

from operators.command_line import Parser, begin, conclude

if __name__ == "__main__":
    begin()  # before torch is imported

import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from operators import registry
from operators.benchmark import plots
from operators.benchmark.options import parse_settings
from operators.card import MixerCard
from operators.errors import InputError, check_choice, check_number

PROGRAM = "python -m operators.show"
DIM, GRID = 64, (24, 16)
BARE = "bare"
CHECKPOINTS = "tasks.show"
"""The command that reads checkpoints, of the package two above."""


def names_checkpoint(text: str) -> bool:
    """Whether an argument is a file rather than the name of a mixer."""
    separators = {os.sep, os.altsep or os.sep}
    return text not in registry.names() and (
        text.endswith(".ckpt") or Path(text).exists() or any(separator in text for separator in separators)
    )


def parser() -> Parser:
    """The options of mixers by name."""
    made = Parser(
        prog=PROGRAM,
        description="Draw a mixer on one page: response, receptive field, spectrum, its equations and maps. CKPT, the "
        f"checkpoint of a run, draws every layer before and after training: {PROGRAM} CKPT --help lists its options.",
    )
    made.add_argument("name", metavar="NAME|CKPT", help="a mixer, or a run's checkpoints/best.ckpt")
    made.add_argument("--out", type=Path, metavar="DIR", help="folder (outputs/pictures/NAME)")
    made.add_argument("--grid", default="x".join(map(str, GRID)), metavar="HxW", help="tokens (%(default)s)")
    made.add_argument("--dim", type=int, default=DIM, help="channels (%(default)s)")
    made.add_argument("--shell", default=BARE, help="bare: the core alone (default); common, or another preset")
    made.add_argument("--seed", type=int, default=0, help="of parameters and tokens (%(default)s)")
    made.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="parameters of the mixer, such as state=1 tensor=full",
    )  # fmt: skip
    return made


def parameters(name: str, texts: Sequence[str]) -> dict[str, Any]:
    """The mixer's parameters that are set, each once.

    Raises:
        InputError: one that is not of the form KEY=VALUE, or has several values.
    """
    settings = parse_settings([f"{name}.{text}" for text in texts]).get(name, {})
    for key, values in settings.items():
        if len(values) != 1:
            raise InputError(f"set: {key} has {len(values)} values, and one mixer is drawn: give one, a list as [A,B]")
    return {key: values[0] for key, values in settings.items()}


def draw(
    name: str, out: Path, grid: tuple[int, int], dim: int, shell: str, seed: int, params: Mapping[str, Any]
) -> Path:
    """Draw a mixer at its start; returns the path of the page.

    Raises:
        InputError: what `operators.create` refuses, or a folder that cannot be written to.
    """
    from operators.shell.spec import BARE as ALONE
    from operators.show import layers, page

    layer = layers.fresh(name, dim=dim, grid=grid, shell=ALONE if shell == BARE else shell, seed=seed, params=params)
    mixer, card = layer.states[0].mixer, registry.describe(name)
    facts = {
        **of_card(card),
        "parameters": ", ".join(f"{key}={value}" for key, value in params.items()) or "defaults",
        "drawn": f"at its start (seed {seed}), {grid[0]} × {grid[1]} tokens of normal noise, {dim} channels, "
        f"{'core alone' if shell == BARE else f'in the shell {shell}'}, backend {mixer.backend}",
    }
    return page.write(out, f"{name}: {card.title}", facts, list(page.sections([layer])))


def of_card(card: MixerCard) -> dict[str, str]:
    """What a page says about a mixer."""
    return {"equation": card.equation, "source": f"{card.source} ({card.year})"}


def hand_over(given: Sequence[str]) -> int:
    """The exit status of the command for checkpoints, with these arguments; raises `InputError` where it is missing."""
    if find_spec(CHECKPOINTS.partition(".")[0]) is None:
        raise InputError("checkpoints are read by the package tasks, which is not installed here")
    return int(import_module(CHECKPOINTS).main(given))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit status 0, or 2 for wrong input, explained in one line."""
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        if given and names_checkpoint(given[0]):  # which has options of its own
            return hand_over(given)
        options = parser().parse_args(given)
        if names_checkpoint(options.name):
            return hand_over(given)
        name = check_choice("mixer", options.name, registry.names())
        sides = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", options.grid)
        if sides is None:
            raise InputError(f"grid: {options.grid!r} must be HEIGHTxWIDTH in tokens, such as 24x16")
        check_number("seed", options.seed, least=0, most=2**32 - 1, integer=True)
        params = parameters(name, options.set)
        registry.check(name, params, "common" if options.shell == BARE else options.shell, "auto")
        refusal = plots.unavailable()
        if refusal:
            raise InputError(refusal)
        out = Path("outputs/pictures") / name if options.out is None else options.out
        grid = int(sides[1]), int(sides[2])
        page = draw(name, out, grid=grid, dim=options.dim, shell=options.shell, seed=options.seed, params=params)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{page}\n")
    return 0


if __name__ == "__main__":
    conclude(main)
