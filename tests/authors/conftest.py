"""Comparisons with the authors' code need clones of it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from tests.authors.source import CLONES


@pytest.fixture(autouse=True)
def clones(request: pytest.FixtureRequest) -> None:
    """Skip what needs clones, which is slow, where there are none."""
    if request.node.get_closest_marker("slow") and not os.environ.get(CLONES):
        pytest.skip(f"needs clones of the authors' repositories: {CLONES}=DIR, python -m tests.authors DIR")


@pytest.fixture
def float64() -> Iterator[None]:
    """Whatever modules compute when they are made is in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
