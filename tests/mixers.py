"""The mixers that tests of other parts run on: a few always, all of them in the slow suite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import operators

KINDS = ("attention", "conv", "identity", "mamba", "pde_ssm", "pom", "random")
"""One of each kind that the rest of the project can tell apart: with heads, with compiled operations, on a fixed grid,
with float32 inside, with an option group, with nothing to learn.
"""


def every_mixer(but: Sequence[str] = ()) -> list[Any]:
    """Parameters of a test, one for each mixer; all that are not in `KINDS` are slow."""
    names = [name for name in operators.names() if name not in but]
    return [pytest.param(name, marks=() if name in KINDS else pytest.mark.slow) for name in names]
