"""`python -m ablations.compare RUN_DIR…`: runs side by side, as a Markdown table.

Runs that differ in nothing but the seed are one arm. Arms are named by the settings in which they differ; scores are
means over seeds with 95 % t intervals; differences to the reference arm are paired by seed. What forbids a comparison
(other data, another revision, a run that did not end well) is said above the table.
"""

from __future__ import annotations

from operators.command_line import Parser, begin, conclude

if __name__ == "__main__":
    begin()  # before torch is imported

import json
import os
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NoReturn

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from ablations.statistics import Interval, t_interval
from operators.errors import InputError, check_choice
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
class Run:
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


def read(path: Path) -> Run:
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
    return Run(path, dict(flatten(settings)), metrics, provenance)


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


def find(paths: Sequence[Path]) -> list[Run]:
    """The runs in `paths`, each a run directory or a folder above several."""
    runs = [read(folder) for path in paths for folder in _folders(path)]
    if not runs:
        raise InputError(f"no run (a folder with metrics.json) in {', '.join(map(str, paths))}")
    return runs


def _folders(path: Path) -> list[Path]:
    """The run directories in `path`, but for those that were set aside."""
    found = []
    with reading(str(path)):
        for place, folders, names in os.walk(path, onerror=_raise):
            folders[:] = [name for name in folders if not is_aside(name)]
            if "metrics.json" in names:
                found.append(Path(place))
    return sorted(found)


def _raise(error: OSError) -> NoReturn:
    raise error


