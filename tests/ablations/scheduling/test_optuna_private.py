"""Optuna's private interfaces are there and do what is asked of them."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileBackend

from ablations.scheduling.optuna_private import engine_of, storage_id
from ablations.scheduling.storage import close, open_storage


def test_trial_id_is_the_one_that_storages_ask_for(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'a.db'}")
    for name in ("first", "second"):
        study = optuna.create_study(study_name=name, storage=storage)
        study.add_trial(optuna.trial.create_trial(value=1.0))
    (trial,) = study.get_trials()
    assert (trial.number, storage_id(trial)) == (0, 2), "optuna's FrozenTrial._trial_id"
    assert storage.get_trial(storage_id(trial)).number == 0
    close(storage)


def test_engine_is_found_behind_optunas_cache(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'a.db'}")
    engine = engine_of(storage)
    assert engine is not None, "optuna's _CachedStorage._backend"
    assert engine.url.database == str(tmp_path / "a.db")
    close(storage)
    journal = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "journal")))
    assert engine_of(journal) is None
