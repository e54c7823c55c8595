"""Command lines that are answered in one line, as all wrong input is."""

from __future__ import annotations

import argparse
import io
import sys
from typing import NoReturn

from operators.errors import InputError, nearest


class Parser(argparse.ArgumentParser):
    """Raises `InputError` where `argparse` would print its usage and leave."""

    def error(self, message: str) -> NoReturn:
        """Raise `message`, with the nearest option and where the rest is listed."""
        unknown = [word for word in message.split() if word.startswith("-") and "unrecognized" in message]
        guess = nearest(unknown[0].partition("=")[0], self._option_string_actions) if unknown else ""
        raise InputError(f"{message}{guess}; see {self.prog} --help")


def write_any_character() -> None:
    """Let standard output and error write what their encoding lacks as question marks: no error is worth a result."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
