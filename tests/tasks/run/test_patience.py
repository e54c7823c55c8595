from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from operators import InputError
from tasks.config.composition import compose
from tasks.run.execute import execute
from tests.tasks.conftest import TINY, Fit

LONG = ("trainer.max_steps=null", "trainer.max_epochs=6", "+trainer.limit_train_batches=1", "trainer.test=false")
STANDING = ("optimizer.lr=0", "optimizer.weight_decay=0")  # no validation is better than the first


class Validations(Callback):
    def __init__(self) -> None:
        self.scores: list[float] = []

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        self.scores.append(float(trainer.callback_metrics["val/accuracy"]))


@pytest.mark.parametrize("patience", [1, 3])
def test_run_ends_after_so_many_validations_without_a_better_score(patience: int, fit: Fit, tmp_path: Path) -> None:
    seen = Validations()
    metrics = fit("run", *LONG, *STANDING, f"trainer.patience={patience}", callbacks=[seen])
    assert len(seen.scores) == 1 + patience
    assert metrics["train/stopped_early"] is True
    assert metrics["train/steps"] == 1 + patience
    assert metrics["status"] == "ok"
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["train/stopped_early"] is True


def test_run_that_improves_or_has_no_patience_goes_on(fit: Fit) -> None:
    assert fit("long", *LONG, "trainer.patience=6")["train/stopped_early"] is False
    metrics = fit("none", *LONG, *STANDING)
    assert "train/stopped_early" not in metrics


def test_count_goes_on_after_a_restart_and_an_ended_run_ends_again(fit: Fit, tmp_path: Path) -> None:
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    fit("run", *LONG, *STANDING, "trainer.max_epochs=2", "trainer.patience=3")
    seen = Validations()
    longer = (*LONG, *STANDING, f"ckpt={last}")
    assert fit("run", *longer, "trainer.patience=3", callbacks=[seen])["train/stopped_early"] is True
    assert len(seen.scores) == 2  # the second and third without a better score
    before = torch.load(last, weights_only=True)["global_step"]
    again = fit("run", *longer, "trainer.patience=3")
    assert again["train/steps"] == before == 4
    assert fit("run", *longer, "trainer.patience=4")["train/steps"] == 5


def test_patience_may_come_with_a_restart(fit: Fit, tmp_path: Path) -> None:
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    fit("run", *LONG, *STANDING, "trainer.max_epochs=2")
    assert fit("run", *LONG, *STANDING, f"ckpt={last}", "trainer.patience=2")["train/stopped_early"] is True


@pytest.mark.parametrize("patience", [0, -1, 1.5, "long"])
def test_patience_that_is_none_is_refused(patience: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"trainer\.patience"):
        execute(compose([*TINY, f"trainer.patience={patience}"]), tmp_path / "run")


def test_average_of_the_weights_does_not_go_with_schedule_free() -> None:
    with pytest.raises(InputError, match=r"give trainer\.ema=0"):
        execute(compose([*TINY, "optimizer=schedule_free", "trainer.ema=0.9"]), Path("nowhere"))
