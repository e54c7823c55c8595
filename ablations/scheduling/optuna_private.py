"""All private interfaces of Optuna that this project uses: what an upgrade of Optuna breaks, it breaks here.

`tests/ablations/scheduling/test_optuna_private.py` names the one that is gone.
"""

from __future__ import annotations

from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy import Engine


def storage_id(trial: FrozenTrial) -> int:
    """The number of a trial in its storage, which the methods of storages ask for."""
    return trial._trial_id


def engine_of(storage: BaseStorage) -> Engine | None:
    """The connections of a storage that is a database, also behind Optuna's cache; None of any other."""
    behind = getattr(storage, "_backend", storage)
    return behind.engine if isinstance(behind, RDBStorage) else None
