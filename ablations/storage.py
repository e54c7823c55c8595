"""Optuna storages by URL, opened so that several processes can share them, and their failures in one line."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy import Engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from operators.errors import InputError

JOURNAL = "journal:"
PATIENCE = 60.0
"""Seconds that a transaction waits for others to let go of an SQLite file."""
_ATTEMPTS = 5
_FAILURES = (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError, RuntimeError, AssertionError)
_FULL = (errno.ENOSPC, errno.EDQUOT)


class StorageError(RuntimeError):
    """The storage failed; the message is one line. What is in it, and the runs on disk, are still there."""


def default_url(directory: Path) -> str:
    """The SQLite file of a study."""
    return f"sqlite:///{(directory / 'study.db').resolve()}"


def shown(url: str) -> str:
    """`url` without its password."""
    return url if url.startswith(JOURNAL) else make_url(url).render_as_string(hide_password=True)


def open_storage(url: str) -> BaseStorage:
    """The storage at `url`: `sqlite:///FILE`, `postgresql://…`, another of SQLAlchemy's, or `journal:FILE`.

    Raises:
        InputError: no such kind of storage, or its driver is not installed.
        StorageError: it does not answer.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url.startswith(JOURNAL):
        with guard(url):
            return JournalStorage(JournalFileBackend(url.removeprefix(JOURNAL)))
    try:
        kind = make_url(url).get_backend_name()
    except ArgumentError as error:
        message = f"study.storage={url!r} is no storage: allowed are sqlite:///FILE, postgresql://… and journal:FILE"
        raise InputError(message) from error
    wait = {"sqlite": {"timeout": PATIENCE}, "postgresql": {"connect_timeout": 15}}.get(kind, {})
    engine_kwargs = {"connect_args": wait, "pool_pre_ping": kind != "sqlite"}
    for left in reversed(range(_ATTEMPTS)):
        try:
            with guard(url):
                storage = RDBStorage(url, engine_kwargs=engine_kwargs)
                if kind == "sqlite":
                    _make_atomic(storage.engine)
                return get_storage(storage)
        except (ImportError, SQLAlchemyError) as error:
            driver = "psycopg[binary]" if kind == "postgresql" else "its driver"
            raise InputError(
                f"study.storage={shown(url)} needs a driver that is not there: pip install {driver}"
            ) from error
        except StorageError:
            # Two processes that open an empty database at once both create its tables, and one of them fails.
            if not left or kind != "sqlite":
                raise
            time.sleep(0.2)
    raise AssertionError("unreachable")


def close(storage: BaseStorage) -> None:
    """Let go of connections."""
    engine = getattr(getattr(storage, "_backend", storage), "engine", None)
    if isinstance(engine, Engine):
        engine.dispose()


@contextmanager
def guard(url: str) -> Iterator[None]:
    """Turn failures of the storage inside into `StorageError`."""
    try:
        yield
    except (StorageError, optuna.exceptions.UpdateFinishedTrialError):
        raise
    except _FAILURES as error:
        raise StorageError(f"study.storage={shown(url)} {_reason(error)}") from error


def disk_is_full(error: BaseException) -> bool:
    """Whether that is what `error` comes from."""
    seen: BaseException | None = error
    while seen is not None:
        if (isinstance(seen, OSError) and seen.errno in _FULL) or "disk is full" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _reason(error: BaseException) -> str:
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    lines = [line.strip() for line in str(root).splitlines() if line.strip()]
    text = re.sub(r"^\(\S+\)\s*", "", lines[0]) if lines else type(root).__name__
    if disk_is_full(error):
        return f"cannot be written, the disk is full: {text}"
    if "locked" in text:
        return f"is locked by another program: {text}"
    return f"does not answer: {text}"


def _make_atomic(engine: Engine) -> None:
    """Let every transaction take SQLite's write lock when it begins.

    Otherwise two workers can both read that a trial waits before either of them writes that it has taken it.
    """
    engine.dispose()

    @event.listens_for(engine, "connect")
    def connect(connection, _record) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
        connection.isolation_level = None  # the driver's own BEGIN would come too late

    @event.listens_for(engine, "begin")
    def begin(connection) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
        connection.exec_driver_sql("BEGIN IMMEDIATE")
