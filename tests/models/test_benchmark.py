"""Whole models in the benchmark of the operators."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models import benchmark
from operators.benchmark.table import code_digest
from operators.benchmark.workload import FORWARD, WORKS, Shape, Target, functions

HERE = Target("cpu", "float32")


@pytest.mark.parametrize(("model", "shape"), [("dit_nano", (2, 3, 4, 96)), ("vit_nano", (2, 4, 2, 64))])
def test_an_arm_is_the_whole_model(model: str, shape: tuple[int, int, int, int]) -> None:
    plan = benchmark.parse(["--model", model, "--mixers", "pde_ssm", "--set", "pde_ssm.state=1"])
    assert {one.dim for one in plan.shapes} == {shape[-1]}
    (arm,) = plan.arms
    assert arm.label == "pde_ssm[state=1]"
    workload = arm.build(Shape(*shape), HERE)
    works = functions(workload, HERE)
    out = works[FORWARD]()
    assert out.shape == ((2, 4, 12, 16) if model == "dit_nano" else (2, 1000))
    assert torch.equal(out, works[FORWARD]())
    assert out.square().mean() > 0
    works[WORKS[1]]()
    # A DiT's gates start shut, and nothing behind them would get a gradient.
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in workload.parameters)
    assert workload.macs > 2 * 12 * sum(p.numel() for p in workload.parameters if p.ndim == 2) / 4
    assert workload.served in ("separable", "compiled", "compiled_fft", "fft")


def test_the_command_measures_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--model", "dit_nano", "--mixers", "identity,pool", "--grids", "4", "--batch", "2", "--repeats", "1"]
    assert benchmark.main([*given, "--out", str(tmp_path), "--devices", "cpu", "--reference", "identity"]) == 0
    (table,) = tmp_path.glob("*.csv")
    rows = table.read_text().splitlines()
    assert len(rows) == 1 + 2 * len(WORKS)
    assert all(",dit_nano," in row for row in rows[1:])
    assert code_digest(benchmark.parse(given).packages) in rows[1]
    assert "Level dit_nano" in table.with_suffix(".md").read_text()
    assert benchmark.main([*given, "--out", str(tmp_path), "--devices", "cpu", "--reference", "identity"]) == 0
    assert table.read_text().splitlines() == rows
    capsys.readouterr()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "--model is missing"),
        (["--model", "dit_nan"], "did you mean 'dit_nano'?"),
        (["--model", "dit_nano", "--level", "core"], "--level: not an option of this benchmark"),
        (["--model", "dit_nano", "--dim=8"], "--dim=8: not an option of this benchmark"),
        (["--model", "dit_nano", "--mixers", "attenton"], "did you mean 'attention'?"),
    ],
)
def test_wrong_input_is_one_line(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(given) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_help_names_the_models_and_where_the_options_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "dit_xl" in text
    assert "python -m operators.benchmark --help" in text
