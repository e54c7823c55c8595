"""`python -m models.benchmark --model NAME [options of operators.benchmark]`: whole models with one mixer or another.

Forward is one evaluation without gradients, of which a sampler makes one or two in every step; forward+backward is a
training step without its optimiser, which does not depend on the mixer. Grids are in tokens: 16, 32 and 64 are latents
of 256, 512 and 1,024 pixels at the usual eighth, in patches of two.
"""

from __future__ import annotations

from operators.command_line import Parser, begin, conclude

if __name__ == "__main__":
    begin()  # before torch is imported

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from models.presets import names, preset
from operators.benchmark import options
from operators.errors import InputError

if TYPE_CHECKING:
    from operators.benchmark.plan import BenchmarkPlan

REFUSED = ("--level", "--dim", "--bare", "--rivals")
"""Options of `operators.benchmark` that mean nothing here."""
USAGE = f"""usage: python -m models.benchmark --model NAME [options of operators.benchmark]

Time and memory of whole models with one mixer or another.

  --model  one of {", ".join(names())}

`python -m operators.benchmark --help` lists the other options; {", ".join(REFUSED)} mean nothing here."""


def read(argv: Sequence[str]) -> tuple[str, list[str]]:
    """The model that a command line asks for, and the command line of `operators.benchmark` for the rest.

    Raises:
        InputError: anything that is wrong with it on any machine, in one line.
    """
    parser = Parser(prog="python -m models.benchmark", add_help=False, allow_abbrev=False)
    parser.add_argument("--model")
    chosen, rest = parser.parse_known_args(argv)
    if chosen.model is None:
        raise InputError(f"--model is missing; allowed are {', '.join(names())}")
    dim = preset(chosen.model).dims[0]
    for option in rest:
        if option.partition("=")[0] in REFUSED:
            raise InputError(f"{option}: not an option of this benchmark, whose arms are whole models")
    further = [*rest, "--level", "mixer", "--dim", str(dim), "--rivals", "none"]
    if options.read(further).bare:
        raise InputError("bare: models have no bare operations; ask python -m operators.benchmark about their mixers")
    return chosen.model, further


def parse(argv: Sequence[str]) -> BenchmarkPlan:
    """The plan that a command line asks for.

    Raises:
        InputError: anything wrong with it, in one line.
    """
    model, further = read(argv)

    import models
    from models.model_arms import ModelArm
    from operators.benchmark import command
    from operators.benchmark.arms import MixerArm
    from operators.benchmark.table import PACKAGE

    plan = command.parse(further)
    arms = [ModelArm(model, arm) for arm in plan.arms if isinstance(arm, MixerArm)]
    return replace(plan, arms=arms, level=model, packages=(PACKAGE, Path(models.__file__).parent))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit statuses as those of `operators.benchmark`."""
    given = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & set(given):
        sys.stdout.write(f"{USAGE}\n")
        return 0
    try:
        read(given)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    from rich.console import Console

    from operators.benchmark import command  # imports torch, for which wrong input need not wait

    return command.run(lambda: parse(given), Console(markup=False, highlight=False, stderr=True))


if __name__ == "__main__":
    conclude(main)
