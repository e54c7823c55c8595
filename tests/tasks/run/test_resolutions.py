from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from operators import InputError
from tasks.config import schema
from tasks.config.composition import compose
from tasks.run.execute import execute
from tests.tasks.conftest import Fit

CPU = "trainer.accelerator=cpu"
FEW = ("mode=test", CPU, "logger=none", "+trainer.limit_test_batches=2")


def test_one_checkpoint_at_several_resolutions(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = finished / "checkpoints" / "best.ckpt"
    metrics = execute(compose(["mode=test", f"ckpt={best}", CPU, "data.resolution=[28,56,20]"]), tmp_path / "all")
    assert metrics["status"] == "ok"
    assert "test/accuracy" not in metrics
    assert "resolutions" in capsys.readouterr().out
    with (tmp_path / "all" / "resolutions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["resolution"] for row in rows] == ["28", "56", "20"]
    assert [row["tokens"] for row in rows] == ["49", "196", "25"]
    trained = json.loads((finished / "metrics.json").read_text())
    for name in ("accuracy", "accuracy_top5", "loss", "ece"):
        assert metrics[f"test@28/{name}"] == trained[f"test/{name}"]
    # Each is what a run at that resolution alone gives.
    alone = execute(compose(["mode=test", f"ckpt={best}", CPU, "data.resolution=56"]), tmp_path / "one")
    assert metrics["test@56/loss"] == alone["test/loss"] != metrics["test@28/loss"]
    for row in rows:
        assert float(row["accuracy"]) == metrics[f"test@{row['resolution']}/accuracy"]
        assert int(row["macs"]) == metrics[f"macs@{row['resolution']}"]
    # Pooling and the trunk cost so much a token.
    assert metrics["mixer_macs@56"] == 4 * metrics["mixer_macs@28"]
    assert metrics["macs@28"] == metrics["macs"]
    assert json.loads((tmp_path / "all" / "metrics.json").read_text()) == metrics
    with np.load(tmp_path / "all" / "resolution_56" / "predictions.npz") as own:
        assert (own["logits"].argmax(1) == own["label"]).mean() == pytest.approx(metrics["test@56/accuracy"], abs=1e-6)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("[]", "one resolution or more"),
        ("[28,28]", "none of them twice"),
        ("[28,a]", "data.resolution='a'"),
        ("[28,30]", "does not divide an image of 30×30"),
    ],
)
def test_wrong_list_is_refused(finished: Path, tmp_path: Path, given: str, expected: str) -> None:
    best = finished / "checkpoints" / "best.ckpt"
    with pytest.raises(InputError) as caught:
        execute(compose(["mode=test", f"ckpt={best}", CPU, f"data.resolution={given}"]), tmp_path / "run")
    assert expected in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", ["[28,56]", "56"])
def test_mixer_of_one_grid_is_refused_before_anything_runs(fit: Fit, tmp_path: Path, given: str) -> None:
    fit("run", "mixer=random", "trainer.test=false")
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    with pytest.raises(InputError, match="mixer random was made for 7×7 and serves no others"):
        execute(compose(["mode=test", f"ckpt={best}", CPU, f"data.resolution={given}"]), tmp_path / "test")
    assert not (tmp_path / "test").exists()


def test_list_is_for_testing_a_classifier(tiny: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="several resolutions go with mode=test"):
        execute(compose([*tiny, "data.resolution=[28,56]"]), tmp_path / "run")


# ---------------------------------------------------------------- with other steps of scans


def test_a_checkpoint_is_tested_with_other_steps(fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit("run", "mixer=mamba", "mixer.state_dim=2", "trainer.test=false")
    best = f"ckpt={tmp_path / 'run' / 'checkpoints' / 'best.ckpt'}"
    plain = execute(compose([*FEW, best, "data.resolution=[28,56]"]), tmp_path / "plain")
    assert "transfer" not in plain
    losses = [plain["test@56/loss"]]
    for way in ("rescaled", "filtered"):
        capsys.readouterr()
        metrics = execute(compose([*FEW, best, "data.resolution=[28,56]", f"transfer={way}"]), tmp_path / way)
        assert metrics["transfer"] == way
        assert f"{way} steps on larger grids" in capsys.readouterr().out
        assert json.loads((tmp_path / way / "metrics.json").read_text()) == metrics
        assert yaml.safe_load((tmp_path / way / "config.yaml").read_text())["transfer"] == way
        assert metrics["test@28/loss"] == plain["test@28/loss"]
        losses.append(metrics["test@56/loss"])
    assert len(set(losses)) == 3
    alone = execute(compose([*FEW, best, "data.resolution=56", "transfer=rescaled"]), tmp_path / "alone")
    assert (alone["test/loss"], alone["transfer"]) == (losses[1], "rescaled")
    for given in ("28", "[28,20]"):
        with pytest.raises(InputError, match=r"transfer=filtered changes scans on grids larger .* above 28$"):
            execute(compose([*FEW, best, f"data.resolution={given}", "transfer=filtered"]), tmp_path / "same")
    assert not (tmp_path / "same").exists()


@pytest.mark.parametrize("given", ["56", "[28,56]"])
def test_a_model_without_scans_is_refused_before_anything_is_written(
    finished: Path, tmp_path: Path, given: str
) -> None:
    best = finished / "checkpoints" / "best.ckpt"
    with pytest.raises(InputError, match=r"^transfer=rescaled: no mixer of this model has a selective scan"):
        execute(compose([*FEW, f"ckpt={best}", f"data.resolution={given}", "transfer=rescaled"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["transfer=rescaled"], "^transfer goes with mode=test, not with mode=fit$"),
        (["mode=test", "ckpt=BEST", "transfer=rescale"], "^transfer='rescale' is not known: .*mean 'rescaled'"),
    ],
)
def test_a_wrong_word_is_refused(finished: Path, overrides: list[str], expected: str) -> None:
    best = str(finished / "checkpoints" / "best.ckpt")
    with pytest.raises(InputError, match=expected):
        compose([override.replace("BEST", best) for override in overrides])


def test_transfer_is_for_testing_a_classifier() -> None:
    plain = compose(["task=generation", "trainer=smoke"])
    with pytest.raises(InputError, match=r"^transfer=filtered goes with mode=test of a classifier, not .*=generation$"):
        schema.parse({**plain, "mode": "test", "ckpt": "a.ckpt", "transfer": "filtered"})


def test_other_configurations_have_no_such_node() -> None:
    assert "transfer" not in compose(["trainer=smoke"])
