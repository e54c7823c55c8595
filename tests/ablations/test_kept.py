"""What cannot be read for a moment is kept; what cannot be continued is set aside, said and counted."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from ablations.scheduling.progress import conclude
from ablations.scheduling.storage import StorageError, guard
from ablations.scheduling.trial import attempt, patience
from tasks.system import checkpoint, results
from tasks.system.atomic_files import LAST, PREVIOUS
from tasks.system.reading import UnreadableError
from tasks.system.resuming import continued, earlier_result
from tasks.system.signals import Stop
from tests.ablations.conftest import Bench, Runs
from tests.tasks.system.test_reading import bare, failing

CONFIG = {"mixer": {"name": "pool"}, "seed": 0}


@pytest.fixture
def trial(tmp_path: Path) -> Path:
    """A trial's directory with three good checkpoints."""
    folder = tmp_path / "trials" / "00000"
    (folder / "checkpoints").mkdir(parents=True)
    content = bare({**CONFIG, "ckpt": None, "init": None}, 1)
    for name in (LAST, PREVIOUS, "best.ckpt"):
        torch.save(content, folder / "checkpoints" / name)
    return folder


def tree(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENOMEM, errno.EACCES])
def test_trial_that_cannot_be_read_now_is_kept(trial: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    before = tree(trial)
    with monkeypatch.context() as patch:
        failing(patch, OSError(number, os.strerror(number)), LAST)
        with pytest.raises(UnreadableError):
            continued(trial, CONFIG)
    assert tree(trial) == before
    assert continued(trial, CONFIG)["ckpt"] == str(trial / "checkpoints" / LAST)


def test_trial_is_kept_where_there_is_no_memory_for_its_checkpoint(
    trial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise MemoryError

    before = tree(trial)
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(UnreadableError):
        continued(trial, CONFIG)
    assert tree(trial) == before


def test_folder_that_cannot_be_listed_is_kept(trial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (LAST, PREVIOUS):
        (trial / "checkpoints" / name).unlink()

    def listdir(path: Any) -> list[str]:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", listdir)
        with pytest.raises(UnreadableError):
            continued(trial, CONFIG)
    assert (trial / "checkpoints" / "best.ckpt").exists()


def damaged(trial: Path) -> None:
    for name in (LAST, PREVIOUS):
        (trial / "checkpoints" / name).write_bytes(b"damaged")


def other(trial: Path) -> None:
    content = torch.load(trial / "checkpoints" / LAST)
    content[checkpoint.KEY]["config"]["seed"] = 5
    torch.save(content, trial / "checkpoints" / LAST)


def result_alone(trial: Path) -> None:
    for path in (trial / "checkpoints").iterdir():
        path.unlink()
    (trial / "metrics.json").write_text('{"status": "ok"}')


@pytest.mark.parametrize("change", [damaged, other, result_alone])
def test_what_cannot_be_continued_is_set_aside_said_and_counted(
    trial: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Path], None]
) -> None:
    change(trial)
    before = tree(trial)
    assert continued(trial, CONFIG) == CONFIG
    assert not trial.exists()
    assert tree(trial.with_name("00000.aside-1")) == before
    (line,) = capsys.readouterr().err.splitlines()
    assert "kept as 00000.aside-1" in line
    conclude(trial.parent.parent, [], ["stopped"], Console(stderr=True), lambda folder: folder)
    assert "1 kept of what could not be continued: trials/00000.aside-1" in capsys.readouterr().err


def test_folder_without_checkpoint_and_result_makes_room(trial: Path) -> None:
    for path in (trial / "checkpoints").iterdir():
        path.unlink()
    (trial / "metrics.json").write_text('{"status": "failed"}')
    assert continued(trial, CONFIG) == CONFIG
    assert list(trial.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["metrics.json", "config.yaml"])
def test_result_that_cannot_be_read_now_is_not_absent(trial: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    results.write_yaml(trial / "config.yaml", CONFIG)
    results.write_json(trial / "metrics.json", {"status": "ok"})
    with monkeypatch.context() as patch:
        failing(patch, OSError(errno.EIO, "I/O"), name)
        with pytest.raises(UnreadableError):
            earlier_result(trial, CONFIG)
    assert earlier_result(trial, CONFIG) == {"status": "ok"}
    for damage in (b"\xff\xfe\0", b"[1]", b"", b"{"):
        (trial / name).write_bytes(damage)
        assert earlier_result(trial, CONFIG) is None


def test_worker_waits_for_a_file_and_goes_on(
    bench: Bench, node: dict[str, Any], runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [UnreadableError("not now"), UnreadableError("not now")]

    def read(*_: Any) -> None:
        if answers:
            raise answers.pop()

    monkeypatch.setattr(attempt, "earlier_result", read)
    ledger = bench.work(node)
    assert [entry.state for entry in ledger.entries()] == ["complete"] * 10
    assert [entry.started for entry in ledger.entries()] == [1] * 10


def test_worker_that_is_stopped_while_it_waits_gives_the_trial_back(
    bench: Bench, node: dict[str, Any], runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop()

    def read(*_: Any) -> None:
        stop.ask()
        raise UnreadableError("not now")

    monkeypatch.setattr(attempt, "earlier_result", read)
    ledger = bench.work(node, stop)
    assert {entry.state for entry in ledger.entries()} == {"waiting"}


def test_reason_of_a_trial_that_stays_unreadable_is_told(
    bench: Bench, node: dict[str, Any], runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PAUSE", 0.001)
    monkeypatch.setattr(patience, "TRIES", 2)

    def read(folder: Path, config: Any) -> None:
        if folder.name == "00001":
            raise UnreadableError("not now")

    monkeypatch.setattr(attempt, "earlier_result", read)
    entries = bench.work(node).entries()
    assert [entry.state for entry in entries].count("failed") == 1
    assert "not now" in json.dumps((entries[1].result or {})["reason"])


def test_storage_that_will_not_let_anybody_in_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSE", 0.001)
    asked: list[str] = []

    def ask(reason: str) -> Callable[[], None]:
        def answer() -> None:
            asked.append(reason)
            with guard("postgresql://me@host/db"):
                raise RuntimeError(reason)

        return answer

    for reason, times in (('FATAL: password authentication failed for user "me"', 1), ("starting up", patience.TRIES)):
        with pytest.raises(StorageError):
            patience.patiently(Stop(), ask(reason))
        assert asked.count(reason) == times
