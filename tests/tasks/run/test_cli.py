from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

import run
from operators.testing.checks import assert_close
from tests.tasks.conftest import TINY

ROOT = Path(run.__file__).parent


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs write below the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return tmp_path


def main(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = run.main(arguments)
    out, err = capsys.readouterr()
    return status, out, err


def test_help_says_what_a_newcomer_asks(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        run.main(["--help"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    for group in ("task", "mixer", "shell", "model", "data", "optimizer", "trainer", "logger"):
        assert f"\n{group}: " in out
    assert out.count("python run.py ") >= 11
    assert "metrics.json" in out
    assert "Exit status: 0" in out


def test_shown_configuration_composes_without_running(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    status, out, _ = main(capsys, "mixer=hybrid", "mixer.pattern=[pool,attention]", "--cfg", "job")
    assert status == 0
    config = OmegaConf.create(out)
    assert config.mixer.pattern == ["pool", "attention"]
    assert "pde" not in config
    assert not list(elsewhere.iterdir())


def test_run_is_dated_and_shows_where_it_is(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    status, out, err = main(capsys, *TINY)
    assert (status, err) == (0, "")
    (directory,) = (elsewhere / "outputs" / "classification").iterdir()
    assert str(directory.relative_to(elsewhere)) in out
    assert json.loads((directory / "metrics.json").read_text())["status"] == "ok"
    for word in ("test/accuracy", "parameters", "MACs", "images a second", "backend"):
        assert word in out


def test_interrupted_run_continues_in_its_directory(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    assert main(capsys, *TINY, "hydra.run.dir=mine")[0] == 0
    status, _, err = main(capsys, "ckpt=mine/checkpoints/last.ckpt", "mixer=pool", "trainer.max_steps=5")
    assert (status, err) == (0, "")
    assert [path.name for path in elsewhere.iterdir()] == ["mine"]
    status, _, err = main(capsys, "ckpt=mine/checkpoints/last.ckpt", "hydra.run.dir=other")
    assert status == 2
    assert "continues the run in" in err
    assert not Path("other").exists()


def test_every_job_of_a_multirun_says_what_it_is_and_they_are_compared(
    capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    status, out, err = main(capsys, *TINY, "--multirun", "mixer=pool,identity")
    assert (status, err) == (0, "")
    (sweep,) = (elsewhere / "outputs" / "classification").iterdir()
    found = {path.name: json.loads((path / "metrics.json").read_text())["mixer"] for path in sweep.glob("[0-9]")}
    assert found == {"0": "pool", "1": "identity"}
    common = "model.dim=16 model.depth=1 data.batch_size=32 trainer=smoke trainer.accelerator=cpu logger=none seed=0"
    jobs = re.findall(r"^job \d of \d: .*", out, re.MULTILINE)
    assert jobs == [f"job 1 of 2: mixer=pool {common}", f"job 2 of 2: mixer=identity {common}"]
    command, *table = out.splitlines()[-5:]
    assert command == f"python -m ablations.compare {sweep.relative_to(elsewhere)}"
    assert table[0].split(" | ")[:4] == ["| data", "arm", "seeds", "test/accuracy"]
    assert {row.split(" | ")[1] for row in table[2:]} == {"mixer=pool", "mixer=identity"}


def test_a_multirun_without_a_test_is_compared_on_validation(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = main(capsys, *TINY, "--multirun", "seed=3,4", "trainer.test=false")
    assert status == 0
    assert re.search(r"^job 2 of 2: .* seed=4 ", out, re.MULTILINE)
    assert out.splitlines()[-4].endswith(" --metric val/accuracy")
    assert re.match(r"\| fashion_mnist_mini \| \S+ \| 2 \| 0\.\d+ ± ", out.splitlines()[-1])


@pytest.mark.parametrize("given", [["hydra.mode=MULTIRUN"], ["--config-dir=mine", "+own=several"]], ids=["key", "file"])
def test_jobs_may_be_asked_for_by_hydras_mode(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine/own").mkdir(parents=True)
    Path("mine/own/several.yaml").write_text("# @package _global_\nhydra:\n  mode: MULTIRUN\n")
    status, out, _ = main(capsys, *TINY, *given, "model.patch=5,6")
    assert status == 2
    assert "job 1 of 2" in out


def test_one_run_says_no_job_and_compares_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = main(capsys, *TINY)
    assert "job " not in out
    assert "ablations.compare" not in out
    rows = [line for line in out.splitlines() if "│ test/" in line]
    assert len(rows) == 4
    assert all(row.endswith("│ 16 images │") or "64 images" in row for row in rows), rows


def test_worst_job_of_a_multirun_decides(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    status, _, err = main(capsys, "--multirun", *TINY, "model.patch=5,4")
    assert status == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert len(list(elsewhere.glob("outputs/*/*/1/metrics.json"))) == 1


def test_traceback_on_request(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    for bad in ("seed=abc", "mixer=pde_sm"):
        status, _, err = main(capsys, *TINY, bad)
        assert status == 2
        assert "Traceback" in err
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


@pytest.mark.parametrize("mixer", [[], ["mixer=pde_ssm", "pde.boundary=absorbing"]], ids=["usual", "absorbing"])
def test_divergence_exits_1(mixer: list[str], capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    status, _, err = main(
        capsys, *TINY, *mixer, "optimizer.lr=1e30", "optimizer.warmup=0", "trainer.clip=0", "hydra.run.dir=run"
    )
    assert status == 1
    assert err.startswith("diverged at step ")
    assert json.loads(Path("run/metrics.json").read_text())["status"] == "diverged"


def test_only_the_first_rank_complains(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    status, _, err = main(capsys, *TINY, "mixer=pde_sm")
    assert (status, err) == (2, "")


@pytest.mark.slow
def test_two_processes_make_the_run_of_one(elsewhere: Path) -> None:
    results = []
    for devices in (1, 2):
        name = f"run{devices}"
        more = [
            "trainer.limit_val_batches=1.0",
            "trainer.limit_test_batches=1.0",
            f"trainer.devices={devices}",
            f"hydra.run.dir={name}",
        ] + (["trainer.strategy=ddp"] if devices > 1 else [])
        command = [sys.executable, str(ROOT / "run.py"), *TINY, *more]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        results.append(json.loads(Path(name, "metrics.json").read_text()))
    one, two = results
    for name in ("val/loss", "val/accuracy", "test/loss", "test/accuracy", "test/ece"):
        assert two[name] == pytest.approx(one[name], rel=1e-4), name
    with np.load("run1/predictions.npz") as single, np.load("run2/predictions.npz") as both:
        assert np.array_equal(single["index"], both["index"])
        assert_close(both["logits"], single["logits"], 1e-4, "logits")
