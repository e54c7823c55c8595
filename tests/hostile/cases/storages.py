"""URLs of storages: of no kind, of nothing, with secrets, damaged, and full."""

# ruff: noqa: E501 - a row of the table is a line; odd characters are meant

from __future__ import annotations

from dataclasses import replace

from tests.hostile.case import FAILED, OK, REFUSED, Case, Step
from tests.hostile.making import fifo, folder, put
from tests.hostile.store import STUDY

SECRET = "hunter2hunter2"
BINARY = bytes(range(256)) * 16


def storage(
    name: str, url: str, *steps: Step, allowed: tuple[int, ...] = (REFUSED,), secret: str = "", seconds: float = 60
) -> Case:
    command = f"-m ablations study=my.yaml study.dir=outputs/study 'study.storage={url}'"
    return Case(name, command, (put("my.yaml", STUDY), *steps), allowed, secret=secret, seconds=seconds)


CASES = [
    storage("no URL", "study.db"),
    storage("SQLite in memory", "sqlite://", allowed=(FAILED, REFUSED)),
    storage("no scheme", "://x"),
    storage("a scheme of nothing", "mongodb://localhost/x"),
    storage("a scheme with a driver of nothing", "postgresql+nothing://localhost/x"),
    storage("a driver that is not installed", "mysql://root@localhost/x"),
    storage("a port that is a word", "postgresql://localhost:port/x"),
    storage("a bracket left open", "postgresql://[::1/x"),
    storage("a list", "[sqlite:///a.db]"),
    storage("a file URL", "file:///tmp/x"),
    storage("a web page", "https://example.org"),
    storage("Redis", f"redis://:{SECRET}@localhost:1/0", allowed=(FAILED, REFUSED), secret=SECRET),
    storage("a port where nobody listens", f"postgresql://user:{SECRET}@127.0.0.1:1/x", allowed=(FAILED, REFUSED), secret=SECRET),
    storage("a password in the query", f"postgresql://127.0.0.1:1/x?user=me&password={SECRET}",
            allowed=(FAILED, REFUSED), secret=SECRET),
    storage("a password in the query, escaped", f"postgresql://127.0.0.1:1/x?pass%77ord={SECRET}",
            allowed=(FAILED, REFUSED), secret=SECRET),
    storage("a password of a certificate", f"postgresql://127.0.0.1:1/x?sslpassword={SECRET}",
            allowed=(FAILED, REFUSED), secret=SECRET),
    storage("a password in a URL of no kind", f"postgresq://user:{SECRET}@127.0.0.1:1/x", allowed=(FAILED, REFUSED), secret=SECRET),
    storage("a password in a URL that is malformed", f"postgresql//user:{SECRET}@127.0.0.1/x", allowed=(FAILED, REFUSED), secret=SECRET),
    storage("a user with a slash in the password", f"postgresql://user:{SECRET}/@127.0.0.1:1/x",
            allowed=(FAILED, REFUSED), secret=SECRET),
    storage("an option of nothing", "postgresql://127.0.0.1:1/x?evil=1", allowed=(FAILED, REFUSED)),
    storage("a host that does not exist", "postgresql://nobody.invalid/x", allowed=(FAILED, REFUSED)),
    storage("SQLite in no folder", "sqlite:///nowhere/study.db", allowed=(FAILED, REFUSED)),
    storage("SQLite that is a folder", "sqlite:///there", folder("there"), allowed=(FAILED, REFUSED)),
    storage("SQLite in proc", "sqlite:////proc/study.db", allowed=(FAILED, REFUSED)),
    storage("SQLite on a full device", "sqlite:////dev/full", allowed=(FAILED, REFUSED)),
    storage("SQLite that is a text", "sqlite:///my.yaml", allowed=(FAILED, REFUSED)),
    storage("SQLite that is binary", "sqlite:///x.db", put("x.db", BINARY), allowed=(FAILED, REFUSED)),
    storage("SQLite of another program", "sqlite:///x.db", lambda work, _: _tables(work / "x.db"), allowed=(FAILED, REFUSED)),
    storage("SQLite with a wrong option", "sqlite:///x.db?mode=nothing&uri=true", allowed=(FAILED, REFUSED)),
    storage("a journal without a name", "journal:", allowed=(FAILED, REFUSED)),
    storage("a journal that is a folder", "journal:there", folder("there"), allowed=(FAILED, REFUSED)),
    storage("a journal in no folder", "journal:nowhere/x.log", allowed=(FAILED, REFUSED)),
    storage("a journal that is binary", "journal:x.log", put("x.log", BINARY), allowed=(FAILED, REFUSED)),
    storage("a journal of texts", "journal:x.log", put("x.log", "hello\nworld\n"), allowed=(FAILED, REFUSED)),
    storage("a journal of numbers", "journal:x.log", put("x.log", "1\n2\n"), allowed=(FAILED, REFUSED)),
    storage("a journal of other records", "journal:x.log", put("x.log", '{"op_code": 99}\n'), allowed=(FAILED, REFUSED)),
    replace(storage("a journal of a study that was deleted", "journal:x.log", put(
        "x.log", '{"op_code": 4, "worker_id": "a", "study_id": 7}\n'), allowed=(OK,), seconds=240), changes=("x.log",)),
    storage("a journal that is a pipe", "journal:x.log", fifo("x.log"), allowed=(FAILED, REFUSED)),
    storage("a journal that is a device", "journal:/dev/full", allowed=(FAILED, REFUSED)),
    storage("a journal that is a study's file", "journal:my.yaml", allowed=(FAILED, REFUSED)),
]  # fmt: skip


def _tables(path: object) -> None:
    import sqlite3

    with sqlite3.connect(str(path)) as connection:
        connection.execute("CREATE TABLE studies (evil TEXT)")
        connection.execute("CREATE TABLE version_info (schema_version TEXT)")
        connection.execute("INSERT INTO version_info VALUES ('x')")
    connection.close()
