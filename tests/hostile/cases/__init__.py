"""Tables of cases, one module for each area."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace

from tests.hostile.case import Case


def collect() -> dict[str, Case]:
    """All cases by label, in order of areas."""
    cases: dict[str, Case] = {}
    for found in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        for case in importlib.import_module(f"{__name__}.{found.name}").CASES:
            placed = replace(case, area=found.name)
            assert placed.label not in cases, f"two cases are called {placed.label}"
            cases[placed.label] = placed
    return cases
