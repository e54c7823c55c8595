"""Optuna storages by URL, opened so that several processes can share them, and their failures in one line."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, quote_plus

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy import URL, Engine, create_engine, event, inspect, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from ablations.masking import MASK, SECRET, masked
from ablations.scheduling.optuna_private import engine_of
from operators.errors import InputError
from tasks.system.reading import check_file

JOURNAL = "journal:"
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
_FULL = (errno.ENOSPC, errno.EDQUOT)


class StorageError(RuntimeError):
    """The storage failed; the message is one line. What is in it, and the runs on disk, are still there.

    Attributes:
        fatal: whether it will fail again, however long one waits.
    """

    fatal = False


def default_url(directory: Path) -> str:
    """The SQLite file of a study."""
    return f"sqlite:///{os.path.realpath(directory / 'study.db')}"


def shown(url: str) -> str:
    """`url` without passwords, wherever in it they are."""
    if url.startswith(JOURNAL):
        return url
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        scheme, _, rest = url.partition(":")
        return masked(f"{scheme}:{MASK}@{rest.rpartition('@')[2]}" if "@" in rest else url)
    options = {name: MASK if SECRET.search(name) else value for name, value in parsed.query.items()}
    hidden = parsed.set(
        query=options,
        password=None if parsed.password is None else MASK,
        host=parsed.host and parsed.host.rpartition("@")[2],  # a password with an @ that is not encoded
    )
    return hidden.render_as_string(hide_password=False).replace(quote(MASK), MASK)


def reach(url: str) -> None:
    """Connect once to a database server, before anything that takes long; what is kept in files is left alone.

    Raises:
        InputError: as `open_storage`.
        StorageError: it does not answer, or refuses.
    """
    if url.startswith((JOURNAL, "sqlite")):
        return
    engine = None
    try:
        with guard(url):
            engine = create_engine(_parsed(url), connect_args=_waiting(url))
            engine.connect().close()
    except (ImportError, SQLAlchemyError) as error:
        raise _no_driver(url) from error
    finally:
        if engine is not None:
            engine.dispose()


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
    kind = _kind(url)
    if kind == "sqlite" and _parsed(url).database in (None, "", ":memory:"):
        raise InputError(f"study.storage={url} is in memory, which workers cannot share: give sqlite:///FILE")
    if kind == "sqlite" and (options := _parsed(url).query):
        raise InputError(f"study.storage={shown(url)} has the option {next(iter(options))}: allowed is sqlite:///FILE")
    engine_kwargs = {"connect_args": _waiting(url), "pool_pre_ping": kind != "sqlite"}
    for left in reversed(range(_ATTEMPTS)):
        try:
            with guard(url):
                _check_owner(url)
                storage = RDBStorage(url, engine_kwargs=engine_kwargs)
                if kind == "sqlite":
                    _make_atomic(storage.engine)
                return get_storage(storage)
        except (ImportError, SQLAlchemyError) as error:
            raise _no_driver(url) from error
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
    if _kind(url) == "sqlite":
        url = f"sqlite:///file:{quote(_parsed(url).database or '')}?mode=ro&uri=true"
    try:
        with guard(url):
            return get_storage(RDBStorage(url, engine_kwargs=options, skip_table_creation=True))
    except (ImportError, SQLAlchemyError) as error:
        raise _no_driver(url) from error


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
        problem = StorageError(f"study.storage={shown(url)} {_without(url, reason)}")
        problem.fatal = _FATAL.search(reason) is not None
        raise problem from error


def disk_is_full(error: BaseException) -> bool:
    """Whether that is what `error` comes from."""
    seen: BaseException | None = error
    while seen is not None:
        if (isinstance(seen, OSError) and seen.errno in _FULL) or "disk is full" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
        if parsed.host and "@" in parsed.host:
            raise ArgumentError("an @ in a password is written %40")
        return parsed
    except (ArgumentError, ValueError) as error:
        allowed = "sqlite:///FILE, postgresql://… and journal:FILE"
        raise InputError(
            f"study.storage={shown(url)!r} is no storage: allowed are {allowed}, with %40 for an @"
        ) from error


def _kind(url: str) -> str:
    return _parsed(url).get_backend_name()


def _waiting(url: str) -> dict[str, float]:
    """How long its driver waits, as arguments of `connect`."""
    kind = _kind(url)
    if kind == "postgresql" and "connect_timeout" not in _parsed(url).query:
        return {"connect_timeout": CONNECTING}
    return {"timeout": PATIENCE} if kind == "sqlite" else {}


def _check_owner(url: str) -> None:
    """Refuse a database of another program, to which Optuna would add its tables."""
    engine = create_engine(_parsed(url), connect_args=_waiting(url))
    try:
        inspector = inspect(engine)
        names = inspector.get_table_names()
        if "studies" in names:  # the first table that Optuna makes
            foreign = "study_name" not in {column["name"] for column in inspector.get_columns("studies")}
        else:
            foreign = _kind(url) == "sqlite" and bool(names)
    finally:
        engine.dispose()
    if foreign:
        tables = ", ".join(sorted(names)[:3])
        raise InputError(f"study.storage={shown(url)} belongs to another program (tables: {tables}); it is left alone")


def _no_driver(url: str) -> InputError:
    driver = "psycopg[binary]" if _kind(url) == "postgresql" else "its driver"
    return InputError(f"study.storage={shown(url)} needs a driver that is not there: pip install {driver}")


def _without(url: str, text: str) -> str:
    """`text` without the passwords that `url` holds, as they are or percent-encoded."""
    if not url.startswith(JOURNAL):
        parsed = _parsed(url)
        secrets = [parsed.password, *(value for name, value in parsed.query.items() if SECRET.search(name))]
        for secret in secrets:
            for value in (secret,) if isinstance(secret, str) else secret or ():
                for spelling in {value, quote(value), quote_plus(value)} - {""}:
                    text = text.replace(spelling, MASK)
    return masked(text)


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
