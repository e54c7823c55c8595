"""A U-shaped generator in a run: it trains, goes on, is drawn from with guidance, planned and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import models
from operators import InputError
from tasks import export
from tasks.config.composition import compose, read
from tasks.run.execute import execute

CPU = ["trainer.accelerator=cpu", "logger=none"]
GIVEN = ["task=generation", "model=dit_u_nano", "model.dim=8", "data.batch_size=8", "trainer=smoke", *CPU]
STAGES = ["mixer=stages", "mixer.stages=[dico,[pool,{name: attention, heads: 2}],conv]", "model.depth=4"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("dit_u") / "run"
    return folder, execute(compose([*GIVEN, *STAGES]), folder)


def test_a_run(run: tuple[Path, dict[str, Any]]) -> None:
    folder, metrics = run
    assert (metrics["status"], metrics["mixer"]) == ("ok", "dico+pool+attention+conv")
    config = read([*GIVEN, *STAGES])
    made = models.create(
        "dit_u_nano", mixers=config.mixers, image_size=(28, 28), in_channels=1, num_classes=10, dim=8, depth=4
    )
    assert metrics["params"] == made.cost().parameters
    assert metrics["macs"] == made.cost().macs
    assert (folder / "samples" / "samples.npz").is_file()


def test_samples_with_guidance_and_export(run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    best = run[0] / "checkpoints" / "best.ckpt"
    drawn = ["mode=sample", f"ckpt={best}", *CPU, "sample.n=2", "sample.classes=[3]", "sample.steps=1"]
    guided = [*drawn, "sample.guidance=2"]
    images = []
    for name, given in (("plain", drawn), ("guided", guided)):
        execute(compose(given), tmp_path / name)
        with np.load(tmp_path / name / "samples" / "samples.npz") as file:
            assert file["labels"].tolist() == [3, 3]
            images.append(file["arr_0"])
    assert images[0].shape == (2, 28, 28, 3)
    export.export(best, tmp_path / "model.safetensors")
    model = export.load(tmp_path / "model.safetensors")
    assert isinstance(model, models.UShapedDiffusionTransformer)
    output = model(torch.randn(2, 1, 28, 34), torch.rand(2), torch.tensor([0, model.null_label]))
    assert output.shape == (2, 1, 28, 34)


def test_it_goes_on_where_it_stood(tmp_path: Path) -> None:
    flat = ["mixer=dico", "optimizer.schedule=constant", "trainer.max_epochs=null", "trainer.test=false"]
    execute(compose([*GIVEN, *flat, "trainer.max_steps=1"]), tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    execute(compose([f"ckpt={last}", "trainer.max_steps=2", *CPU]), tmp_path / "run")
    execute(compose([*GIVEN, *flat, "trainer.max_steps=2"]), tmp_path / "whole")
    weights = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("run", "whole")
    ]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_plan(tmp_path: Path) -> None:
    more = ["mixer=dico", "mode=plan", "plan.peak_tflops=1", "plan.bandwidth=10", "model.match={params: 60K}"]
    plan = execute(compose([*GIVEN, *more]), tmp_path / "plan")
    assert plan["status"] == "ok"
    assert abs(plan["params"] / 6e4 - 1) < 0.02


def test_it_is_no_classifier() -> None:
    with pytest.raises(InputError, match=r"model=dit_u_nano is not made for task=classification: take vit_\*"):
        read(["model=dit_u_nano"])
