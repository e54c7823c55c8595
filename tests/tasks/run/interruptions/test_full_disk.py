"""A full disk ends a run with one line, keeps what is saved, and the run goes on once there is room."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import run
from tasks.config.composition import compose
from tasks.run.execute import DiskFullError, execute
from tests.tasks.run.faults import RUN, differences, ended, forked, outcome
from tests.tasks.run.interruptions.acts import LAST, Do, add_callbacks, go_on, step


def tighten(size: int) -> Callable[..., None]:
    """Let no file of this process grow beyond `size` bytes, which fails as a full disk does."""
    return lambda *_: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.parametrize(
    ("size", "logger", "what"),
    [
        pytest.param(100_000, "csv", "last.ckpt", marks=pytest.mark.slow),
        (300, "csv", "run/:"),
        pytest.param(100, "tensorboard", "run/:", marks=pytest.mark.slow),
    ],
)
def test_full_disk_is_one_line(tmp_path: Path, whole: dict[str, Any], size: int, logger: str, what: str) -> None:
    run_dir, log = tmp_path / "run", tmp_path / "log"

    def work() -> int:
        callbacks = [Do("on_train_batch_start", 13, tighten(size))]
        add_callbacks(*callbacks)
        return run.main([*RUN, f"logger={logger}", f"hydra.run.dir={run_dir}"])

    # Its output goes through a pipe, which may grow.
    read, write = os.pipe()
    child = forked(work, Path(f"/dev/fd/{write}"))
    os.close(write)
    with os.fdopen(read) as pipe:
        log.write_text(pipe.read())
    assert ended(child) == 1, log.read_text()
    lines = log.read_text().splitlines()
    assert lines[-1].startswith("cannot write "), log.read_text()
    assert what in lines[-1]
    assert os.strerror(errno.EFBIG) in lines[-1]
    assert f"{run_dir / LAST} of step 6 is intact" in lines[-1]
    assert "Traceback" not in log.read_text()
    assert step(run_dir / LAST) == 6
    if size == 300:  # which leaves half a row in the table
        go_on(run_dir)
        assert differences(outcome(run_dir), whole) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only who may mount can have a disk that is really full")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_run_goes_on_once_there_is_room(small_disk: Path, whole: dict[str, Any]) -> None:
    run_dir, ballast = small_disk / "run", small_disk / "ballast"

    def fill(*_: Any) -> None:
        with ballast.open("wb", buffering=0) as file:
            while shutil.disk_usage(small_disk).free:
                file.write(bytes(4096))

    with pytest.raises(DiskFullError, match=r"No space left on device, 0\.0 MB free; .* of step 6 is intact"):
        execute(compose(RUN), run_dir, callbacks=[Do("on_train_batch_start", 13, fill)])
    ballast.unlink()
    go_on(run_dir)
    assert differences(outcome(run_dir), whole) == []
