"""Files that are the old or the new one whenever the process is killed, and disks that are full. Imports no torch."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

LAST = "last.ckpt"
"""The checkpoint to continue from."""
PREVIOUS = "previous.ckpt"
"""What it was before it was last saved."""
KEY = "operator_zoo"
"""Where checkpoints and exports keep what the run adds, see `tasks.system.checkpoint.KEY`."""
SUFFIX = ".part"
"""Ends the name of a file that is not finished."""
_ASIDE = re.compile(r".+\.aside-\d+")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: Path, keep_as: Path | None = None) -> Iterator[IO[bytes]]:
    """A file that takes the place of the one at `path` once it is complete and on the disk, and else disappears.

    Args:
        path: its folder is made if need be.
        keep_as: what the file that was at `path` is called from then on.

    Raises:
        OSError: it cannot be written; names `path`.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}{SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with named(path), unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if keep_as is not None:
            _keep(path, keep_as)
        os.replace(unfinished, path)
        _settle(path.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


@contextmanager
def named(path: str | Path) -> Iterator[None]:
    """Where the disk is full, say that it was to write to `path`.

    Raises:
        OSError: names `path`.
    """
    try:
        yield
    except Exception as error:
        reason = full(error)
        if reason is None:
            raise
        raise OSError(reason.errno, reason.strerror, str(path)) from error


def write_text(path: Path, text: str) -> None:
    """As `Path.write_text`, through `replacing`."""
    with replacing(path) as file:
        file.write(text.encode())


def sweep(folder: Path) -> None:
    """Remove what writers that were killed have left in `folder`."""
    for path in folder.glob(f".*{SUFFIX}"):
        path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename the file or folder at `path` to `NAME.aside-N`, with the first free N from 1; its new path."""
    count = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.aside-{count}")):
        count += 1
    os.rename(path, aside)
    return aside


def is_aside(name: str) -> bool:
    """Whether `set_aside` has given the name."""
    return _ASIDE.fullmatch(name) is not None


def asides(folder: Path) -> list[Path]:
    """All that `set_aside` has renamed in `folder` and below, relative to it."""
    kept: list[Path] = []
    for place, folders, names in os.walk(folder):
        kept += [Path(place, name).relative_to(folder) for name in (*folders, *names) if is_aside(name)]
        folders[:] = [name for name in folders if not is_aside(name)]
    return sorted(kept)


def full(error: BaseException) -> OSError | None:
    """The full disk, exhausted quota or limit on the size of files that `error` comes from."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def room(folder: Path) -> str:
    """How much can still be written there."""
    return f"{shutil.disk_usage(folder).free / 2**20:,.1f} MB"


def _keep(path: Path, under: Path) -> None:
    """Let the file at `path`, if there is one, go by the name `under` as well, without copying it."""
    if not path.exists():
        return
    unfinished = under.with_name(f".{under.name}.{os.getpid()}{SUFFIX}")
    unfinished.unlink(missing_ok=True)
    try:
        os.link(path, unfinished)
    except OSError as error:
        if full(error) is not None:
            raise
        os.replace(path, under)  # a file system without links
        return
    os.replace(unfinished, under)
    unfinished.unlink(missing_ok=True)  # where both names were one file already, replacing did nothing


def _settle(folder: Path) -> None:
    """Have the system write down the folder itself: without that, a power cut may take back a new name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
