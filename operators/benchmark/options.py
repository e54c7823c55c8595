"""The command line of the benchmark, checked before torch is imported."""

from __future__ import annotations

import argparse
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from operators import registry
from operators.command_line import Parser
from operators.errors import InputError, check_choice, check_names, check_number

DESCRIPTION = """Time, memory, share of the roofline and growth with the number of tokens of every mixer, forward and
with gradients. A mixer is compared with float64 before it is timed; all arms of a grid are sampled in turn. Results are
added to a CSV file named after the hardware; the same command again measures only what is missing there."""
REFERENCE = "attention"
DEFAULTS = {"grids": "8,16,32,64", "batch": 4, "dim": 192, "repeats": 7}
QUICK = {"grids": "8,16,32", "batch": 2, "dim": 96, "repeats": 3}
"""Done in about a minute on two cores."""
LEVELS = ("core", "mixer", "block")
"""The core alone, on its input; the whole mixer in its shell; a block of a transformer around it."""
DTYPES = ("float32", "bfloat16")
DEVICES = ("cpu", "cuda")
RIVALS = ("sdpa", "xformers", "timm", "mamba_ssm", "mamba_ssm_ref", "spectral_conv")
MOST_THREADS = 1024
"""More than any machine has cores; OpenMP ends the process where it cannot start as many as it is told."""


def _parser() -> Parser:
    parser = Parser(prog="python -m operators.benchmark", description=DESCRIPTION)
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
    add("--bare", action="store_true", help="each mixer beside the bare operations that it is made of, instead of all")
    add("--rivals", default="auto", help=f"auto, none, or of {', '.join(RIVALS)} (auto)")
    add("--reference", help=f"the arm that times are divided by ({REFERENCE}, or the first)")
    add("--repeats", type=int, help=f"samples of each time ({DEFAULTS['repeats']})")
    add("--threads", type=int, help="CPU threads (torch's default)")
    add("--minutes", type=float, default=math.inf, help="stop after about so long; the same command goes on from there")
    add("--memory", type=float, help="GiB that an arm may take (80 %% of what is free)")
    add("--out", type=Path, default=Path("outputs/benchmark"), help="directory of the results (outputs/benchmark)")
    add("--quick", action="store_true", help="small sizes: about a minute on two cores")
    return parser


def read(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of a command line; `mixers`, `grids`, `dtypes` and `devices` as lists, `set` as `parse_settings`.

    Raises:
        InputError: anything that is wrong with it on any machine, in one line.
    """
    options = _parser().parse_args(argv)
    for name, value in (QUICK if options.quick else DEFAULTS).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    for name in ("batch", "dim", "repeats"):
        check_number(name, getattr(options, name), least=1, integer=True)
    if options.threads is not None:
        check_number("threads", options.threads, least=1, most=MOST_THREADS, integer=True)
    if options.minutes != math.inf:
        check_number("minutes", options.minutes, least=0)
    if options.memory is not None:
        check_number("memory", options.memory, least=0)
    if options.devices is not None:
        options.devices = _listed("device", options.devices, DEVICES)
    options.dtypes = _listed("dtype", options.dtypes, DTYPES)
    options.grids = _grids(options.grids)
    known = registry.names()
    options.mixers = known if options.mixers is None else _listed("mixer", options.mixers, known)
    check_choice("level", options.level, LEVELS)
    options.set = parse_settings(options.set)
    _check_settings(options.mixers, options.level, options.set)
    if options.rivals not in ("auto", "none"):
        _listed("rival", options.rivals, RIVALS)
    return options


def _check_settings(names: Sequence[str], level: str, settings: Mapping[str, Mapping[str, Sequence[Any]]]) -> None:
    check_names("set: this benchmark", settings, names)
    for name, chosen in settings.items():
        allowed = [*registry.defaults(name), "backend", *([] if level == "core" else ["shell"])]
        check_names(f"set: mixer {name} (level {level})", chosen, allowed)
        for values in itertools.product(*chosen.values()):
            params = dict(zip(chosen, values, strict=True))
            shell, backend = params.pop("shell", "common"), params.pop("backend", "auto")
            registry.check(name, params, shell, backend)


def _listed(what: str, text: str, allowed: Sequence[str]) -> list[str]:
    """Names between commas, each once and known."""
    return list(dict.fromkeys(check_choice(what, name.strip(), allowed) for name in text.split(",")))


def _grids(text: str) -> list[tuple[int, int]]:
    grids = []
    for part in text.split(","):
        sides = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", part.strip())
        if sides is None:
            raise InputError(f"grids: {part!r} must be a side or HEIGHTxWIDTH in tokens, such as 16 or 32x48")
        grids.append((int(sides[1]), int(sides[2] or sides[1])))
    return list(dict.fromkeys(grids))


def parse_settings(texts: Iterable[str]) -> dict[str, dict[str, list[Any]]]:
    """`pde_ssm.state=1,4` and the like: by mixer and parameter, its values (see `parse_values`).

    Raises:
        InputError: anything not of that form, or a parameter set twice.
    """
    settings: dict[str, dict[str, list[Any]]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        mixer, dot, parameter = name.partition(".")
        if not (equals and dot and mixer and parameter and values):
            raise InputError(f"set: {text!r} must read MIXER.PARAMETER=VALUE[,VALUE…], such as pde_ssm.state=1,4")
        of_mixer = settings.setdefault(mixer, {})
        if parameter in of_mixer:
            raise InputError(f"set: {name} is set twice; give its values in one, as {name}=A,B")
        of_mixer[parameter] = parse_values(values)
    return settings


def parse_values(text: str) -> list[Any]:
    """Values between commas: numbers, true, false, none, [lists] of values, and words.

    Raises:
        InputError: brackets that do not match, or nothing where a value should be.
    """
    parts, depth = [""], 0
    for letter in text:
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if depth < 0:
            break
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    if depth:
        raise InputError(f"set: brackets do not match in {text!r}")
    return [_value(part.strip(), text) for part in parts]


def _value(part: str, whole: str) -> Any:
    if not part:
        raise InputError(f"set: {whole!r} lacks a value")
    if part.startswith("[") and part.endswith("]"):
        return parse_values(part[1:-1]) if part[1:-1].strip() else []
    words = {"true": True, "false": False, "none": None, "null": None}
    if part.lower() in words:
        return words[part.lower()]
    for kind in (int, float):
        try:
            return kind(part)
        except ValueError:
            continue
    return part
