"""Locks on files, of which a process that dies lets go."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout


def try_lock(path: Path) -> FileLock | None:
    """Take the lock on the file at `path`, which is made if need be; None if somebody holds it.

    One holder at a time, of all processes on the machine and of all callers in one process. The system takes the lock
    from a process that dies; its children do not inherit it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock
