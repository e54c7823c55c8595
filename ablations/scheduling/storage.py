"""Optuna storages by URL, opened so that several processes can share them, and their failures in one line."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy import create_engine, inspect
from sqlalchemy.exc import SQLAlchemyError

from ablations.scheduling.optuna_private import engine_of
from ablations.scheduling.urls import JOURNAL, kind_of, parsed, shown, without_secrets
from operators.errors import InputError
from tasks.system.atomic_files import full
from tasks.system.reading import check_file

PATIENCE = 60.0
"""Seconds that a transaction waits for others to let go of an SQLite file."""
CONNECTING = 5
"""Seconds within which a database server has to answer."""
_ATTEMPTS = 5
_FATAL = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|invalid connection option|"
    r"(role|database) \S+ does not exist|permission denied|is not permitted to log in|invalid URI",
    re.IGNORECASE,
)
"""What trying again does not change, as PostgreSQL says it."""
_FAILURES = (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError, RuntimeError, AssertionError)


class StorageError(RuntimeError):
    """The storage failed; the message is one line. What is in it, and the runs on disk, are still there.

    Attributes:
        fatal: whether it will fail again, however long one waits.
    """

    fatal = False


def reach(url: str) -> None:
    """Connect once to a database server, before anything that takes long; what is kept in files is left alone.

    Raises:
        InputError: as `open_storage`.
        StorageError: it does not answer, or refuses.
    """
    if not url.startswith((JOURNAL, "sqlite")):
        with _connecting(url):
            _check_owner(url)


def open_storage(url: str) -> BaseStorage:
    """The storage at `url`: `sqlite:///FILE`, `postgresql://…`, another of SQLAlchemy's, or `journal:FILE`.

    Raises:
        InputError: no such kind of storage, its driver is not installed, or it is the database of another program.
        StorageError: it does not answer.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url.startswith(JOURNAL):
        check_file(Path(url.removeprefix(JOURNAL)))
        try:
            with guard(url):
                return JournalStorage(JournalFileBackend(url.removeprefix(JOURNAL)))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            message = f"study.storage={url} is damaged, or no journal of Optuna; it is left as it is"
            raise InputError(message) from error
    kind = kind_of(url)
    if kind == "sqlite" and parsed(url).database in (None, "", ":memory:"):
        raise InputError(f"study.storage={url} is in memory, which workers cannot share: give sqlite:///FILE")
    if kind == "sqlite" and (options := parsed(url).query):
        raise InputError(f"study.storage={shown(url)} has the option {next(iter(options))}: allowed is sqlite:///FILE")
    engine_kwargs = {"connect_args": _waiting(url), "pool_pre_ping": kind != "sqlite"}
    for left in reversed(range(_ATTEMPTS)):
        try:
            with _connecting(url):
                _check_owner(url)
                return get_storage(RDBStorage(url, engine_kwargs=engine_kwargs))
        except StorageError:
            # Two processes that open an empty database at once both create its tables, and one of them fails.
            if not left or kind != "sqlite":
                raise
            time.sleep(0.2)
    raise AssertionError("unreachable")


def open_for_reading(url: str) -> BaseStorage:
    """The storage at `url`, in which a study is already; nothing is made, and an SQLite file is not written to.

    Raises:
        InputError: its driver is not installed, or it is no journal of Optuna.
        StorageError: it is not there, or does not answer.
    """
    if url.startswith(JOURNAL):
        return open_storage(url)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = {"connect_args": _waiting(url)}
    if kind_of(url) == "sqlite":
        url = f"sqlite:///file:{quote(parsed(url).database or '')}?mode=ro&uri=true"
    with _connecting(url):
        return get_storage(RDBStorage(url, engine_kwargs=options, skip_table_creation=True))


def close(storage: BaseStorage) -> None:
    """Let go of connections."""
    engine = engine_of(storage)
    if engine is not None:
        engine.dispose()


@contextmanager
def guard(url: str) -> Iterator[None]:
    """Turn failures of the storage inside into `StorageError`."""
    try:
        yield
    except (StorageError, optuna.exceptions.UpdateFinishedTrialError):
        raise
    except _FAILURES as error:
        reason = _reason(error)
        problem = StorageError(f"study.storage={shown(url)} {without_secrets(url, reason)}")
        problem.fatal = _FATAL.search(reason) is not None
        raise problem from error


def disk_is_full(error: BaseException) -> bool:
    """Whether that is what `error` comes from, also where SQLite says so."""
    return full(error) is not None or "disk is full" in str(error)


@contextmanager
def _connecting(url: str) -> Iterator[None]:
    """As `guard`; a driver that is not there is wrong input."""
    try:
        with guard(url):
            yield
    except ImportError as error:
        driver = "psycopg[binary]" if kind_of(url) == "postgresql" else "its driver"
        raise InputError(
            f"study.storage={shown(url)} needs a driver that is not there: pip install {driver}"
        ) from error


def _waiting(url: str) -> dict[str, float]:
    """How long its driver waits, as arguments of `connect`."""
    kind = kind_of(url)
    if kind == "postgresql" and "connect_timeout" not in parsed(url).query:
        return {"connect_timeout": CONNECTING}
    return {"timeout": PATIENCE} if kind == "sqlite" else {}


def _check_owner(url: str) -> None:
    """Refuse a database of another program, to which Optuna would add its tables."""
    engine = create_engine(parsed(url), connect_args=_waiting(url))
    try:
        inspector = inspect(engine)
        names = inspector.get_table_names()
        if "studies" in names:  # the first table that Optuna makes
            foreign = "study_name" not in {column["name"] for column in inspector.get_columns("studies")}
        else:
            foreign = kind_of(url) == "sqlite" and bool(names)
    finally:
        engine.dispose()
    if foreign:
        tables = ", ".join(sorted(names)[:3])
        raise InputError(f"study.storage={shown(url)} belongs to another program (tables: {tables}); it is left alone")


def _reason(error: BaseException) -> str:
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    lines = [line.strip() for line in str(root).splitlines() if line.strip()]
    text = re.sub(r"^\(\S+\)\s*", "", lines[0]) if lines else type(root).__name__
    if full(error) is not None or disk_is_full(root):
        return f"cannot be written, the disk is full: {text}"
    if "locked" in text:
        return f"is locked by another program: {text}"
    return f"does not answer: {text}"
