"""Run directories, read: the arms that they form, and what forbids to compare them."""

from __future__ import annotations

import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from operators.errors import InputError
from tasks.config import userfiles
from tasks.system import results
from tasks.system.atomic_files import is_aside
from tasks.system.reading import UnreadableError, check_file, reading

PLACES = ("seed", "mode", "ckpt", "init", "data.root", "logger", "hydra")
"""Settings that do not make another arm: the seed, and where things lie."""
METRICS: dict[str, type] = dict.fromkeys(("task", "mixer", "data", "status", "backend"), str)
METRICS |= dict.fromkeys(("params", "macs", "mixer_macs"), int)
"""What every `metrics.json` holds, and of which type."""
PROVENANCE = {"versions": dict, "data": dict} | dict.fromkeys(
    ("git", "hardware", "effective_batch", "precision"), object
)
"""What every `provenance.json` holds."""


@dataclass(frozen=True)
class EndedRun:
    """One run directory, read."""

    path: Path
    settings: Mapping[str, Any]
    metrics: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @property
    def arm(self) -> tuple[tuple[str, str], ...]:
        return tuple((key, str(value)) for key, value in self.settings.items() if not _is_place(key))


def _is_place(key: str) -> bool:
    return any(key == place or key.startswith(f"{place}.") for place in PLACES)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, leaf) of a nested mapping, sorted."""
    for key, value in sorted(tree.items(), key=lambda item: str(item[0])):
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def read(path: Path) -> EndedRun:
    """Read a run directory.

    Raises:
        InputError: a file of a run is missing, cannot be read, or lacks what every run has.
    """
    settings = _mapping(path / "config.yaml", partial(_settings, path / "config.yaml"))
    metrics = _mapping(path / "metrics.json", json.loads)
    provenance = _mapping(path / "provenance.json", json.loads)
    _check_kinds(path / "config.yaml", settings, {"seed": int})
    _check_kinds(path / "metrics.json", metrics, METRICS)
    _check_kinds(path / "provenance.json", provenance, PROVENANCE)
    _check_kinds(path / "provenance.json", provenance["versions"], {"torch": str})
    _check_kinds(path / "provenance.json", provenance["data"], {"fingerprint": str | None})
    return EndedRun(path, dict(flatten(settings)), metrics, provenance)


def _settings(path: Path, text: str) -> Any:
    userfiles.check_text(str(path), text)
    return OmegaConf.to_container(OmegaConf.create(text))


def _mapping(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    text = results.read(path)
    if text is None:
        raise InputError(f"{path.parent} is not the directory of a run that has ended: it has no {path.name}")
    try:
        content = parse(text)
    except InputError:
        raise
    except (ValueError, YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise InputError(f"{path} is damaged, or no file of a run: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged, or no file of a run: it must hold a mapping")
    return content


def _check_kinds(path: Path, content: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    for key, kind in kinds.items():
        if key not in content or not isinstance(content[key], kind):
            raise InputError(f"{path} is damaged, or no file of a run: it lacks {key!r}, or holds something else there")


def find(paths: Sequence[Path]) -> list[EndedRun]:
    """The runs in `paths`, each a run directory or a folder above several."""
    runs = [read(folder) for path in paths for folder in _folders(path)]
    if not runs:
        raise InputError(f"no run (a folder with metrics.json) in {', '.join(map(str, paths))}")
    return runs


def _folders(path: Path) -> list[Path]:
    """The run directories in `path`, but for those that were set aside."""
    ended = []
    with reading(str(path)):
        if not path.exists():
            raise InputError(f"{path} is not there: give run directories, or folders above them")
        for place, folders, names in os.walk(path, onerror=_raise):
            folders[:] = [name for name in folders if not is_aside(name)]
            if "metrics.json" in names:
                ended.append(Path(place))
    return sorted(ended)


def _raise(error: OSError) -> NoReturn:
    raise error


def arms(runs: Sequence[EndedRun]) -> dict[str, list[EndedRun]]:
    """Runs grouped by arm, each named by the settings that differ between arms."""
    groups: dict[tuple[tuple[str, str], ...], list[EndedRun]] = {}
    for run in runs:
        groups.setdefault(run.arm, []).append(run)
    differing = _differing([dict(arm) for arm in groups])
    named: dict[str, list[EndedRun]] = {}
    for arm, members in groups.items():
        settings = dict(arm)
        parts = [f"{key.removesuffix('.name')}={settings[key]}" for key in differing if key in settings]
        named[" ".join(parts) or str(members[0].metrics["mixer"])] = members
    return named


def _differing(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Keys that name the arms: those with several values, a mixer's own parameters only between arms of that mixer."""
    keys = sorted({key for arm in settings for key in arm})
    chosen = []
    for key in keys:
        holders = [arm for arm in settings if key in arm]
        own = len(holders) < len(settings) and key != "mixer.name"
        if len({arm[key] for arm in holders}) > 1 or (own and not _explained(settings, key)):
            chosen.append(key)
    return chosen


def _explained(settings: Sequence[Mapping[str, str]], key: str) -> bool:
    """Whether the mixer's name alone says which arms have `key`."""
    having = {arm.get("mixer.name") for arm in settings if key in arm}
    return all((arm.get("mixer.name") in having) == (key in arm) for arm in settings)


def warnings(runs: Sequence[EndedRun]) -> list[str]:
    """What forbids or weakens a comparison of these runs, a line each."""
    facts: dict[str, Callable[[EndedRun], Any]] = {
        "revisions of the code": lambda run: str(run.provenance["git"]),
        "versions of torch": lambda run: run.provenance["versions"]["torch"],
        "processors": lambda run: str(run.provenance["hardware"]),
        "effective batches": lambda run: str(run.provenance["effective_batch"]),
        "precisions": lambda run: str(run.provenance["precision"]),
    }
    notes = [
        f"{len(kinds)} different {what}" for what, of in facts.items() if len(kinds := {of(run) for run in runs}) > 1
    ]
    for data in sorted({run.metrics["data"] for run in runs}):
        prints = {run.provenance["data"]["fingerprint"] for run in runs if run.metrics["data"] == data}
        if len(prints) > 1:
            notes.append(f"{len(prints)} different contents (fingerprints) of {data}")
        sizes = sorted({size for run in runs if run.metrics["data"] == data and (size := _test_size(run)) is not None})
        if len(sizes) > 1:
            notes.append(f"numbers of test images of {data}: {', '.join(map(str, sizes))}")
    notes += [f"{run.path}: status {run.metrics['status']}" for run in runs if run.metrics["status"] != "ok"]
    return notes


def _test_size(run: EndedRun) -> int | None:
    """How many images were tested, or were drawn for it; None if the run tested none."""
    if "test/n" in run.metrics:
        size = run.metrics["test/n"]
        if not isinstance(size, int | float) or not math.isfinite(size):
            raise InputError(f"{run.path / 'metrics.json'}: test/n={size!r} must be a number")
        return int(size)
    predictions = run.path / "predictions.npz"
    if not predictions.exists():
        return None
    import numpy as np  # here, since most comparisons need none of it

    try:
        check_file(predictions)
        with reading(str(predictions)), predictions.open("rb") as file, np.load(file) as kept:
            return len(kept["label"])
    except UnreadableError:
        raise
    except (OSError, EOFError, ValueError, LookupError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{predictions} is damaged: {' '.join(str(error).split())}") from error
