"""`python -m ablations study=NAME [study.…] [any run.py override]`: a study from the command line."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.masking import masked
from operators.command_line import begin, conclude
from operators.errors import InputError, check_names

if TYPE_CHECKING:
    from ablations.scheduling.request import Request
    from ablations.until import Look

OK, FAILED, WRONG_INPUT = 0, 1, 2
LONGEST = 1000
"""Characters of what is said of wrong input."""
OPTIONS = ("seeds", "storage", "dir", "name", "trials", "tuning", "until", "blocks", "levels")

HELP = """\
Carry out a study, or what is left of it, and write its report.

  python -m ablations study=NAME [study.OPTION=VALUE] ... [any override of run.py] ...

Studies: {studies}; or a file of your own, study=path/to/my.yaml;
or DIR/study.yaml of a study that was carried out, to repeat it as NAME-repeat

Options:
  study.seeds=N       seeds of every arm: 0, ..., N-1; may be raised later
  study.until={{decide: true, most: N}}  add seeds until each effect of the answer is shown, or the best arm told apart
                      from all others, up to N seeds (20); or study.until={{halfwidth: X}}; intervals hold at every look
  study.workers=N     processes that carry out trials (1); on this machine, each has its share of the cores
  study.dir=DIR       where everything goes (outputs/studies/NAME)
  study.storage=URL   sqlite:///FILE (study.db in study.dir), postgresql://USER:PASSWORD@HOST/DB, journal:FILE
  study.name=NAME     the study's name in the storage, and of its directory
  study.trials=N      of a search (tune, pareto); may be raised later
  study.levels={{mixer: [identity, attention, pde_ssm]}}  of each factor named, these levels alone
  study.blocks=[NAME, ...]  these blocks alone
  study.tuning=false  leave out the tuning of each arm's learning rate; the report says so
  study.engine=NAME   where the workers run: local (this machine), ray or slurm (see docs/guide/clusters.md)
  study.cpus=N        of each worker on ray and slurm (1), study.gpus=N (0)
  study.address=HOST  of the Ray cluster; without it, one is begun on this machine
  study.slurm={{time: MINUTES, partition: NAME, ...}}  options of sbatch

The same command on other machines, with the same study.storage, joins the study. Run again, it continues, and lets
what failed try once more; of a finished study it only builds the report again.

Exit status: 0 every trial has a result; 1 one failed, or it was stopped or lost its storage; 2 the input was wrong.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for; its exit status."""
    begin()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or "-h" in given or "--help" in given:
        sys.stdout.write(HELP.format(studies=", ".join(_studies())))
        return OK
    from tasks.system import environment

    try:
        environment.check()
        request = read(given)
    except InputError as error:
        return _complain(error, WRONG_INPUT)
    from ablations.scheduling.runner import run
    from ablations.scheduling.storage import StorageError, disk_is_full

    try:
        return run(request, _report, _look)
    except InputError as error:
        return _complain(error, WRONG_INPUT)
    except StorageError as error:
        return _complain(error, FAILED)
    except KeyboardInterrupt:
        return _complain(RuntimeError("stopped"), FAILED)
    except OSError as error:
        if not disk_is_full(error):
            raise
        return _complain(error, FAILED)


def read(given: Sequence[str]) -> Request:
    """The command line's request.

    Raises:
        InputError: an option that is unknown, or its value.
    """
    from ablations import nodes, plan, studyfile
    from ablations.scheduling.engines import settings
    from ablations.scheduling.request import Request

    options: dict[str, str] = {}
    overrides = []
    for text in given:
        key, equals, value = text.partition("=")
        if text.startswith("-") or (not equals and not text.startswith("~")):
            raise InputError(f"{text!r} is no override: give study=NAME, study.OPTION=VALUE or KEY=VALUE")
        if key == "study" or key.startswith("study."):
            options[key.removeprefix("study.")] = value
        else:
            overrides.append(text)
    if not options.get("study"):
        raise InputError(f"no study=NAME: allowed are {', '.join(_studies())}, or the path of a file")
    node, recorded = studyfile.repeated(studyfile.load(options.pop("study")))
    check_names("study", options, (*OPTIONS, *settings.OPTIONS))
    engine = settings.read({name: value for name, value in options.items() if name in settings.OPTIONS})
    for name in ("seeds", "trials"):
        if name in options:
            node[name] = settings.whole(name, options[name], plan.MOST_TRIALS)
    if "name" in options:
        node["name"] = options["name"]
    if "tuning" in options:
        if options["tuning"] != "false" or node.get("kind", "factorial") != "factorial":
            raise InputError("study.tuning can only be false, for a factorial study: its YAML says what is tuned")
        node.pop("tuning", None)
    if "until" in options:
        node["until"] = studyfile.value("until", options["until"])
    narrow = {name: studyfile.value(name, options[name]) for name in ("blocks", "levels") if name in options}
    if narrow:
        if node.get("kind", "factorial") != "factorial":
            raise InputError(f"study.{next(iter(narrow))} is for factorial studies, which have blocks and levels")
        node = studyfile.narrowed(node, **narrow)
    name = nodes.check_study_name(node["name"])
    directory = _directory(options.get("dir") or str(Path("outputs", "studies", name)))
    from ablations.scheduling import storage, urls

    url = options.get("storage") or urls.default_url(directory)
    if engine.elsewhere and url.startswith("sqlite"):
        raise InputError(
            f"workers of study.engine={engine.engine} on other machines cannot share an SQLite file: give "
            "study.storage=journal:FILE, on a file system that all of them see, or postgresql://…"
        )
    try:
        storage.reach(url)
    except storage.StorageError as error:
        raise InputError(str(error)) from error
    return Request(node=node, given=(*recorded, *overrides), directory=directory, storage=url, engine=engine)


def _report(directory: Path) -> Path:
    from ablations import report  # here, since refusing a study needs none of it

    return report.build(directory)


def _look(directory: Path, seeds: int) -> Look:
    from ablations.analysis import study
    from ablations.analysis.axes import looks

    return looks.look(study.read(directory), seeds)


def _directory(text: str) -> Path:
    try:
        return Path(os.path.realpath(text))
    except (OSError, ValueError) as error:
        raise InputError(f"study.dir={text!r} cannot be a folder: {error}") from error


def _studies() -> list[str]:
    import conf

    return sorted(path.stem for path in (Path(conf.__file__).parent / "study").glob("*.yaml"))


def _complain(error: Exception, status: int) -> int:
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        sys.stderr.write(masked("".join(traceback.format_exception(error))))
    else:
        text = masked(" ".join(str(error).split()))
        sys.stderr.write(f"error: {text if len(text) <= LONGEST else f'{text[:LONGEST]}…'}\n")
    return status


if __name__ == "__main__":
    conclude(main)
