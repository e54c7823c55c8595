"""Fixtures for the whole suite: the same random numbers and the same number of threads for every test."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    # Test tensors are small: a second thread gains nothing, and on a busy machine waiting for it multiplies the time.
    # Whatever the environment says: several tests fork, which OpenMP does not survive once it has had two.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seed every global generator before each test, so that a test's numbers do not depend on those run before it."""
    value = 0
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002 - libraries under test may still draw from the global generator
    torch.manual_seed(value)
    return value
