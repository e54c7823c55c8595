"""Storages that a study must not use are refused and left as they are, and no password is told."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ablations import __main__ as cli
from ablations import plan as plans
from ablations.scheduling import runner, storage, urls
from ablations.scheduling.storage import open_storage
from operators import InputError
from tests.ablations.conftest import NODE, empty_ledger
from tests.ablations.hostile.conftest import refusal, write

SECRET = "s3cr+t/&x"
URLS = [
    "postgresql+psycopg://me:{}@127.0.0.1:9/db",
    "postgresql+psycopg://me@127.0.0.1:9/db?password={}",
    "postgresql+psycopg://me@127.0.0.1:9/db?sslmode=disable&passwd={}",
    "postgresql+psycopg://me@127.0.0.1:9/db?sslpassword={}",
    "postgresql+psycopg://me@127.0.0.1:9/db?pass%77ord={}",
    "postgresql+psycopg://me@127.0.0.1:9/db?password={0}&password={0}",
    "postgresql+psycopg://me:{}@127.0.0.1:port/db",
    "postgresql+psycopg://me:x@{}@127.0.0.1:9/db",
    "postgresql:/me:{}@127.0.0.1/db",
    "nothing://me:{}@127.0.0.1/db",
    "mssql+pyodbc:///?odbc_connect=SERVER%3Dx%3BPWD%3D{}",
]


@pytest.mark.parametrize("full", ["0", "1"])
@pytest.mark.parametrize("url", URLS)
def test_no_password_is_told(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str, full: str
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", full)
    given = url.format("s3cr%2Bt%2F%26x")
    assert cli.main([write(NODE), f"study.storage={given}"]) == 2
    said = capsys.readouterr().err
    assert said.splitlines()
    for spelling in (SECRET, "s3cr", "t%2F"):
        assert spelling not in said
        assert spelling not in urls.shown(given)


@pytest.mark.parametrize("argument", ["--storage={}", "storage={}", "study.storge={}", "+x={}", "{}"])
def test_no_password_in_the_wrong_place_is_told(here: Path, capsys: pytest.CaptureFixture[str], argument: str) -> None:
    for url in ("postgresql://me:s3cret@127.0.0.1/db", "postgresql://127.0.0.1/db?user=me&password=s3cret"):
        assert "s3cret" not in refusal(capsys, write(NODE), argument.format(url))


def test_failures_of_the_storage_hold_no_password() -> None:
    url = "postgresql://me:p%40ss@host/db?sslpassword=other%20word"
    with pytest.raises(storage.StorageError) as caught, storage.guard(url):
        raise RuntimeError("no p@ss, p%40ss, other word, other%20word, other+word, password='x y'")
    for secret in ("p@ss", "p%40ss", "other", "x y"):
        assert secret not in str(caught.value)


def test_what_a_study_writes_holds_no_password(tmp_path: Path) -> None:
    from ablations.scheduling import files

    url = urls.shown("postgresql://me:s3cret@h/db?password=s3cret")
    files.write_plan(tmp_path, plans.read(NODE), [], url, empty_ledger())
    assert "s3cret" not in (tmp_path / "study.yaml").read_text()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite://", "in memory"),
        ("sqlite:///", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("journal:", "study.storage=journal: does not answer"),
    ],
)
def test_storage_that_nobody_can_share_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str, expected: str
) -> None:
    monkeypatch.setattr(runner, "check", lambda *_: None)
    assert expected in refusal(capsys, write(NODE), f"study.storage={url}")


@pytest.mark.parametrize("place", ["pipe", "/dev/full"])
def test_a_journal_that_has_no_end_is_refused(here: Path, place: str) -> None:
    os.mkfifo(here / "pipe")
    with pytest.raises(InputError, match="is a pipe, a socket or a device, and must be a file"):
        open_storage(f"journal:{place}")


@pytest.mark.parametrize("table", ["studies (evil TEXT)", "experiments (name TEXT)"])
def test_a_database_of_another_program_is_refused_and_left(here: Path, table: str) -> None:
    path = here / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE {table}")
    before = path.read_bytes()
    with pytest.raises(InputError, match=f"belongs to another program .tables: {table.split()[0]}"):
        open_storage(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_an_option_of_sqlite_is_refused(here: Path) -> None:
    with pytest.raises(InputError, match="has the option mode: allowed is sqlite:///FILE"):
        open_storage("sqlite:///x.db?mode=ro&uri=true")
    assert not list(here.glob("x.db*"))


@pytest.mark.parametrize(
    "content", [bytes(range(256)) * 20, b"{}\n", b"[1]\n3\n", b'{"op_code": "x"}\n', b"half a line"]
)
@pytest.mark.parametrize("kind", ["journal:", "sqlite:///"])
def test_damaged_storage_is_refused_and_left(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str, content: bytes
) -> None:
    monkeypatch.setattr(runner, "check", lambda *_: None)
    path = here / "file"
    path.write_bytes(content)
    if kind == "journal:" and content == b"half a line":
        storage.close(open_storage(f"{kind}{path}"))  # an entry that is being written
    else:
        refusal(capsys, write(NODE), f"study.storage={kind}{path}")
    assert path.read_bytes() == content
