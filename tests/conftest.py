"""Fixtures for the whole suite: the same random numbers and the same number of threads for every test."""

from __future__ import annotations

import io
import random
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf


def pytest_configure(config: pytest.Config) -> None:
    # Test tensors are small: a second thread gains nothing, and on a busy machine waiting for it multiplies the time.
    # Whatever the environment says: several tests fork, which OpenMP does not survive once it has had two.
    torch.set_num_threads(1)
    # A shell starts background jobs with Ctrl-C ignored, which studies under test would inherit.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seed every global generator before each test, so that a test's numbers do not depend on those run before it."""
    value = 0
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002 - libraries under test may still draw from the global generator
    torch.manual_seed(value)
    return value


@pytest.fixture(scope="session", autouse=True)
def parsed_once() -> Iterator[None]:
    """Hydra reads some twenty files each time it composes; a text is parsed the first time in a session."""
    load = OmegaConf.load

    @cache
    def parsed(text: str) -> Any:
        return OmegaConf.to_container(load(io.StringIO(text)))

    def load_known(file: str | Path | TextIO) -> Any:
        return load(file) if isinstance(file, str | Path) else OmegaConf.create(parsed(file.read()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "load", load_known)
        yield