def arms(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs grouped by arm, each named by the settings that differ between arms."""
    groups: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(run.arm, []).append(run)
    differing = _differing([dict(arm) for arm in groups])
    named: dict[str, list[Run]] = {}
    for arm, members in groups.items():
        settings = dict(arm)
        said = [f"{key.removesuffix('.name')}={settings[key]}" for key in differing if key in settings]
        named[" ".join(said) or str(members[0].metrics["mixer"])] = members
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


def warnings(runs: Sequence[Run]) -> list[str]:
    """What forbids or weakens a comparison of these runs, a line each."""
    facts: dict[str, Callable[[Run], Any]] = {
        "revisions of the code": lambda run: str(run.provenance["git"]),
        "versions of torch": lambda run: run.provenance["versions"]["torch"],
        "processors": lambda run: str(run.provenance["hardware"]),
        "effective batches": lambda run: str(run.provenance["effective_batch"]),
        "precisions": lambda run: str(run.provenance["precision"]),
    }
    said = [
        f"{len(kinds)} different {what}" for what, of in facts.items() if len(kinds := {of(run) for run in runs}) > 1
    ]
    for data in sorted({run.metrics["data"] for run in runs}):
        prints = {run.provenance["data"]["fingerprint"] for run in runs if run.metrics["data"] == data}
        if len(prints) > 1:
            said.append(f"{len(prints)} different contents (fingerprints) of {data}")
        sizes = sorted({size for run in runs if run.metrics["data"] == data and (size := _test_size(run)) is not None})
        if len(sizes) > 1:
            said.append(f"numbers of test images of {data}: {', '.join(map(str, sizes))}")
    said += [f"{run.path}: status {run.metrics['status']}" for run in runs if run.metrics["status"] != "ok"]
    return said


def headline(runs: Sequence[Run]) -> list[str]:
    """The metrics that runs of a task are compared by.

    Raises:
        InputError: runs of several tasks.
    """
    tasks = sorted({str(run.metrics["task"]) for run in runs})
    if len(tasks) > 1:
        raise InputError(f"runs of several tasks ({', '.join(tasks)}): compare those of one, or give --metric")
    if tasks == ["classification"]:
        return ["test/accuracy"]
    distances = {key for run in runs for key in run.metrics if re.fullmatch(r"test/(fid|fd_[^/]+)", key)}
    return ["test/loss", *sorted(distances)]


def _test_size(run: Run) -> int | None:
    """How many images were tested, or were drawn for it; None if the run tested none."""
    if "test/n" in run.metrics:
        return int(run.metrics["test/n"])
    predictions = run.path / "predictions.npz"
    if not predictions.exists():
        return None
    try:
        check_file(predictions)
        with reading(str(predictions)), predictions.open("rb") as file, np.load(file) as kept:
            return len(kept["label"])
    except UnreadableError:
        raise
    except (OSError, EOFError, ValueError, LookupError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{predictions} is damaged: {' '.join(str(error).split())}") from error


def table(runs: Sequence[Run], metrics: Sequence[str], reference: str | None = None) -> str:
    """Markdown table of arms, data set by data set, best first by the mean of the first of `metrics` over seeds."""
    ended = [run for run in runs if run.metrics["status"] == "ok"]
    for run in ended:
        known = [key for key, value in run.metrics.items() if isinstance(value, int | float)]
        for metric in metrics:
            check_choice("metric", metric, known)
    by_data: dict[str, list[Run]] = {}
    for run in ended:
        by_data.setdefault(run.metrics["data"], []).append(run)
    named = {data: arms(members) for data, members in by_data.items()}
    if reference is not None:
        check_choice("reference", reference, sorted({name for group in named.values() for name in group}))
    header = ["data", "arm", "seeds"]
    for metric in metrics:
        header += [metric, f"paired difference to {reference}"] if reference else [metric]
    header += ["parameters", "mixer MACs", "MACs", "training s", "backend"]
    rows = [row for data, group in named.items() for row in _rows(data, group, metrics, reference)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])


def _rows(
    data: str, group: Mapping[str, list[Run]], metrics: Sequence[str], reference: str | None
) -> Iterator[list[str]]:
    by_metric = {
        metric: {name: {run.settings["seed"]: run.metrics[metric] for run in runs} for name, runs in group.items()}
        for metric in metrics
    }
    means = {name: t_interval(list(values.values())).mean for name, values in by_metric[metrics[0]].items()}
    for name in sorted(group, key=lambda name: means[name], reverse=_more_is_better(metrics[0])):
        row = [data, name, str(len(group[name]))]
        for by_arm in by_metric.values():
            row.append(show(t_interval(list(by_arm[name].values()))))
            if reference:
                other = by_arm.get(reference, {})
                row.append("—" if name == reference or not other else show(paired(by_arm[name], other)))
        first = group[name][0].metrics
        seconds = [float(run.metrics["train/seconds"]) for run in group[name] if run.metrics.get("train/seconds")]
        row += [f"{first['params']:,}", f"{first['mixer_macs']:,}", f"{first['macs']:,}"]
        row.append(f"{median(seconds):.0f}" if seconds else "—")
        yield [*row, str(first["backend"])]


def _more_is_better(metric: str) -> bool:
    return "accuracy" in metric or metric.endswith("per_second")


def paired(values: Mapping[Any, float], others: Mapping[Any, float]) -> Interval | None:
    """Interval of the differences of two arms over the seeds they share; None if they share none."""
    shared = sorted(values.keys() & others.keys())
    return t_interval([values[seed] - others[seed] for seed in shared]) if shared else None


def show(interval: Interval | None) -> str:
    """`mean ± half`, or the mean alone where one value gives no interval."""
    if interval is None:
        return "no common seed"
    return f"{interval.mean:.4f}" + (f" ± {interval.half:.4f}" if interval.n > 1 else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; exit status 2 with one line on wrong input."""
    parser = Parser(prog="python -m ablations.compare", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="run directories, or folders of runs")
    parser.add_argument(
        "--metric",
        action="append",
        help="a key of metrics.json; may be given again (default: test/accuracy, or test/loss and Fréchet distances)",
    )
    parser.add_argument("--reference", help="the arm that others are compared with, as the table names it")
    try:
        given = parser.parse_args(arguments)
        runs = find(given.runs)
        text = table(runs, given.metric or headline(runs), given.reference)
        notes = warnings(runs)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    for line in notes:
        sys.stdout.write(f"> not the same for all: {line}\n")
    sys.stdout.write(f"{text}\n")
    return 0


if __name__ == "__main__":
    conclude(main)
