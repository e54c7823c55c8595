"""Command lines that are answered in one line, as all wrong input is."""

from __future__ import annotations

import argparse
import io
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from operators.errors import InputError, nearest
from operators.runtime.idle import limit_spinning

_HOME = Path(__file__).parents[1]
_PACKAGES = ("models", "tasks", "ablations", "conf")


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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    for name in _PACKAGES:
        spec = find_spec(name)
        if spec is not None and spec.origin is not None and Path(spec.origin).parents[1] != _HOME:
            sys.stderr.write(
                f"error: {spec.origin} has the name of this project's package {name!r} and comes before it: "
                "rename it, or start from another folder\n"
            )
            sys.exit(2)
