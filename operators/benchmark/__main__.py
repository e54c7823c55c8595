"""`python -m operators.benchmark`: time and memory of every mixer, checked before it is timed."""

from __future__ import annotations

from operators.idle import limit_spinning

if __name__ == "__main__":
    limit_spinning()  # before torch is imported

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import operators
from operators.benchmark import plots, report
from operators.benchmark.arms import MixerArm, mixer_arms, parse_settings
from operators.benchmark.bare import bare_arms
from operators.benchmark.bench import Bench, Outcome, Plan
from operators.benchmark.rivals import RIVALS, rival_arms
from operators.benchmark.workload import DTYPES, Arm, Place, Shape
from operators.errors import InputError, check_choice, check_number

DESCRIPTION = """Time, memory, share of the roofline and growth with the number of tokens of every mixer, forward and
with gradients. A mixer is compared with float64 before it is timed; all arms of a grid are sampled in turn. Results are
added to a CSV file named after the hardware; the same command again measures only what is missing there."""
REFERENCE = "attention"
DEFAULTS = {"grids": "8,16,32,64", "batch": 4, "dim": 192, "repeats": 7}
QUICK = {"grids": "8,16,32", "batch": 2, "dim": 96, "repeats": 3}
"""Done in about a minute on two cores."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m operators.benchmark", description=DESCRIPTION)
    add = parser.add_argument
    add("--mixers", help="names between commas (all)")
    add("--grids", help=f"sides between commas, 16 for 16x16, or 32x48 ({DEFAULTS['grids']})")
    add("--batch", type=int, help=f"images in a call ({DEFAULTS['batch']})")
    add("--dim", type=int, help=f"channels ({DEFAULTS['dim']})")
    add("--dtypes", default="float32", help="float32 and bfloat16 (autocast), between commas (float32)")
    add("--devices", help="cpu and cuda, between commas (both where there is CUDA)")
    add(
        "--level",
        default="mixer",
        help="core: the core alone; mixer: in its shell (default); block: with norms and FFN",
    )
    add(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="MIXER.PARAMETER=VALUES",
        help="parameters as arms of their own, such as pde_ssm.state=1,4 pde_ssm.boundary=periodic,neumann",
    )
    add("--bare", action="store_true", help="also the bare operations that mixers are made of")
    add("--rivals", default="auto", help=f"auto, none, or of {', '.join(rival.name for rival in RIVALS)} (auto)")
    add("--reference", help=f"the arm that times are divided by ({REFERENCE}, or the first)")
    add("--repeats", type=int, help=f"samples of each time ({DEFAULTS['repeats']})")
    add("--threads", type=int, help="CPU threads (torch's default)")
    add("--minutes", type=float, default=math.inf, help="stop after about so long; the same command goes on from there")
    add("--memory", type=float, help="GiB that an arm may take (80 %% of what is free)")
    add("--out", type=Path, default=Path("outputs/benchmark"), help="directory of the results (outputs/benchmark)")
    add("--quick", action="store_true", help="small sizes: about a minute on two cores")
    return parser


def parse(argv: Sequence[str] | None) -> Plan:
    """The plan that a command line asks for.

    Raises:
        InputError: anything wrong with it, in one line.
    """
    options = _parser().parse_args(argv)
    for name, value in (QUICK if options.quick else DEFAULTS).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    for name in ("batch", "dim", "repeats"):
        check_number(name, getattr(options, name), least=1, integer=True)
    if options.threads is not None:
        check_number("threads", options.threads, least=1, integer=True)
    if options.minutes != math.inf:
        check_number("minutes", options.minutes, least=0)
    if options.memory is not None:
        check_number("memory", options.memory, least=0)
    available = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    devices = available if options.devices is None else _listed("device", options.devices, ("cpu", "cuda"))
    if "cuda" in devices and "cuda" not in available:
        raise InputError("devices: there is no CUDA device here; use --devices cpu")
    places = [Place(device, dtype) for device in devices for dtype in _listed("dtype", options.dtypes, list(DTYPES))]
    shapes = [Shape(options.batch, *grid, options.dim) for grid in _grids(options.grids)]

    names = operators.names() if options.mixers is None else _listed("mixer", options.mixers, operators.names())
    arms = mixer_arms(names, options.level, parse_settings(options.set))
    for arm in arms:
        if isinstance(arm, MixerArm):
            _try(arm, shapes, places[0])
    states = [_states(arm) for arm in arms if isinstance(arm, MixerArm) and arm.name == "pde_ssm"]
    everything: list[Arm] = [*arms, *rival_arms(options.rivals), *(bare_arms(states or [1]) if options.bare else ())]
    return Plan(
        arms=everything,
        shapes=sorted(shapes, key=lambda shape: shape.tokens),
        places=places,
        level=options.level,
        reference=_reference(options.reference, everything),
        repeats=options.repeats,
        threads=options.threads or torch.get_num_threads(),
        out=options.out,
        minutes=options.minutes,
        memory=None if options.memory is None else int(options.memory * 2**30),
    )


def _listed(what: str, text: str, allowed: Sequence[str]) -> list[str]:
    """Names between commas, each once and known."""
    return list(dict.fromkeys(check_choice(what, name.strip(), allowed) for name in text.split(",")))


def _grids(text: str) -> list[tuple[int, int]]:
    grids = []
    for part in text.split(","):
        found = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", part.strip())
        if found is None:
            raise InputError(f"grids: {part!r} must be a side or HEIGHTxWIDTH in tokens, such as 16 or 32x48")
        grids.append((int(found[1]), int(found[2] or found[1])))
    return list(dict.fromkeys(grids))


def _try(arm: MixerArm, shapes: Sequence[Shape], place: Place) -> None:
    """Make the arm once at the smallest grid that it takes: wrong values are found before anything is measured."""
    fitting = [shape for shape in shapes if arm.absent(shape, place) is None]
    if fitting:
        arm.module(min(fitting, key=lambda shape: shape.tokens))


def _states(arm: MixerArm) -> int:
    number = arm.params.get("state", operators.describe(arm.name).defaults["state"])
    assert isinstance(number, int)
    return number


def _reference(wanted: str | None, arms: Sequence[Arm]) -> str | None:
    """The label meant by `--reference`: a label, or the name of a mixer, whose first arm it then is."""
    labels = {arm.label.partition("[")[0]: arm.label for arm in reversed(arms)} | {arm.label: arm.label for arm in arms}
    if wanted is None:
        return labels.get(REFERENCE, arms[0].label)
    return labels[check_choice("reference", wanted, labels)]


def write_report(bench: Bench, outcome: Outcome, console: Console) -> None:
    """The Markdown file and figures beside each CSV file, from all its rows of these versions."""
    refusal = plots.unavailable()
    if refusal:
        console.print(refusal)
    for device, table in bench.tables.items():
        current = [row for row in table.rows if row.code == bench.code and row.torch == torch.__version__]
        figures = {}
        for members in [] if refusal else report.sections(current):
            one = members[0]
            name = f"{table.path.stem}-{one.level}-{one.dtype}-b{one.batch}-d{one.dim}-r{one.repeats}.png"
            plots.draw(members, table.path.with_name(name))
            figures[report.section_of(one)] = name

        def here(found: dict[tuple[str, str], list[str]], device: str = device) -> dict[tuple[str, str], list[str]]:
            places = {key: [place for place in where if place.startswith(device)] for key, where in found.items()}
            return {key: where for key, where in places.items() if where}

        text = report.markdown(
            current, failed=here(outcome.failed), skipped=here(outcome.skipped), left=outcome.left, figures=figures
        )
        table.path.with_suffix(".md").write_text(text)
        console.print(f"{len(current)} rows: {table.path.with_suffix('.md')}", soft_wrap=True)


def carry_out(plan: Plan, console: Console) -> int:
    """Measure what is missing, with a progress bar, and write the report; 1 if anything failed, else 0."""
    columns = (
        TextColumn("{task.description:<44.44}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting")

        def advance(share: float, doing: str) -> None:
            progress.update(task, advance=share, description=doing or None)

        bench = Bench(plan, advance=advance)
        progress.update(task, total=bench.total)
        outcome = bench.run()
        if not outcome.left:
            progress.update(task, completed=bench.total, description=f"{outcome.written} new rows")
    write_report(bench, outcome, console)
    for word, found in (("failed", outcome.failed), ("skipped", outcome.skipped)):
        for (arm, reason), places in found.items():
            console.print(f"{word}: {arm} ({report.where(places)}): {reason}", soft_wrap=True)
    if outcome.left:
        console.print(f"time is up: {outcome.left} rows to go; the same command goes on from here")
    return 1 if outcome.failed else 0


def run(plan: Callable[[], Plan], console: Console) -> int:
    """Carry out a plan; 0, 1 if a mixer failed the comparison, 2 for wrong input (one line on standard error).

    130 if interrupted; what was measured is in the table.
    """
    try:
        return carry_out(plan(), console)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, see `run`."""
    return run(lambda: parse(argv), Console(markup=False, highlight=False, stderr=True))


if __name__ == "__main__":
    sys.exit(main())
