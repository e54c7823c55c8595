"""`python -m operators.benchmark`: time and memory of every mixer, checked before it is timed."""

from __future__ import annotations

from operators.command_line import begin, conclude

if __name__ == "__main__":
    begin()  # before torch is imported

import sys
from collections.abc import Sequence

from operators.benchmark import options
from operators.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the command line; exit statuses as those of `operators.benchmark.command.run`."""
    try:
        options.read(argv)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    from rich.console import Console

    from operators.benchmark import command  # imports torch, for which wrong input need not wait

    return command.run(lambda: command.parse(argv), Console(markup=False, highlight=False, stderr=True))


if __name__ == "__main__":
    conclude(main)
