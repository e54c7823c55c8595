"""One run from the command line: `python run.py [overrides]`; `--help` says more."""

from __future__ import annotations

import math
import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from operators.command_line import Parser, begin, conclude
from operators.errors import InputError
from tasks.config import mixers
from tasks.config.overrides import check, normalise, parse
from tasks.system import environment
from tasks.system.hydra_private import arguments_parser, mode_by_flag
from tasks.system.signals import Stop

if TYPE_CHECKING:
    from omegaconf import DictConfig

OK, FAILED = 0, 1
_TRACEBACK = "HYDRA_FULL_ERROR"
_USERS = ("hydra", "experiment")
"""Groups of options that a user's own files serve."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for.

    Args:
        arguments: overrides and Hydra's flags; None takes those of the process.

    Returns:
        exit status: 0 every run is ok, 1 one failed or diverged, 2 one was given wrong input.
    """
    begin()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parsed = Parser(prog="run.py", parents=[arguments_parser()], add_help=False).parse_intermixed_args(given)
    except InputError as error:
        return _complain(error)
    overrides = parsed.overrides
    program, traced = sys.argv, os.environ.get(_TRACEBACK)
    statuses, stop = [OK], Stop()
    results: dict[Path, Mapping[str, Any]] = {}

    def job(config: DictConfig) -> None:
        with _environment(_TRACEBACK, traced):
            statuses.append(_job(config, stop, results, changed))

    try:
        environment.check()  # Lightning and torchmetrics fail of it when they are imported
        mixers.offer(given)
        check(parsed)
        changed = normalise(overrides)
        first = given.index(overrides[0]) if overrides else len(given)
        flags = [text for text in given[first:] if text not in overrides]
        sys.argv = [program[0], *given[:first], *changed, *flags]
        # Hydra reports errors in a way of its own, and exits with 1, unless it is told to raise them.
        with _environment(_TRACEBACK, "1"), stop, nullcontext() if _may_set_mode(parsed, changed) else mode_by_flag():
            hydra.main(config_path="pkg://conf", config_name="config", version_base="1.3")(job)()
        _compare(results)
    except Exception as error:  # noqa: BLE001 - nobody else sees it; `_complain` tells wrong input from a bug
        from tasks.config.hydra_errors import refuses, translate

        problem = error
        if refuses(error):
            problem = translate(error, overrides)
            problem.__cause__ = error
        statuses.append(_complain(problem))
    finally:
        sys.argv = program
    return max(statuses)


def _may_set_mode(parsed: Namespace, overrides: Sequence[str]) -> bool:
    """Whether `hydra.mode` may be set other than by a flag: by an override, or in a file of the user's."""
    groups = {override.key_or_group.split(".")[0] for override in parse(overrides)}
    return parsed.config_dir is not None or parsed.config_name is not None or not groups.isdisjoint(_USERS)


def _job(config: DictConfig, stop: Stop, done: dict[Path, Mapping[str, Any]], given: Sequence[str]) -> int:
    """Carry out one run and add what came out to `done`; returns the exit status."""
    from omegaconf import OmegaConf

    from tasks.system import results

    if stop.name is not None:  # as the process began, or in an earlier job of a --multirun
        results.say(f"stopped by {stop.name} before it began: give the same command again")
        return FAILED
    from tasks.config.composition import settle

    job = HydraConfig.get()
    run_dir = Path(job.runtime.output_dir)
    overrides = cast(list[str], OmegaConf.to_container(job.overrides.task, resolve=False))
    try:
        if job.mode == RunMode.MULTIRUN:
            sys.stdout.write(f"\n{_title(job, overrides, config.get('seed'), given)}\n")
        settings = settle(config, overrides)
        from tasks.run.curves import Settings  # takes seconds, for which wrong input need not wait
        from tasks.run.execute import execute

        done[run_dir] = metrics = execute(settings, run_dir, callbacks=[Settings(settings.plain)], stop=stop)
    except InputError as error:
        with suppress(OSError):  # Hydra has made the directory; it stays if there is something in it
            run_dir.rmdir()
        return _complain(error)
    except Exception as error:  # noqa: BLE001 - the other jobs of a --multirun go on
        return _complain(error)
    if metrics["status"] != "ok":
        results.say(f"diverged at step {metrics['diverged/step']}: first non-finite in {metrics['diverged/layer']}")
        return FAILED
    return OK


def _title(job: Any, overrides: Sequence[str], seed: Any, given: Sequence[str]) -> str:
    """What a job of a --multirun is: its number (of how many, where Hydra's own sweeper serves), overrides and seed."""
    total = ""
    if job.sweeper["_target_"].endswith(".BasicSweeper") and not job.sweeper.get("params"):
        sweeps = [override for override in parse(given) if override.is_sweep_override()]
        total = f" of {math.prod(len(list(override.sweep_string_iterator())) for override in sweeps)}"
    named = any(text.startswith("seed=") for text in overrides)
    return f"job {job.job.num + 1}{total}: {' '.join([*overrides, *([] if named else [f'seed={seed}'])])}"


def _compare(runs: Mapping[Path, Mapping[str, Any]]) -> None:
    """Print several runs side by side, by their scores on the test split or, where they read none, on validation."""
    scores = [set(metrics) for metrics in runs.values() if metrics["status"] == "ok"]
    if len(runs) < 2 or not scores or len({metrics["task"] for metrics in runs.values()}) > 1:
        return
    shared = set.intersection(*scores)
    tested, validated = (
        [key for key in (f"{split}/accuracy", f"{split}/loss") if key in shared] for split in ("test", "val")
    )
    if not tested and not validated:
        return
    from ablations import compare

    asked = [] if tested else ["--metric", validated[0]]
    folder = os.path.relpath(os.path.commonpath([str(path) for path in runs]))
    sys.stdout.write(f"\n{' '.join(['python -m ablations.compare', folder, *asked])}\n")
    compare.main([*map(str, runs), *asked])


def _complain(error: Exception) -> int:
    """Report `error` in the way of `tasks.system.failure.explain`; returns the exit status."""
    from tasks.system import results
    from tasks.system.failure import explain

    status, text = explain(error)
    results.say(text)
    return status


@contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    """Set (None: unset) an environment variable for a while."""
    before = os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


if __name__ == "__main__":
    conclude(main)
