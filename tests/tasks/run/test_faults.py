"""Kills, stops, damage, full disks and divergence: what is saved stays, and the run ends as if nothing had happened."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

import run
from operators import InputError
from tasks.config.composition import compose
from tasks.run import execute as execution
from tasks.run import saving
from tasks.run.execute import DiskFullError, execute
from tasks.system import atomic_files, checkpoint
from tasks.system.signals import Stop, StoppedError
from tests.tasks.run.faults import RUN, STEPS, curves, differences, ended, forked, outcome

LAST = "checkpoints/last.ckpt"


class Do(Callback):
    """Calls `action` at the `count`-th `hook`."""

    def __init__(self, hook: str, count: int, action: Callable[..., object]) -> None:
        self._left, self._action = count, action
        setattr(self, hook, self._do)

    def _do(self, *arguments: Any, **_: Any) -> None:
        self._left -= 1
        if self._left == 0:
            self._action(*arguments)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the run that nothing happened to; not to be written to."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    execute(compose(RUN), run_dir)
    return run_dir


@pytest.fixture(scope="module")
def whole(whole_run: Path) -> dict[str, Any]:
    return outcome(whole_run)


@pytest.fixture
def copy(whole_run: Path, tmp_path: Path) -> Path:
    """A copy of that directory."""
    return Path(shutil.copytree(whole_run, tmp_path / "copy"))


def go_on(run_dir: Path) -> None:
    """Do what one does after an interruption: continue, or where nothing is saved start again."""
    last = run_dir / LAST
    execute(compose([*RUN, f"ckpt={last}"] if last.exists() else RUN), run_dir)


def step(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def add_callbacks(*more: Callback) -> None:
    """Let `run.py` carry out its runs in this process with these callbacks too."""

    def with_more(*arguments: Any, callbacks: Sequence[Callback], **options: Any) -> dict[str, Any]:
        return execute(*arguments, callbacks=[*callbacks, *more], **options)

    execution.execute = with_more  # type: ignore[assignment]


def in_child(run_dir: Path, *callbacks: Callback, before: Callable[[], object] = lambda: None) -> int:
    """`python run.py` with callbacks, in a process of its own: exit status, or minus a signal."""

    def work() -> int:
        before()
        add_callbacks(*callbacks)
        return run.main([*RUN, f"hydra.run.dir={run_dir}"])

    log = run_dir.with_suffix(".log")
    status = ended(forked(work, log))
    assert "Traceback" not in log.read_text()
    return status


@pytest.mark.slow
def test_killed_within_an_epoch(tmp_path: Path, whole: dict[str, Any]) -> None:
    run_dir = tmp_path / "run"
    assert in_child(run_dir, Do("on_train_batch_start", 13, die)) == -signal.SIGKILL
    assert step(run_dir / LAST) == 6
    go_on(run_dir)
    assert differences(outcome(run_dir), whole) == []


@pytest.mark.slow
def test_killed_during_a_save(tmp_path: Path, whole: dict[str, Any]) -> None:
    run_dir = tmp_path / "run"

    def torn() -> None:
        save, calls = torch.save, []

        def half(content: Any, file: Any) -> None:
            calls.append(file)
            if len(calls) == 4:
                file.write(b"PK" * 1000)
                file.flush()
                die()
            save(content, file)

        saving.torch.save = half  # type: ignore[assignment]

    assert in_child(run_dir, before=torn) == -signal.SIGKILL
    assert list(run_dir.rglob(f"*{atomic_files.SUFFIX}"))
    go_on(run_dir)
    assert not list(run_dir.rglob(f"*{atomic_files.SUFFIX}"))
    assert differences(outcome(run_dir), whole) == []


@pytest.mark.slow
def test_terminated_within_an_epoch(tmp_path: Path, whole: dict[str, Any]) -> None:
    run_dir = tmp_path / "run"
    log = tmp_path / "log"
    child = forked(lambda: run.main([*RUN, f"hydra.run.dir={run_dir}"]), log)
    while not (run_dir / LAST).exists():
        time.sleep(0.001)
    os.kill(child, signal.SIGTERM)
    assert ended(child) == 1
    saved = step(run_dir / LAST)
    assert 2 <= saved < STEPS
    assert (
        log.read_text().splitlines()[-1] == f"stopped by SIGTERM at step {saved}: continue with ckpt={run_dir / LAST}"
    )
    assert "Traceback" not in log.read_text()
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert (metrics["status"], metrics["stopped"]) == ("failed", "SIGTERM")
    go_on(run_dir)
    assert differences(outcome(run_dir), whole) == []


STOPS = {
    "before the first step": ("on_train_start", 1, "at step 0: nothing is saved yet, start it again"),
    "before a validation": ("on_train_batch_start", 7, "at step 4: continue"),
    "in a validation": ("on_validation_batch_start", 3, "at step 8: continue with ckpt=.*, which is of step 6"),
    "in the test": ("on_test_batch_start", 1, "at step 8: continue"),
}


@pytest.mark.parametrize(
    ("hook", "count", "expected"),
    [
        pytest.param(*stop, id=when, marks=[pytest.mark.slow] * (when != "in a validation"))
        for when, stop in STOPS.items()
    ],
)
def test_stopped_run_ends_as_one_that_was_not(
    tmp_path: Path, whole: dict[str, Any], hook: str, count: int, expected: str
) -> None:
    ask = Do(hook, count, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with Stop() as stop, pytest.raises(StoppedError, match=f"^stopped by SIGTERM {expected}"):
        execute(compose(RUN), tmp_path / "run", callbacks=[ask], stop=stop)
    go_on(tmp_path / "run")
    assert differences(outcome(tmp_path / "run"), whole) == []


@pytest.mark.slow
def test_a_process_ends_although_loaders_still_work_for_it() -> None:
    program = (
        "import tasks.data; loader = iter(tasks.data.create('fashion_mnist_mini', num_workers=2).train_dataloader())"
    )
    subprocess.run([sys.executable, "-c", f"{program}; next(loader); print('ends')"], timeout=120, check=True)


@pytest.mark.parametrize(
    "batch", [pytest.param(7, id="first epoch", marks=pytest.mark.slow), pytest.param(14, id="last epoch")]
)
def test_stopped_before_a_validation_and_again_after_it(tmp_path: Path, whole: dict[str, Any], batch: int) -> None:
    """What is saved after a validation that a continued run began with is a validation that is over."""
    run_dir, given = tmp_path / "run", RUN
    for hook, count in (("on_train_batch_end", batch), ("on_validation_epoch_end", 1)):
        ask = Do(hook, count, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        with Stop() as stop, pytest.raises(StoppedError, match=f"at step {4 * batch // 7}: continue"):
            execute(compose(given), run_dir, callbacks=[ask], stop=stop)
        given = (*RUN, f"ckpt={run_dir / LAST}")
    go_on(run_dir)
    assert differences(outcome(run_dir), whole) == []


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["foreground", "background"])
def interrupt(request: pytest.FixtureRequest) -> Iterator[Any]:
    """How this process was started: what SIGINT does to it."""
    before = signal.signal(signal.SIGINT, request.param)
    yield request.param
    signal.signal(signal.SIGINT, before)


def test_second_interrupt_is_not_held_back(interrupt: Any) -> None:
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        if interrupt is signal.SIG_IGN:
            assert stop.name is None
        else:
            assert stop.name == "SIGINT"
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is interrupt


def test_the_generation_before_is_kept(whole_run: Path) -> None:
    assert step(whole_run / "checkpoints" / "previous.ckpt") == STEPS - 2
    assert step(whole_run / LAST) == STEPS


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3000])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_damaged_checkpoint_is_replaced_by_the_one_before(
    copy: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object]
) -> None:
    last, before = copy / LAST, copy / "checkpoints" / "previous.ckpt"
    damage(last)
    damaged = last.read_bytes() if last.exists() else None
    kept = before.read_bytes()
    assert run.main([f"ckpt={last}"]) == 0
    line, *others = capsys.readouterr().err.splitlines()
    if damaged is None:
        assert others == []
    else:
        assert others == [f"warning: the damaged {last} is kept as last.ckpt.aside-1"]
        assert last.with_name("last.ckpt.aside-1").read_bytes() == damaged
    assert line.startswith(f"warning: {last} is ")
    assert f"{before}, of step {STEPS - 2}" in line
    assert before.read_bytes() == kept  # what is damaged never takes the place of what is not
    assert differences(outcome(copy), whole) == []


def test_nothing_is_overwritten_where_no_checkpoint_is_good(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last, before = copy / LAST, copy / "checkpoints" / "previous.ckpt"
    for path in (last, before):
        flip(path)
    content = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert run.main([f"ckpt={last}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(last) in line
    assert str(before) in line
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == content


def test_a_flipped_bit_is_seen_or_changes_nothing(whole_run: Path, tmp_path: Path) -> None:
    good = (whole_run / LAST).read_bytes()
    content, draw = checkpoint.load(whole_run / LAST), random.Random(0)
    path, seen = tmp_path / "last.ckpt", 0
    for _ in range(60):
        damaged = bytearray(good)
        damaged[draw.randrange(len(good))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            found = checkpoint.load(path)
        except InputError:
            seen += 1
        else:
            assert differences(found, content) == []
    assert seen > 20


class TestStartingOver:
    def test_a_run_that_saved_nothing_starts_again(
        self, tmp_path: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        run_dir = tmp_path / "run"
        assert in_child(run_dir, Do("on_train_batch_start", 2, die)) == -signal.SIGKILL
        assert (run_dir / "config.yaml").exists()
        assert run.main([f"ckpt={run_dir / LAST}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith("does not exist: that run has not saved anything yet, start it again")
        assert run.main([*RUN, f"hydra.run.dir={run_dir}"]) == 0
        assert differences(outcome(run_dir), whole) == []

    def test_a_run_with_a_checkpoint_says_how_it_continues(self, copy: Path) -> None:
        (copy / "metrics.json").unlink()
        with pytest.raises(InputError, match=f"already holds a run: continue it with ckpt={copy / LAST}"):
            execute(compose(RUN), copy)

    def test_a_result_without_a_checkpoint_is_not_overwritten(self, copy: Path) -> None:
        shutil.rmtree(copy / "checkpoints")
        with pytest.raises(InputError, match="already holds a run, of status ok"):
            execute(compose(RUN), copy)

    def test_a_finished_run_reports_again(self, copy: Path, whole: dict[str, Any]) -> None:
        saved = (copy / LAST).read_bytes()
        go_on(copy)
        assert (copy / LAST).read_bytes() == saved
        assert differences(outcome(copy), whole) == []


def poison(_trainer: Any, module: Any, *_: Any) -> None:
    with torch.no_grad():
        module.model.head.weight[0, 0] = math.nan


def test_divergence_leaves_the_checkpoints_from_before(tmp_path: Path, whole: dict[str, Any]) -> None:
    run_dir = tmp_path / "run"
    # In the step after which the run is saved: what is no longer finite must not be.
    metrics = execute(compose(RUN), run_dir, callbacks=[Do("on_train_batch_end", 13, poison)])
    assert (metrics["status"], metrics["diverged/step"]) == ("diverged", 7)
    config = compose([f"ckpt={run_dir / LAST}"])
    again = execute(config, run_dir, callbacks=[Do("on_before_optimizer_step", 2, lambda *a: poison(a[0], a[1]))])
    assert (again["status"], again["diverged/step"]) == ("diverged", 8)
    assert again["diverged/layer"] == "head (parameter weight)"
    assert step(run_dir / LAST) == 6
    go_on(run_dir)
    assert differences(outcome(run_dir), whole) == []


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


def test_curves_are_continued(copy: Path, whole: dict[str, Any]) -> None:
    (copy / LAST).unlink()
    execute(compose([f"ckpt={copy / LAST}"]), copy)
    assert [number for number, _ in curves(copy)["train/loss"]] == list(range(STEPS))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_any_moment_will_do(tmp_path: Path, whole: dict[str, Any], number: signal.Signals) -> None:
    """Twenty runs, each ended at up to three moments that are drawn from the time a run takes, and continued."""
    draw, told = random.Random(int(number)), []

    def start(run_dir: Path, log: Path) -> int:
        last = run_dir / LAST
        how = [f"ckpt={last}"] if last.exists() else []
        return forked(lambda: run.main([*RUN, f"hydra.run.dir={run_dir}", *how]), log)

    def saved_at(run_dir: Path) -> int:
        return (run_dir / LAST).stat().st_mtime_ns if (run_dir / LAST).exists() else 0

    begun = time.monotonic()
    assert ended(start(tmp_path / "probe", tmp_path / "probe.log")) == 0
    usual = time.monotonic() - begun
    for index in range(20):
        run_dir = tmp_path / str(index)
        for turn in range(draw.choice([1, 1, 2, 3])):
            log = tmp_path / f"{index}-{turn}.log"
            before, begun = saved_at(run_dir), time.monotonic()
            child = start(run_dir, log)
            if draw.random() < 0.6:  # half of the time a run takes is gone when it first saves
                while saved_at(run_dir) == before and time.monotonic() < begun + usual:
                    time.sleep(0.001)
                time.sleep(draw.uniform(0, 0.3) * usual)
            else:
                time.sleep(draw.uniform(0.02, 1) * usual)
            os.kill(child, number)
            status, text = ended(child), log.read_text()
            assert "Traceback" not in text
            # Also SIGTERM just kills a process that does not listen yet, or no longer.
            assert status in (-number, 0) or (number == signal.SIGTERM and status == 1), text
            saved = step(run_dir / LAST) if (run_dir / LAST).exists() else 0
            told.append((status, saved))
            if status == 1:
                assert text.splitlines()[-1].startswith("stopped by SIGTERM ")
            if status == 0:
                break
        if told[-1][0]:
            log = tmp_path / f"{index}.log"
            assert ended(start(run_dir, log)) == 0, log.read_text()
        assert differences(outcome(run_dir), whole) == [], told
    assert len({saved for status, saved in told if status}) >= 3, told
