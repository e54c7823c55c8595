"""One run from the command line: `python run.py [overrides]`; `--help` says more."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig

from operators.command_line import Parser, begin, conclude
from operators.errors import InputError
from tasks.config import mixers
from tasks.config.overrides import check, normalise
from tasks.system import environment
from tasks.system.signals import Stop

if TYPE_CHECKING:
    from omegaconf import DictConfig

OK, FAILED = 0, 1
_TRACEBACK = "HYDRA_FULL_ERROR"


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
        parsed = Parser(prog="run.py", parents=[get_args_parser()], add_help=False).parse_intermixed_args(given)
    except InputError as error:
        return _complain(error)
    overrides = parsed.overrides
    program, traced = sys.argv, os.environ.get(_TRACEBACK)
    statuses, stop = [OK], Stop()

    def job(config: DictConfig) -> None:
        with _environment(_TRACEBACK, traced):
            statuses.append(_job(config, stop))

    try:
        environment.check()  # Lightning and torchmetrics fail of it when they are imported
        mixers.offer()
        check(parsed)
        changed = normalise(overrides)
        first = given.index(overrides[0]) if overrides else len(given)
        flags = [text for text in given[first:] if text not in overrides]
        sys.argv = [program[0], *given[:first], *changed, *flags]
        # Hydra reports errors in a way of its own, and exits with 1, unless it is told to raise them.
        with _environment(_TRACEBACK, "1"), stop:
            hydra.main(config_path="pkg://conf", config_name="config", version_base="1.3")(job)()
    except Exception as error:  # noqa: BLE001 - nobody else sees it; `_complain` tells wrong input from a bug
        from tasks.config.composition import refuses, translate

        problem = error
        if refuses(error):
            problem = translate(error, overrides)
            problem.__cause__ = error
        statuses.append(_complain(problem))
    finally:
        sys.argv = program
    return max(statuses)


def _job(config: DictConfig, stop: Stop) -> int:
    from omegaconf import OmegaConf

    from tasks.system import results

    if stop.name is not None:  # as the process began, or in an earlier job of a --multirun
        results.say(f"stopped by {stop.name} before it began: give the same command again")
        return FAILED
    from tasks.config.composition import settle

    job = HydraConfig.get()
    run_dir = Path(job.runtime.output_dir)
    try:
        overrides = OmegaConf.to_container(job.overrides.task, resolve=False)
        settings = settle(config, cast(list[str], overrides))
        from tasks.run.curves import Settings  # takes seconds, for which wrong input need not wait
        from tasks.run.execute import execute

        metrics = execute(settings, run_dir, callbacks=[Settings(settings.plain)], stop=stop)
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
