"""A hostile case: how to make its files, what to run, and which answers are good."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.hostile.store import Store

Step = Callable[[Path, "Store"], None]
"""Makes files in the case's working directory, from good ones of the store."""

OK, FAILED, REFUSED = 0, 1, 2
TINY = (
    "mixer=pool",
    "model.dim=16",
    "model.depth=1",
    "data.batch_size=32",
    "trainer=smoke",
    "trainer.accelerator=cpu",
    "logger=none",
)
DRAWING = ("task=generation", *TINY[:3], "data.batch_size=8", *TINY[4:])


@dataclass(frozen=True)
class Case:
    """One command line in one working directory.

    Attributes:
        name: what is hostile about it; unique in its area.
        command: words after `python`, split as a shell does; `run.py` is the project's.
        make: steps that fill the working directory.
        allowed: exit statuses of a good answer.
        says: regular expression that the output has to match.
        secret: text that neither the output nor any file may hold afterwards.
        check: looks at the working directory after exit status 0; returns what is wrong, or nothing.
        environment: variables to set, or with None to unset; `{work}` stands for the working directory.
        limits: options of `prlimit`, such as `nofile=64`.
        mount: size of a small `/dev/shm` that the command gets, which takes root's rights.
        redirect: end of the shell command, such as `>/dev/full`; empty: no shell.
        changes: patterns of files that the command may change, make or remove, relative to the working directory.
        moves: patterns of files that it may move, but whose content must stay somewhere.
        seconds: after which it counts as hanging.
        lines: of its message on standard error, at most.
        traces: file of the user's own code whose error has to show its traceback, for whoever writes it.
        area: name of the table that it stands in.
    """

    name: str
    command: str
    make: tuple[Step, ...] = ()
    allowed: tuple[int, ...] = (REFUSED,)
    says: str = ""
    secret: str = ""
    check: Callable[[Path], str] | None = None
    environment: Mapping[str, str | None] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    mount: str = ""
    redirect: str = ""
    changes: tuple[str, ...] = ()
    moves: tuple[str, ...] = ()
    seconds: float = 150.0
    lines: int = 1
    traces: str = ""
    area: str = ""

    @property
    def label(self) -> str:
        return f"{self.area}/{self.name}"


def run(*overrides: str, base: tuple[str, ...] = TINY) -> str:
    """The command line of a tiny run, in which `overrides` replace the tiny run's own."""
    own = {override.partition("=")[0].lstrip("+~") for override in overrides}
    kept = [word for word in base if word.partition("=")[0] not in own]
    return " ".join(["run.py", *kept, *(_quote(override) for override in overrides)])


def drawing(*overrides: str) -> str:
    """As `run`, of a tiny generator."""
    return run(*overrides, base=DRAWING)


def _quote(word: str) -> str:
    return "'" + word.replace("'", "'\"'\"'") + "'"
