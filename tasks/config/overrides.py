"""Command-line overrides before Hydra composes them. Imports no torch, so that `--help` answers at once."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString

from operators.errors import InputError
from tasks.config import userfiles
from tasks.system.atomic_files import PREVIOUS

PDE_MIXER = "pde_ssm"
"""The mixer whose parameters live in the top-level node `pde`."""

MOST_RUNS = 10_000
"""Of a --multirun: Hydra lists all of them before it begins."""

_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")
_GENERATORS = ("sample.", "task.network", "task.weights", "task.judge", "task.autoencoder")
"""How the keys begin that only generators have."""
_PROBE = "probe"
"""The group, and the node, that only probes have."""


def parse(overrides: Iterable[str]) -> list[Override]:
    """Hydra's reading of the overrides. Raises Hydra's `OverrideParseException`."""
    return OverridesParser.create().parse_overrides(list(overrides))


def check(arguments: Namespace) -> None:
    """Refuse what would fill the memory while Hydra composes it, of a command line as its parser reads it.

    Raises:
        InputError: too many runs, no folder for them, or a file of the user's that cannot be read.
        hydra.errors.OverrideParseException: an override that cannot be read.
    """
    runs, folders = 1, [arguments.config_dir, arguments.config_path]
    for override in parse(arguments.overrides):
        if override.is_sweep_override() and override.is_discrete_sweep():
            runs *= max(1, sum(1 for _ in islice(override.sweep_iterator(), MOST_RUNS + 1)))
        value = None if override.is_sweep_override() else override.value()
        if override.key_or_group in _FOLDERS and value == "":
            raise InputError(f"{override.key_or_group}= names no folder: give one, such as .")
        if override.key_or_group == "hydra.searchpath" and isinstance(value, list):
            folders += [str(place).removeprefix("file://") for place in value]
        if runs > MOST_RUNS:
            raise InputError(
                f"{override.input_line} makes more than {MOST_RUNS:,} runs: give --multirun fewer at a time"
            )
    userfiles.check(folder for folder in folders if folder is not None)


def normalise(overrides: Sequence[str]) -> list[str]:
    """The overrides as Hydra has to see them; done again, as the processes of a distributed run do, it changes nothing.

    * `mixer.params.NAME.KEY=…` and `mixer.over_depth.KEY=…` may create their keys: what has a place there depends on
      the pattern and the mixer;
    * a hybrid whose pattern has no PDE layer loses the node `pde`, so that `pde.*` is refused;
    * `probe.name=NAME` is `probe=NAME`, since each probe has dials of its own; without `task`, both and whatever else
      only probes have mean task=probe;
    * with `ckpt=PATH`, `mode=sample` and what only generators have mean a generator, so that its nodes exist;
    * `ckpt=PATH` in mode fit continues in the directory of that run.

    Raises:
        InputError: such a PATH lies in no run.
        hydra.errors.OverrideParseException: an override that cannot be read.
    """
    result = [f"++{text}" if text.startswith(("mixer.params.", "mixer.over_depth.")) else text for text in overrides]
    result = [text.replace("probe.name=", "probe=", 1) if text.startswith("probe.name=") else text for text in result]
    given = {override.key_or_group: override for override in parse(result)}
    values = {key: override.value() for key, override in given.items() if not override.is_sweep_override()}
    pattern = values.get("mixer.pattern")
    deleted = [override.key_or_group for override in parse(overrides) if override.is_delete()]
    without = isinstance(pattern, list) and PDE_MIXER not in map(str, pattern)
    if values.get("mixer") == "hybrid" and without and "pde" not in deleted:
        result.insert(0, "~pde")
    ckpt = values.get("ckpt")
    generates = values.get("mode") == "sample" or any(key.startswith(_GENERATORS) for key in given)
    if ckpt is not None and generates and "task" not in given:
        result.insert(0, "task=generation")
    if "task" not in given and (values.get("data") == _PROBE or any(key.split(".")[0] == _PROBE for key in given)):
        result.insert(0, "task=probe")
    if ckpt is not None and values.get("mode", "fit") == "fit" and "hydra.run.dir" not in given:
        path = Path(str(ckpt))
        if os.path.isfile(path) or os.path.isfile(path.with_name(PREVIOUS)):
            if path.absolute().parent.name != "checkpoints":
                raise InputError(
                    f"ckpt={path} continues a run only from where the run has put it, RUN/checkpoints/NAME.ckpt: "
                    "move it back, or start a new run from its weights with init=PATH"
                )
            result.insert(0, f"hydra.run.dir={QuotedString(str(run_directory(path)), Quote.single).with_quotes()}")
    return result


def run_directory(checkpoint: Path) -> Path:
    """The run that wrote `RUN/checkpoints/NAME.ckpt`."""
    return Path(os.path.realpath(checkpoint)).parent.parent  # which, unlike `Path.resolve`, bears a link to itself
