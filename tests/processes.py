"""Programs in processes of their own, forked from one that has only imported modules, which takes ten seconds.

No test has run there: the registry, the settings and the working directory of a program are its own. A new interpreter
is needed only to see what a program imports, and what it does before that.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

CLEAN = multiprocessing.get_context("forkserver")
CLEAN.set_forkserver_preload(["tasks.run.execute", "pytest", "numba", "scipy.stats", "matplotlib.pyplot"])


@dataclass(frozen=True)
class Ended:
    """What a process has left: its exit status and what it has written."""

    returncode: int
    stdout: str
    stderr: str


def run(
    program: str, folder: Path, arguments: tuple[str, ...] = (), environment: Mapping[str, str] | None = None
) -> Ended:
    """Run the text of a program as `python -c` would, in that folder, on one thread.

    Args:
        program: its text.
        folder: its working directory.
        arguments: what it finds in `sys.argv` after its name.
        environment: what changes in the environment; the folders of `PYTHONPATH` come before all others.
    """
    with TemporaryDirectory() as scratch:
        outputs = [Path(scratch, name) for name in ("stdout", "stderr")]
        process = CLEAN.Process(target=_child, args=(program, folder, arguments, dict(environment or {}), outputs))
        process.start()
        process.join()
        assert process.exitcode is not None
        return Ended(process.exitcode, *(path.read_text(errors="replace") for path in outputs))


def _child(
    program: str, folder: Path, arguments: tuple[str, ...], environment: dict[str, str], outputs: list[Path]
) -> None:
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    os.environ.update(environment)
    sys.path[:0] = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.argv = ["-c", *arguments]
    torch.set_num_threads(1)
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
