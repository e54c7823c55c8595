"""The reduction graph: a mixer with special parameters is another one, or a function that stands for it, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.operators.mixers.reductions import attention, delta, duality, equations, linear, scan, spectral

FAMILIES = (attention, delta, duality, equations, linear, scan, spectral)
ARROWS = [arrow for family in FAMILIES for arrow in family.ARROWS]


@pytest.mark.parametrize("arrow", [function for _, function in ARROWS], ids=[name for name, _ in ARROWS])
def test_reduces(arrow: Callable[[], None]) -> None:
    torch.manual_seed(0)
    arrow()
