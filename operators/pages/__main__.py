"""`python -m operators.pages NAME`: the page of a mixer, as Markdown with pictures."""

from __future__ import annotations

from operators.command_line import Parser, begin, conclude

if __name__ == "__main__":
    begin()  # before torch is imported

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from operators import registry
from operators.errors import InputError, check_choice


def contents(names: Sequence[str]) -> Iterator[tuple[str, str | bytes]]:
    """File names and contents: a page for each mixer, its pictures, and an overview.

    Raises:
        InputError: matplotlib is not installed.
    """
    from operators.benchmark import plots
    from operators.pages import drawing, page, timing

    refusal = plots.unavailable()
    if refusal:
        raise InputError(refusal)
    times = timing.measure(names)
    yield "index.md", page.overview(names)
    for name in names:
        made = page.mixer_page(name, times)
        yield f"{name}.md", made.markdown
        for file, figure in made.figures.items():
            yield file, drawing.png(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pages; the exit status is 0, or 2 for wrong input, explained in one line."""
    parser = Parser(prog="python -m operators.pages", description="Write the pages of mixers: Markdown and pictures.")
    parser.add_argument("names", metavar="NAME", nargs="*", help="mixers (all)")
    parser.add_argument("--out", type=Path, default=Path("outputs/pages"), help="folder (outputs/pages)")
    try:
        options = parser.parse_args(argv)
        known = registry.names()
        names = [check_choice("mixer", name, known) for name in options.names] or known
        try:
            options.out.mkdir(parents=True, exist_ok=True)
            for file, content in contents(names):
                path = options.out / file
                path.write_bytes(content.encode() if isinstance(content, str) else content)
        except OSError as error:
            raise InputError(f"out: {options.out} cannot be used: {error.strerror}") from error
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write("".join(f"{options.out / name}.md\n" for name in names))
    return 0


if __name__ == "__main__":
    conclude(main)
