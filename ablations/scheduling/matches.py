"""The widths that a budget of time means: measured once for each arm, whatever its seeds and learning rates."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from operators.errors import InputError
from tasks.config import schema
from tasks.config.composition import compose
from tasks.costs import match
from tasks.system import results

FILE, LOCK = "matches.json", "matches.lock"
WAIT = 1.0
"""Seconds between looks at whether to stop, while another worker measures."""

_PLACE = ("root", "num_workers")
_TRAINER = ("accelerator", "precision", "compile", "clip", "accumulate")


def settled(
    config: Mapping[str, Any],
    directory: Path,
    planned: Iterable[Sequence[str]],
    look: Callable[[], None],
) -> dict[str, Any]:
    """The configuration of a trial, with the width that its budget of time means, if it has one.

    The first worker that needs one measures all arms, one after the other, while the other workers wait: nothing else
    runs on the machine then. What it finds is kept in `matches.json` in the study's directory.

    Args:
        config: as composed.
        directory: of the study.
        planned: overrides of the study's trials.
        look: raises where the worker has to stop.

    Raises:
        InputError: see `tasks.costs.match.settle`.
    """
    if not match.wanted(config):
        return dict(config)
    while True:
        look()
        try:
            with FileLock(directory / LOCK, timeout=WAIT):
                known = _known(directory)
                if key(config) not in known:
                    _measure(config, directory, planned, look, known)
                return {**config, "model": {**config["model"], **known[key(config)]}}
        except Timeout:
            continue


def recalled(config: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """The configuration with the width that was measured for it in this study.

    Raises:
        InputError: none was.
    """
    if not match.wanted(config):
        return dict(config)
    known = _known(directory).get(key(config))
    if known is None:
        raise InputError(f"{FILE} has no width for a budget of time")
    return {**config, "model": {**config["model"], **known}}


def key(config: Mapping[str, Any]) -> str:
    """Digest of what the time of a training step depends on: not the seed, the rate, or how long a run is."""
    parts = {name: config.get(name) for name in ("task", "mixer", "shell", "pde", "model")}
    parts["data"] = {name: value for name, value in config["data"].items() if name not in _PLACE}
    parts["optimizer"] = config["optimizer"]["name"]
    parts["trainer"] = [config["trainer"].get(name) for name in _TRAINER]
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _measure(
    config: Mapping[str, Any],
    directory: Path,
    planned: Iterable[Sequence[str]],
    look: Callable[[], None],
    measured: dict[str, Any],
) -> None:
    """Add what the trial's own budget means, and that of every other planned arm, to what is `found`."""
    _add(config, directory, measured)
    for overrides in dict.fromkeys(map(tuple, planned)):
        look()
        other = compose(overrides)
        if key(other) not in measured and match.wanted(other):
            try:
                _add(other, directory, measured)
            except InputError:
                continue  # trials of that arm will say so


def _add(config: Mapping[str, Any], directory: Path, measured: dict[str, Any]) -> None:
    model = match.settle(schema.parse(config)).model
    measured[key(config)] = {name: model[name] for name in ("hidden", "match")}
    results.write_json(directory / FILE, measured)


def _known(directory: Path) -> dict[str, Any]:
    known: dict[str, Any] = json.loads(results.read(directory / FILE) or "{}")
    return known
