"""What is learned within a short budget: the easiest difficulty of a probe, by a mixer that it suits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.config.composition import compose
from tasks.run.execute import execute

BUDGET = ("data.batch_size=32", "data.train=512", "data.test=512", "trainer.max_epochs=12")
LEARNS = {
    "shift": "pde_ssm",
    "blur": "pde_ssm",
    "deblur": "gfnet",
    "source_sink": "pde_ssm",
    "counting": "attention",
}
"""The mixer that learns each probe."""


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNS)
def test_the_easiest_is_learned(name: str, tmp_path: Path) -> None:
    metrics = execute(
        compose(["task=probe", f"probe={name}", "logger=none", f"mixer={LEARNS[name]}", *BUDGET]), tmp_path
    )
    assert metrics["steps_to_threshold"] is not None
    assert metrics["test/score"] > 0.5
