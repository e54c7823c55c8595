"""The smallest runs that go through everything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.config.composition import compose
from tasks.run.execute import execute

TINY = (
    "mixer=pool",
    "model.dim=16",
    "model.depth=1",
    "data.batch_size=32",
    "trainer=smoke",
    "trainer.accelerator=cpu",
    "logger=none",
)

Fit = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    return list(TINY)


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """`fit("name", "key=value", …, callbacks=[])` carries out a tiny run in tmp_path / name."""

    def do(name: str, *overrides: str, callbacks: Any = ()) -> dict[str, Any]:
        return execute(compose([*TINY, *overrides]), tmp_path / name, callbacks=callbacks)

    return do


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of one finished tiny run; not to be written to."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    execute(compose([*TINY, "logger=tensorboard"]), run_dir)
    return run_dir
