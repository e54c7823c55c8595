"""What a run costs: measured after everything else, so that nothing that it leaves depends on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tasks.conftest import Fit

COSTS = {"train/step_ms", "inference/image_ms", "inference/memory_mb"}
TIMES = {"train/seconds", "train/images_per_second", "train/memory_mb", *COSTS}


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        pytest.param(["task=generation"], marks=pytest.mark.slow),
        pytest.param(["data.augment.mixup=0.2", "trainer.precision=bf16-mixed"], marks=pytest.mark.slow),
        pytest.param(["optimizer=schedule_free", "trainer.accumulate=2"], marks=pytest.mark.slow),
        pytest.param(["model.drop_path=0.3", "model.depth=2", "trainer.ema=0.5"], marks=pytest.mark.slow),
    ],
    ids=lambda overrides: "-".join(overrides) or "plain",
)
def test_costs_are_measured_and_change_nothing_else(fit: Fit, tmp_path: Path, overrides: list[str]) -> None:
    plain, costed = fit("plain", *overrides), fit("costed", *overrides, "trainer.costs=true")
    assert costed.keys() - plain.keys() >= COSTS
    assert all(costed[name] > 0 for name in COSTS)
    assert {k: v for k, v in plain.items() if k not in TIMES} == {k: v for k, v in costed.items() if k not in TIMES}
    first, second = (_weights(tmp_path / name) for name in ("plain", "costed"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_inference_holds_the_weights_and_what_a_batch_takes(fit: Fit) -> None:
    narrow, wide = (
        fit(f"{hidden}", f"model.hidden={hidden}", "trainer.costs=true", "trainer.test=false") for hidden in (8, 4096)
    )
    tokens, batch = 49, 32
    least = 4 * (wide["params"] + batch * tokens * 4096)
    assert least < 1e6 * wide["inference/memory_mb"] < 3 * least
    assert narrow["inference/memory_mb"] < wide["inference/memory_mb"] / 10


def _weights(run: Path) -> dict[str, Any]:
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    state: dict[str, Any] = content["state_dict"]
    return state
