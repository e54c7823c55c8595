"""`mode=test transfer=WAY`: scans with other steps on images larger than those of training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from operators import InputError
from tasks.config.composition import compose
from tasks.run.execute import execute
from tests.tasks.conftest import Fit

FEW = ("mode=test", "trainer.accelerator=cpu", "logger=none", "+trainer.limit_test_batches=2")


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
    from tasks.config import schema

    plain = compose(["task=generation", "trainer=smoke"])
    with pytest.raises(InputError, match=r"^transfer=filtered goes with mode=test of a classifier, not .*=generation$"):
        schema.parse({**plain, "mode": "test", "ckpt": "a.ckpt", "transfer": "filtered"})


def test_other_configurations_have_no_such_node() -> None:
    assert "transfer" not in compose(["trainer=smoke"])
