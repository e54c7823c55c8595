"""The options `study.engine` and those that belong to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import yaml  # type: ignore[import-untyped]

from operators.errors import InputError, check_choice, check_number

ENGINES: Mapping[str, tuple[str, ...]] = {
    "local": (),
    "ray": ("address", "cpus", "gpus"),
    "slurm": ("slurm", "cpus", "gpus"),
}
"""Engines, and the options that each has besides the number of workers."""
PACKAGES: Mapping[str, str] = {"ray": "ray", "slurm": "submitit"}
OPTIONS = ("engine", "workers", "address", "cpus", "gpus", "slurm")
MOST_WORKERS = 1000
MOST_CPUS = 1024


@dataclass(frozen=True)
class EngineSettings:
    """Where the workers run, and what each of them gets.

    Args:
        engine: one of `ENGINES`.
        workers: how many.
        cpus: of each worker.
        gpus: of each worker; on Ray also a part of one.
        address: of a Ray cluster; None begins one on this machine.
        slurm: options of `sbatch` by name, `time` in minutes; `cluster=local` runs the jobs on this machine.
    """

    engine: str = "local"
    workers: int = 1
    cpus: int = 1
    gpus: float = 0
    address: str | None = None
    slurm: Mapping[str, str] = field(default_factory=dict)

    @property
    def elsewhere(self) -> bool:
        """Whether workers may run on other machines than this one."""
        return self.address is not None or (self.engine == "slurm" and self.slurm.get("cluster") != "local")


def read(given: Mapping[str, str]) -> EngineSettings:
    """From the options `study.NAME` that are of `OPTIONS`.

    Raises:
        InputError: one that the engine does not have, or its value.
    """
    engine = check_choice("study.engine", given.get("engine", "local"), ENGINES)
    if engine in PACKAGES and find_spec(PACKAGES[engine]) is None:
        raise InputError(
            f"study.engine={engine} needs a package that is not there: pip install 'operator-zoo[{engine}]'"
        )
    for name in given:
        owners = [owner for owner, names in ENGINES.items() if name in names]
        if owners and engine not in owners:
            raise InputError(f"study.{name} is of study.engine={' and '.join(owners)}, not of {engine}")
    most = max(8, 4 * (os.cpu_count() or 1)) if engine == "local" else MOST_WORKERS
    gpus = _number(given.get("gpus", "0"))
    check_number("study.gpus", gpus, least=0, integer=engine == "slurm")
    return EngineSettings(
        engine,
        whole("workers", given.get("workers", "1"), most),
        whole("cpus", given.get("cpus", "1"), MOST_CPUS),
        gpus,
        given.get("address"),
        _slurm(given.get("slurm", "{}")) if engine == "slurm" else {},
    )


def whole(name: str, text: str, most: int) -> int:
    """The value of the option `study.NAME`: an integer from 1 to `most`; raises `InputError` where it is none."""
    value = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else text[:30]
    check_number(f"study.{name}", value, least=1, most=most, integer=True)
    assert isinstance(value, int)
    return value


def _number(text: str) -> Any:
    """The number that `text` is, or else its beginning, which is refused as no number."""
    try:
        return int(text[:30]) if text.isdecimal() else float(text[:30])
    except ValueError:
        return text[:30]


def _slurm(text: str) -> dict[str, str]:
    try:
        options = yaml.load(text, Loader=yaml.BaseLoader)  # makes nothing but texts, lists and mappings
    except yaml.YAMLError:
        options = None
    if not isinstance(options, dict) or not all(isinstance(value, str) for value in options.values()):
        raise InputError(f"study.slurm={text!r} must be options of sbatch: {{partition: gpu, time: 240, mem: 16G}}")
    if not options.get("time", "").isdecimal() or not int(options["time"]):
        raise InputError(f"study.slurm={text!r} needs time: MINUTES, a whole number, after which a job starts again")
    if options.get("cluster", "local") != "local":
        raise InputError(f"study.slurm cluster={options['cluster']!r} can only be local, which needs no SLURM")
    return options
