"""The smallest runs that go through everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tasks import data
from tasks.config.composition import compose
from tasks.data.sources import fashion_mnist
from tasks.run.execute import execute
from tasks.system import provenance

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


@pytest.fixture(scope="session", autouse=True)
def read_once() -> Iterator[None]:
    """What is the same for every run of a session, and a third of the work of a tiny one, is read the first time.

    The embedded images, by their file; versions of packages; the revision.
    """
    read = cache(lambda path: fashion_mnist.load_mini(None))
    mini = replace(fashion_mnist.FASHION_MNIST_MINI, load=lambda root: deepcopy(read(fashion_mnist.MINI)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(data._SOURCES, mini.name, mini)
        patch.setattr(provenance, "_versions", cache(provenance._versions))
        patch.setattr(provenance, "_git", cache(provenance._git))
        yield


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
