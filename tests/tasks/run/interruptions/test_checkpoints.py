"""A damaged or missing checkpoint, or a run that diverged, costs nothing of what was saved well before."""

from __future__ import annotations

import math
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import run
from operators import InputError
from tasks.config.composition import compose
from tasks.run.execute import execute
from tasks.system import checkpoint
from tests.tasks.run.faults import RUN, STEPS, differences, outcome
from tests.tasks.run.interruptions.acts import LAST, Do, die, go_on, in_child, step


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
        for name in ("metrics.json", "predictions.npz"):
            (copy / name).unlink()
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


def test_curve_that_all_are_compared_with_has_every_step(whole: dict[str, Any]) -> None:
    assert [number for number, _ in whole["curves"]["train/loss"]] == list(range(STEPS))
