from __future__ import annotations

from dataclasses import replace

import pytest

from operators import registry
from operators.benchmark.measuring import clock, roofline
from tests.operators.benchmark.cases import CARD


@pytest.fixture
def hurried(monkeypatch):
    """Samples and ceilings so small that a whole benchmark takes a second."""
    monkeypatch.setattr(clock, "LEAST_SAMPLE", 1e-4)
    monkeypatch.setitem(roofline.MATRIX, "cpu", 32)
    monkeypatch.setitem(roofline.COPY_BYTES, "cpu", 1 << 14)


@pytest.fixture
def enter(monkeypatch):
    """Registers a core for the length of a test."""
    registry.names()

    def register(core, name, **card):
        core.card = replace(CARD, name=name, **card)
        monkeypatch.setitem(registry._cores, name, core)
        return name

    return register
