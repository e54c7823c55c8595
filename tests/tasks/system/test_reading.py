"""What cannot be read at the moment is not damaged; and what is damaged is kept."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ablations import studyfile
from ablations.analysis import curves, image_differences
from ablations.reporting import sample_sheets
from operators import InputError
from tasks.config import userfiles
from tasks.data import cache
from tasks.measures import networks
from tasks.run.loggers import _Rows
from tasks.run.saving import Files, no_room
from tasks.system import atomic_files, checkpoint, results
from tasks.system.atomic_files import LAST, PREVIOUS
from tasks.system.reading import UnreadableError

SHORTAGES = [errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.EACCES]


def bare(config: dict[str, Any], step: int) -> dict[str, Any]:
    """The least that is taken for a checkpoint."""
    images = {"num_classes": 2, "channels": 1, "image_size": [4, 4], "mean": [0.0], "std": [1.0], "input": [1, 4, 4]}
    own = {"config": config, "data": images, "scores": {}, "autoencoder": None}
    return {checkpoint.KEY: own, "state_dict": {}, "global_step": step, "epoch": 0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints of steps 2 and 1."""
    for step, name in ((2, LAST), (1, PREVIOUS)):
        torch.save(bare({}, step), tmp_path / name)
    return tmp_path


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException, name: str) -> None:
    """Opening a file called `name` to read raises `error`; it could be written over."""
    real = io.open

    def opened(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if not isinstance(file, int) and os.path.basename(file) == name and "w" not in mode:
            raise error
        return real(file, mode, *arguments, **named)

    monkeypatch.setattr(io, "open", opened)
    monkeypatch.setattr("builtins.open", opened)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("number", SHORTAGES)
def test_checkpoint_that_cannot_be_read_now_is_not_replaced_by_the_one_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = content(folder)
    with monkeypatch.context() as patch:
        failing(patch, OSError(number, os.strerror(number)), LAST)
        with pytest.raises(UnreadableError, match=os.strerror(number)) as caught:
            checkpoint.resumable(folder / LAST)
    assert "\n" not in str(caught.value)
    assert content(folder) == before
    assert checkpoint.resumable(folder / LAST)[1]["global_step"] == 2


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127]\nDefaultCPUAllocator: can't allocate memory: 8 bytes"),
        RuntimeError("unable to mmap 64 bytes from file: Cannot allocate memory (12)"),
    ],
)
def test_too_little_memory_is_no_damage(folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(UnreadableError, match="Cannot allocate memory"):
        checkpoint.resumable(folder / LAST)


def test_unreadable_one_before_is_not_called_damaged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / LAST).write_bytes(b"not a checkpoint")
    failing(monkeypatch, OSError(errno.EIO, "I/O"), PREVIOUS)
    with pytest.raises(UnreadableError):
        checkpoint.resumable(folder / LAST)


def test_damage_is_still_damage(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (folder / LAST).read_bytes()
    for damaged in (b"", b"PK", whole[:-100], whole[:100], whole[: len(whole) // 2] + bytes(len(whole) // 2)):
        (folder / LAST).write_bytes(damaged)
        with pytest.raises(InputError) as caught:
            checkpoint.load(folder / LAST)
        assert not isinstance(caught.value, UnreadableError)
    assert checkpoint.resumable(folder / LAST)[0] == folder / PREVIOUS
    assert "is damaged" in capsys.readouterr().err


def test_damaged_checkpoint_is_set_aside_by_the_next_save(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / LAST).write_bytes(b"damaged")
    saver = Files(trusted=False)
    for step in (3, 4):
        saver.save_checkpoint({"step": step}, folder / LAST)
    assert (folder / f"{LAST}.aside-1").read_bytes() == b"damaged"
    assert torch.load(folder / PREVIOUS)["step"] == 3
    assert capsys.readouterr().err.count("is kept as last.ckpt.aside-1") == 1
    assert atomic_files.asides(folder) == [Path(f"{LAST}.aside-1")]


def test_set_aside_takes_the_first_free_name(tmp_path: Path) -> None:
    for expected in ("x.aside-1", "x.aside-2", "x.aside-3"):
        (tmp_path / "x").mkdir()
        assert atomic_files.set_aside(tmp_path / "x").name == expected
    assert [path.name for path in atomic_files.asides(tmp_path)] == ["x.aside-1", "x.aside-2", "x.aside-3"]


def test_full_disk_does_not_call_an_unreadable_checkpoint_absent(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(folder, run_dir / "checkpoints", ignore=lambda *_: ["run"])
    failing(monkeypatch, OSError(errno.EMFILE, "Too many open files"), LAST)
    text = no_room(OSError(errno.ENOSPC, "No space left on device", "x"), run_dir)
    assert "Too many open files" in text
    assert "no checkpoint is saved" not in text


def test_report_reads_bytes_that_are_no_text_and_tells_absence_from_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.json"
    assert results.read(path) is None
    path.write_bytes(b"\xff\xfe\0")
    assert results.read(path) == "\ufffd\ufffd\0"
    failing(monkeypatch, OSError(errno.EIO, "I/O"), "metrics.json")
    with pytest.raises(UnreadableError, match=r"metrics\.json cannot be read at the moment"):
        results.read(path)


@pytest.mark.parametrize("damage", [b"\xff\xfe\x80\n\x81,\x82\n", b"a,b\n1,2\n", b"step,loss\nx,1\n"])
def test_damaged_curves_are_set_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: bytes) -> None:
    (tmp_path / "metrics.csv").write_bytes(damage)
    _Rows(str(tmp_path), 5)
    assert (tmp_path / "metrics.csv.aside-1").read_bytes() == damage
    assert "metrics.csv.aside-1" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_cache_that_cannot_be_read_is_done_without_and_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    images = np.arange(6, dtype=np.uint8).reshape(2, 3)
    decode: Callable[[], Any] = lambda: images  # noqa: E731
    cache.decoded("x", [b"a"], (2, 3), decode)
    (path,) = cache.cache_dir("x").iterdir()
    before = path.stat()
    failing(monkeypatch, OSError(number, os.strerror(number)), path.name)
    assert np.array_equal(cache.decoded("x", [b"a"], (2, 3), decode), images)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def read_html(path: Path) -> None:
    assert "must be a file" in sample_sheets.load({"path": str(path), "title": "t", "seed": 0}).text
    raise UnreadableError("must be a file")


READERS: dict[str, Callable[[Path], object]] = {
    "results": results.read,
    "settings": lambda path: userfiles.check([str(path.parent)]),
    "study": studyfile.read,
    "predictions": image_differences.read_predictions,
    "curves": lambda path: curves.read(path.parent, "val/loss"),
    "weights": lambda path: networks.create("efficientnet_lite0", str(path)),
    "samples": read_html,
}


@pytest.mark.parametrize("reader", READERS)
def test_nothing_waits_for_a_pipe(reader: str, tmp_path: Path) -> None:
    pipe = tmp_path / {"settings": "mixer.yaml", "curves": "events.out.tfevents.0"}.get(reader, "pipe")
    os.mkfifo(pipe)

    def give_up(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    try:
        with pytest.raises(InputError, match=r"must be a file|cannot be read as weights"):
            READERS[reader](pipe)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
