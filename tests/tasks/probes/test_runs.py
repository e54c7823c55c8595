"""Runs of task=probe: what they leave, how they go on, and what they are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import run
from operators.errors import InputError
from tasks.config.composition import compose
from tasks.config.schema import parse
from tasks.planning import plan
from tasks.probe import Probing
from tasks.probes import registry
from tasks.probes.data import ProbeData
from tasks.run.execute import execute
from tests.tasks.run.test_execute import Kill

SMALL = ("task=probe", "trainer=smoke", "mixer=identity", "model.dim=8", "model.depth=1", "logger=none")
SMALL = (*SMALL, "trainer.accelerator=cpu", "data.batch_size=16")
TIMES = {"train/seconds", "train/images_per_second"}


def outcome(path: Path) -> dict[str, object]:
    return {key: value for key, value in json.loads((path / "metrics.json").read_text()).items() if key not in TIMES}


def test_a_run_by_command(tmp_path: Path) -> None:
    own = ["probe.name=counting", "probe.difficulty=3", "probe.most=9", "mixer=pool"]
    assert run.main([*SMALL, *own, f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    metrics = outcome(tmp_path / "run")
    assert metrics["data"] == "counting/3"
    assert {f"{split}/{name}" for split in ("val", "test") for name in ("error", "score", "accuracy")} <= set(metrics)
    assert metrics["steps_to_threshold"] is None
    test = {key.removeprefix("test/"): value for key, value in metrics.items() if key.startswith("test/")}
    assert test["oracle"] < 1e-12
    assert test["score"] == pytest.approx((test["chance"] - test["error"]) / (test["chance"] - test["oracle"]))
    probe = registry.create("counting", 3, most=9)
    data = ProbeData(probe, val=16, test=16)
    samples = data.kept("test")
    assert samples.input.shape[-1] == 24  # the grid of testing
    assert test["chance"] == probe.error(data.constant, samples)
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    assert run.main(["mode=test", f"ckpt={checkpoint}", "logger=none", f"hydra.run.dir={tmp_path / 'again'}"]) == 0
    again = outcome(tmp_path / "again")
    assert {key: again[key] for key in again if key.startswith("test/")} == {f"test/{k}": v for k, v in test.items()}


def test_a_run_that_goes_on_ends_as_if_it_had_not_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The threshold is moved above every error: the first validation, which the stopped run has seen, is below it."""
    monkeypatch.setattr("tasks.probe.threshold", lambda oracle, chance, exact: 1e9)
    longer = [*SMALL, "probe=mqar_2d", "trainer.max_steps=null", "trainer.max_epochs=2", "data.train=32"]
    execute(compose(longer), tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        execute(compose(longer), tmp_path / "parts", callbacks=[Kill(3)])
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    execute(compose([f"ckpt={last}", "logger=none"]), tmp_path / "parts")
    whole = outcome(tmp_path / "whole")
    assert whole == outcome(tmp_path / "parts")
    assert whole["steps_to_threshold"] == 2  # of four


def test_a_mixer_of_one_grid_cannot_be_tested_on_another(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="was made for 12×12 and serves no others"):
        execute(compose([*SMALL, "probe=counting", "probe.difficulty=3", "mixer=gfnet"]), tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("probe=shift probe.distanc=3", "did you mean 'distance'"),
        ("probe=shfit", "did you mean 'shift'"),
        ("probe=shift probe.distance=0.3", r"probe\.distance=0\.3 must be"),
        ("probe.difficulty=9", r"probe\.difficulty=9 must be an integer >= 0 and <= 4"),
        ("task=probe model.pooling=mean", "take cells_nano, or vit_"),
        ("model.pooling=none", r"take model\.pooling=mean"),
        ("task=probe data=cifar10", "takes its own data"),
        ("task=classification data=probe", "probe"),
        ("task=generation probe=shift", "exist only with task=probe"),
        ("probe.distance=3", None),
    ],
)
def test_words_are_checked(words: str, message: str | None) -> None:
    if message is None:
        assert compose(words.split())["task"] == {"name": "probe"}
        return
    with pytest.raises(InputError, match=message) as caught:
        compose(words.split())
    assert "\n" not in str(caught.value)


def test_a_plan(tmp_path: Path) -> None:
    facts = plan.make(parse(compose([*SMALL, "mode=plan", "plan.peak_tflops=1", "probe=mqar_2d"])))
    assert facts["input"] == [9, 8, 8]
    assert facts["memory/training"] > 0


@pytest.mark.parametrize("name", registry.PROBES)
def test_a_step_is_timed_of_every_kind_of_target(name: str) -> None:
    probe = registry.create(name)
    shape = (probe.outputs, probe.grid, probe.grid) if probe.per_cell else (probe.outputs,)
    answer = torch.zeros(2, *shape)

    class Constant(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return answer

    task = Probing(Constant(), probe=probe, optimizer=None)  # type: ignore[arg-type]
    assert task.rehearse(torch.zeros(2, probe.channels, probe.grid, probe.grid), mixes=False).ndim == 0
