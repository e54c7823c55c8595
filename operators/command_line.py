"""Command lines that are answered in one line, as all wrong input is."""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from operators.errors import InputError, nearest
from operators.runtime.idle import limit_spinning

if TYPE_CHECKING:
    from rich.console import Console

_HOME = Path(__file__).parents[1]
# What a write to a full device, a failing one or a closed descriptor raises.
_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EBADF)
_PACKAGES = ("models", "tasks", "ablations", "conf")
_WITHOUT_TERMINAL = 10_000
"""Columns where the output is no terminal: more than any table needs, so that none is cut or folded."""


class Parser(argparse.ArgumentParser):
    """Raises `InputError` where `argparse` would print its usage and leave."""

    def error(self, message: str) -> NoReturn:
        """Raise `message`, with the nearest option and where the rest is listed."""
        unknown = [word for word in message.split() if word.startswith("-") and "unrecognized" in message]
        guess = nearest(unknown[0].partition("=")[0], self._option_string_actions) if unknown else ""
        raise InputError(f"{message}{guess}; see {self.prog} --help")


def begin() -> None:
    """What every command does first, before torch is imported.

    Idle threads may sleep soon; standard output and error write what their encoding lacks as question marks; and where
    another module has the name of one of this project's packages, one line says so and the process ends with status 2.
    """
    limit_spinning()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of a cache folder that it cannot make
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started this process
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process lasts
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    for name in _PACKAGES:
        spec = find_spec(name)
        if spec is not None and spec.origin is not None and Path(spec.origin).parents[1] != _HOME:
            sys.stderr.write(
                f"error: {spec.origin} has the name of this project's package {name!r} and comes before it: "
                "rename it, or start from another folder\n"
            )
            sys.exit(2)


def console(**options: Any) -> Console:
    """A console of rich; in a pipe or a file its lines are as long as they need to be, unless `COLUMNS` is set.

    Args:
        options: those of rich's `Console`.
    """
    from rich.console import Console

    made = Console(**options)
    if not made.is_terminal and not made.is_jupyter and "COLUMNS" not in os.environ:
        made.width = _WITHOUT_TERMINAL
    return made


def conclude(main: Callable[[], int]) -> NoReturn:
    """End the process with the status that `main` returns, or 1 where its output cannot be written.

    One line says why, unless the reader of the output has merely left.
    """
    status = 1
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
    except OSError as error:
        if error.filename is not None or error.errno not in _OUTPUT:
            raise
        _discard(sys.stdout)
        status = 1
        with suppress(OSError):  # it may be standard error that is full
            sys.stderr.write(f"error: the output cannot be written: {error.strerror}\n")
    try:
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)
    sys.exit(status)


def _discard(stream: TextIO) -> None:
    """Let what is left in `stream` go nowhere, instead of failing again as the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
