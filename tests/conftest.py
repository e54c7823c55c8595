"""Fixtures for the whole suite: the same random numbers and the same number of threads for every test."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    # Parallel workers share the cores: more threads than cores make small tensors many times slower.
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    threads = int(os.environ.get("OMP_NUM_THREADS", max(1, min(4, os.cpu_count() or 1) // workers)))
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seed every global generator before each test, so that a test's numbers do not depend on those run before it."""
    value = 0
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002 - libraries under test may still draw from the global generator
    torch.manual_seed(value)
    return value
