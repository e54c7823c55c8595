"""Our training step beside a loop of bare PyTorch."""

from __future__ import annotations

import pytest
import torch

from tasks import overhead

SMALL = ["mixer=pool", "trainer=smoke", "logger=none", "trainer.max_steps=7"]


@pytest.mark.parametrize("task", ["classification", "generation"])
def test_the_two_take_turns_and_learn_alike(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    models = []
    step = overhead.Turns._step
    monkeypatch.setattr(overhead.Turns, "_step", lambda self: (step(self), models.append(self))[0])
    turns = overhead.measure([f"task={task}", *SMALL, "optimizer.warmup=0", "optimizer.schedule=constant"])
    assert len(turns.ours) == len(turns.bare) == len(models) == 7
    assert all(seconds > 0 for seconds in (*turns.ours, *turns.bare))
    ours, bare = dict(turns._module.model.named_parameters()), dict(turns._model.named_parameters())
    moved = torch.cat([(bare[name] - value).flatten() for name, value in ours.items()])
    assert moved.any()  # they are two models
    if task == "classification":  # without random numbers of their own the steps are the same
        weight = torch.cat([value.flatten() for value in ours.values()])
        assert moved.norm() < 0.02 * weight.norm()


def test_what_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert overhead.main(SMALL) == 0
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split()[0] for line in lines] == ["our", "bare", "ratio"]
    assert "2 pairs of steps" in lines[-1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["trainer.max_steps=5"], "must be more than 5"),
        (["trainer.accumulate=2"], "neither compiles nor accumulates"),
        (["data.augment.mixup=0.2"], "does not mix images"),
        (["trainer.precision=64-true"], "trainer.precision=64-true: the bare loop has 32-true, bf16-mixed"),
        (["mixer=pol"], "did you mean"),
    ],
)
def test_wrong_input_is_one_line(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert overhead.main([*SMALL, *given]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_help_is_not_an_override(capsys: pytest.CaptureFixture[str]) -> None:
    assert overhead.main(["--help"]) == 0
    assert "usage: python -m tasks.overhead" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "most"),
    [(["model=vit_tiny", "data.resolution=224", "data.batch_size=16"], 1.05), (["model=vit_nano"], 1.15)],
    ids=["vit_tiny", "vit_nano"],
)
def test_our_step_costs_little_more_than_a_bare_one(overrides: list[str], most: float) -> None:
    turns = overhead.measure(["mixer=attention", *overrides])
    pairs = list(zip(turns.ours, turns.bare, strict=True))[overhead.WARM :]
    assert overhead.quartiles([own / bare for own, bare in pairs])[1] <= most
