"""Files kept for the next run: where they live, and bytes among them that take time to make, such as decoded images."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

_log = logging.getLogger(__name__)


def cache_dir(name: str) -> Path:
    """`$XDG_CACHE_HOME/operator-zoo/<name>`, by default below `~/.cache`; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "operator-zoo" / name


def decoded(
    name: str, encoded: Sequence[bytes], shape: tuple[int, ...], decode: Callable[[], npt.NDArray[np.uint8]]
) -> npt.NDArray[np.uint8]:
    """The result of `decode()`, kept on disk under the SHA-256 of what it decodes.

    A file holds the SHA-256 of its content, then the content, and appears only when complete. One that is damaged is
    replaced, and a cache that cannot be read or written is done without; all three are logged as warnings.

    Args:
        name: folder in the cache.
        encoded: everything that the result depends on.
        shape: of the result.
        decode: makes the uint8 array.

    Returns:
        uint8 array of `shape`.
    """
    key = hashlib.sha256()
    for part in encoded:
        key.update(len(part).to_bytes(8, "little") + part)
    path = cache_dir(name) / f"{key.hexdigest()}.u8"
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        _log.warning("%s cannot be read, and is left as it is: %s", path, error)
        return np.ascontiguousarray(decode())
    else:
        if hashlib.sha256(memoryview(content)[32:]).digest() == content[:32]:
            return np.frombuffer(content, np.uint8, offset=32).reshape(shape).copy()
        _log.warning("%s is damaged and will be replaced", path)
    images = np.ascontiguousarray(decode())
    try:
        _write(path, hashlib.sha256(images.data).digest(), images)
    except OSError as error:
        _log.warning("%s cannot be kept for the next run: %s", path, error)
    return images


def _write(path: Path, digest: bytes, images: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        target = Path(temporary) / path.name
        with target.open("wb") as file:
            file.write(digest)
            file.write(images.data)
        target.replace(path)
