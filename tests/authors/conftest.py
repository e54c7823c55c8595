"""Comparisons with the authors' code need clones of it."""

from __future__ import annotations

import os

import pytest

from tests.authors.source import CLONES


@pytest.fixture(autouse=True)
def clones(request: pytest.FixtureRequest) -> None:
    """Skip what needs clones, which is slow, where there are none."""
    if request.node.get_closest_marker("slow") and not os.environ.get(CLONES):
        pytest.skip(f"needs clones of the authors' repositories: {CLONES}=DIR, python -m tests.authors DIR")
