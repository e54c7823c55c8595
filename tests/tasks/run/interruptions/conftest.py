"""The run that nothing happened to is made once, to compare others with, and copied to be damaged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.config.composition import compose
from tasks.run.execute import execute
from tests.tasks.run.faults import RUN, outcome


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the run that nothing happened to; not to be written to."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    execute(compose(RUN), run_dir)
    return run_dir


@pytest.fixture(scope="session")
def whole(whole_run: Path) -> dict[str, Any]:
    return outcome(whole_run)


@pytest.fixture
def copy(whole_run: Path, tmp_path: Path) -> Path:
    """A copy of that directory."""
    return Path(shutil.copytree(whole_run, tmp_path / "copy"))
