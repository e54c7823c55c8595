"""What cannot be read at the moment, which is not what is damaged: a failing disk, too few files, too little memory.

Nothing may be deleted, overwritten or taken for absent because of an `UnreadableError`.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from operators.errors import InputError

# What the system says of a file that is too short for what its own header promises: damage.
_OF_THE_CONTENT = (None, errno.EINVAL)
_FOR_GOOD = (os.strerror(errno.EISDIR), os.strerror(errno.ENOTDIR))
# PyTorch's allocator raises a RuntimeError of many lines.
_ALLOCATION = re.compile(r"(can't|cannot|unable to) allocate memory|not enough memory", re.IGNORECASE)


class UnreadableError(InputError):
    """A file cannot be read at the moment; nothing says that it is damaged. The message is one line."""


def check_file(path: Path) -> None:
    """Refuse what a reader would wait for, perhaps for ever.

    Raises:
        UnreadableError: `path` is a pipe, a socket or a device.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UnreadableError(f"{path} is a pipe, a socket or a device, and must be a file")


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn failures of the system inside, also those that were taken for damage, into `UnreadableError`.

    Args:
        what: is read, for the message.

    Raises:
        UnreadableError: the system could not read it, or had no memory for it.
    """
    try:
        yield
    except UnreadableError:
        raise
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        if reason in _FOR_GOOD:
            raise UnreadableError(f"{what} cannot be read: {reason}") from error
        message = f"{what} cannot be read at the moment: {reason}; nothing says that it is damaged, so try again later"
        raise UnreadableError(message) from error


def _reason(error: BaseException) -> str | None:
    """The failure of the system that `error` comes from, in words; None where it comes from what was read."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno not in _OF_THE_CONTENT:
            return os.strerror(cause.errno or 0)
        if isinstance(cause, MemoryError) or (isinstance(cause, RuntimeError) and _ALLOCATION.search(str(cause))):
            return os.strerror(errno.ENOMEM)
        cause = cause.__cause__ or cause.__context__
    return None
