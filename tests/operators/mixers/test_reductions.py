"""The reduction graph: a mixer with special parameters is another one, or a function that stands for it, in float64."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module

import pytest
import torch

import operators
from tests.operators.mixers import reductions
from tests.operators.mixers.reductions.graph import GRAPH

FAMILIES = [
    import_module(f"{reductions.__name__}.{module.name}")
    for module in pkgutil.iter_modules(reductions.__path__)
    if module.name != "graph"
]
ARROWS = [arrow for family in FAMILIES for arrow in family.ARROWS]


@pytest.mark.parametrize("arrow", [function for _, function in ARROWS], ids=[name for name, _ in ARROWS])
def test_reduces(arrow: Callable[[], None]) -> None:
    torch.manual_seed(0)
    arrow()


def test_every_arrow_whose_ends_exist_is_in_the_table() -> None:
    """Also one to a mixer that is registered later, if by the name that the graph has for it."""
    known = set(operators.names())
    tested = [name for name, _ in ARROWS]
    assert sorted(tested) == sorted(name for name, ends in GRAPH.items() if known.issuperset(ends))
