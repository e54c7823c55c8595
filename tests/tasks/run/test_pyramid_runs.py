"""A pyramid in a run: it trains, is planned, continued, tested at several resolutions, exported and matched."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import models
from operators import InputError
from tasks import export
from tasks.config.composition import compose, read
from tasks.planning import memory
from tasks.run.execute import execute

CPU = ["trainer.accelerator=cpu", "logger=none"]
GIVEN = ["model=pyramid_nano", "mixer=pool", "model.dim=8", "data.batch_size=32", "trainer=smoke", *CPU]


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("pyramid") / "run"
    return folder, execute(compose(GIVEN), folder)


def test_a_run(pyramid: tuple[Path, dict[str, Any]]) -> None:
    folder, metrics = pyramid
    assert (metrics["status"], metrics["mixer"]) == ("ok", "pool")
    made = models.create(
        "pyramid_nano",
        mixers=models.MixerSpec("pool"),
        image_size=(28, 28),
        in_channels=1,
        num_classes=10,
        dim=8,
        depth=3,
    )
    assert metrics["params"] == made.cost().parameters
    assert metrics["macs"] == made.cost().macs
    assert json.loads((folder / "metrics.json").read_text())["test/accuracy"] >= 0


def test_it_goes_on_where_it_stood(tmp_path: Path) -> None:
    """Two steps, then two more, are four, bit by bit, statistics of batch norms included."""
    flat = ["optimizer.schedule=constant", "trainer.max_epochs=null", "trainer.test=false", "model.stem_norm=batch"]
    first = execute(compose([*GIVEN, *flat, "trainer.max_steps=2"]), tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    execute(compose([f"ckpt={last}", "trainer.max_steps=4", *CPU]), tmp_path / "run")
    execute(compose([*GIVEN, *flat, "trainer.max_steps=4"]), tmp_path / "whole")
    weights = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("run", "whole")
    ]
    assert first["status"] == "ok"
    assert any(name.endswith("running_var") for name in weights[0])
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_several_resolutions_and_export(pyramid: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, trained = pyramid
    best = folder / "checkpoints" / "best.ckpt"
    given = ["mode=test", f"ckpt={best}", *CPU, "data.resolution=[28,45]"]
    metrics = execute(compose(given), tmp_path / "test")
    assert metrics["test@28/loss"] == trained["test/loss"]
    with (tmp_path / "test" / "resolutions.csv").open() as file:
        assert [row["tokens"] for row in csv.DictReader(file)] == ["196", str(23 * 23)]
    export.export(best, tmp_path / "model.safetensors")
    model = export.load(tmp_path / "model.safetensors")
    assert isinstance(model, models.Pyramid)
    assert model(torch.randn(2, 1, 28, 28)).shape == (2, 10)


def test_a_plan(tmp_path: Path) -> None:
    more = ["mode=plan", "plan.peak_tflops=1", "model.match={params: 100K}"]
    plan = execute(compose([*GIVEN, *more]), tmp_path / "plan")
    assert plan["status"] == "ok"
    assert abs(plan["params"] / 1e5 - 1) < 0.01


def test_a_mixer_of_one_grid_names_the_stage_that_it_cannot_serve(tmp_path: Path) -> None:
    from tasks.run import resolutions

    model = models.create(
        "pyramid_nano", mixers=models.MixerSpec("random"), image_size=(28, 28), in_channels=1, num_classes=10, dim=8
    )
    resolutions.check_size(model, (28, 28))
    resolutions.check_size(model, (27, 28))
    with pytest.raises(InputError, match="32×32 pixels make 16×16 tokens, but mixer random was made for 14×14"):
        resolutions.check_size(model, (32, 32))


def test_what_is_certain_to_be_needed_counts_every_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, int]] = []
    monkeypatch.setattr(memory, "_refuse", lambda parts, device: asked.append(dict(parts)))
    run = read([*GIVEN, "model.depth=4", "trainer.ema=0"])
    from tasks import data

    images = run.images(data.describe(**run.data))
    memory.check(run, images, 10)
    model = run.build(images, device="meta")
    numbers = sum(t.numel() for t in (*model.parameters(), *model.buffers()))
    stream = 14 * 14 * 8 + 2 * 7 * 7 * 16 + 4 * 4 * 32
    assert list(asked[0].values()) == [4 * numbers * 4, 10 * (4 * 28 * 28 + 4 * stream)]
