"""Configuration files of the user's own (`--config-dir`), before Hydra reads them. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from operators.errors import InputError
from tasks.config.bounds import DEEPEST
from tasks.system.reading import check_file

LARGEST_FILE, MOST_NODES = 2**20, 100_000
"""Bytes of a file, and values in it, those repeated by aliases counted again."""
_PLACES = ("*.yaml", "*/*.yaml", "*/*/*.yaml")


def check(folders: Iterable[str]) -> None:
    """Refuse files that would fill the memory once their aliases are written out, or that nobody can read.

    Raises:
        InputError: names the file.
    """
    for folder in folders:
        for place in _PLACES:
            for path in sorted(Path(folder).glob(place)):
                _check_file(path)


def _check_file(path: Path) -> None:
    try:
        check_file(path)
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(f"{path} is larger than {LARGEST_FILE:,} bytes: no configuration needs that")
        check_text(str(path), path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not readable as YAML: {' '.join(str(error).split())}") from error


def check_text(what: str, text: str, most: int = MOST_NODES) -> None:
    """Refuse YAML, called `what`, that has more than `most` values once its aliases are written out, or that is none.

    Raises:
        InputError: names it.
    """
    try:
        size = _written_out(text)
    except yaml.YAMLError as error:
        raise InputError(f"{what} is not readable as YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise InputError(f"{what} has more than {DEEPEST} levels, or one that holds itself") from error
    if size > most:
        raise InputError(f"{what} has {size:,} values once its aliases are written out: at most {most:,} are read")


def _written_out(text: str) -> int:
    """How many values the document holds, those behind aliases counted at each.

    Raises:
        RecursionError: too many levels, or an alias inside what it stands for.
    """
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((anchor, 1))
            if len(opened) > DEEPEST:
                raise RecursionError
            continue
        if isinstance(event, yaml.ScalarEvent):
            size = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = opened.pop()
        elif isinstance(event, yaml.AliasEvent):
            if any(name == anchor for name, _ in opened):
                raise RecursionError
            size, anchor = sizes.get(str(anchor), 1), None
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        outer, total = opened[-1]
        opened[-1] = (outer, total + size)
    return opened[0][1]
