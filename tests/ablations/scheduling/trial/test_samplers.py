from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ablations.plan import Objective
from ablations.scheduling.trial.hparams import log_settings
from ablations.scheduling.trial.samplers import Pruning
from tasks.config.composition import compose
from tasks.costs.peak_memory import PeakMemory
from tasks.run.execute import execute
from tests.ablations.conftest import TINY


class Always(BasePruner):
    """Lets nothing live."""

    def prune(self, study: Any, trial: Any) -> bool:
        return True


@pytest.mark.parametrize(("hopeless", "reported"), [(True, [0]), (False, [0, 1])])
def test_pruned_run_ends_early_and_properly(tmp_path: Path, hopeless: bool, reported: list[int]) -> None:
    study = optuna.create_study(direction="maximize", pruner=Always() if hopeless else optuna.pruners.NopPruner())
    trial = study.ask()
    pruning, memory = Pruning(trial, Objective("val/accuracy")), PeakMemory()
    longer = ["trainer.max_steps=null", "trainer.max_epochs=2", "+trainer.limit_train_batches=1", "trainer.test=false"]
    run_dir = tmp_path / "run"
    metrics = execute(compose([*TINY, *longer]), run_dir, callbacks=[pruning, memory], tuned=hopeless)
    assert json.loads((run_dir / "provenance.json").read_text())["learning_rate_tuned"] is hopeless
    assert pruning.pruned is hopeless
    assert metrics["status"] == "ok"
    assert sorted(study.trials[0].intermediate_values) == reported
    assert metrics["val/accuracy"] == max(study.trials[0].intermediate_values.values())
    assert memory.megabytes is not None
    assert 0.1 < memory.megabytes < 2000


def test_settings_and_scores_are_in_tensorboard(tmp_path: Path) -> None:
    log_settings(tmp_path, {"lr": 1e-3, "conv": "off"}, {"val/accuracy": 0.5, "status": "ok", "macs": 3})
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == ["study/val/accuracy"]
    settings = events.summary_metadata["_hparams_/session_start_info"]
    assert b"conv" in settings.plugin_data.content
