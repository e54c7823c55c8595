"""A run that is killed or stopped at any moment ends, once continued, as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import run
from tasks.config.composition import compose
from tasks.run import saving
from tasks.run.execute import execute
from tasks.system import atomic_files
from tasks.system.signals import Stop, StoppedError
from tests.tasks.run.faults import RUN, STEPS, differences, ended, forked, outcome
from tests.tasks.run.interruptions.acts import LAST, Do, die, go_on, in_child, step


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
