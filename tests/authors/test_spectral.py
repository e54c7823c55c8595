"""Spectral mixers against their authors' code."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import operators
from tests.authors.comparing import compare, fill
from tests.authors.source import Source

pytestmark = pytest.mark.slow
NOT_INSTALLED: dict[str, dict[str, Any]] = {
    "numpy.lib.arraypad": {},
    "timm.data": {},
    "timm.models.layers": {},
    "timm.models.registry": {},
}


def test_gfnet() -> None:
    module = Source.of("gfnet").load("gfnet", stubs=NOT_INSTALLED, edits={"x.to(torch.float32)": "x"})
    theirs = module.GlobalFilter(12, h=5, w=4).double()
    ours = operators.create("gfnet", 12, grid=(5, 7), shell=operators.BARE).double()
    fill(ours, {"core.filter": theirs.complex_weight.movedim(-1, 0)})
    x = torch.randn(2, 5, 7, 12, dtype=torch.float64)
    compare("gfnet", ours, lambda x: theirs(x.flatten(1, 2), (5, 7)).view(x.shape), x)
