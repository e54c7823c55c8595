from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from omegaconf import OmegaConf

import conf
import models
from operators import InputError
from tasks.config.composition import compose
from tasks.config.schema import parse
from tasks.run.execute import execute
from tasks.system import checkpoint
from tests.tasks.config.test_recipes import RECIPES
from tests.tasks.conftest import Fit

TIMES = {"train/seconds", "train/images_per_second"}


class Kill(Callback):
    """Ends a run as a signal or a power cut would, before step `step`."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("killed")


def timeless(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if key not in TIMES}


def weights(path: Path) -> dict[str, torch.Tensor]:
    content = torch.load(path, weights_only=True)
    return content.get("current_model_state", content["state_dict"])


def test_run_directory_holds_what_is_promised(finished: Path) -> None:
    names = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    wanted = {"config.yaml", "metrics.json", "provenance.json", "predictions.npz"}
    wanted |= {"confusion.csv", "classes.csv", "confusion.png"}
    assert wanted | {"checkpoints/last.ckpt", "checkpoints/best.ckpt"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)


def test_metrics_are_flat_and_complete(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    wanted = {"task", "mixer", "shell", "data", "seed", "params", "mixer_macs", "macs", "backend", "status", *TIMES}
    scores = {f"{split}/{name}" for split in ("val", "test") for name in ("accuracy", "accuracy_top5", "loss", "ece")}
    assert wanted | scores | {"test/n"} == set(metrics)
    assert metrics["status"] == "ok"
    assert not any(isinstance(value, (dict, list)) for value in metrics.values())
    assert metrics["params"] > 0
    assert 0 < metrics["mixer_macs"] < metrics["macs"]
    assert metrics["train/images_per_second"] > 0


def test_predictions_are_those_the_scores_are_made_of(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    with np.load(finished / "predictions.npz") as predictions:
        logits, label, index = predictions["logits"], predictions["label"], predictions["index"]
    assert logits.dtype == np.float32
    assert logits.shape == (len(label), 10)
    assert len(np.unique(index)) == len(index)
    assert (logits.argmax(1) == label).mean() == pytest.approx(metrics["test/accuracy"], abs=1e-6)


def test_provenance_names_data_versions_and_setting(finished: Path) -> None:
    facts = json.loads((finished / "provenance.json").read_text())
    assert len(facts["data"]["fingerprint"]) == 64
    assert facts["versions"]["torch"] == torch.__version__
    assert (facts["seed"], facts["precision"], facts["effective_batch"]) == (0, "32-true", 32)
    assert facts["backend"] == json.loads((finished / "metrics.json").read_text())["backend"]
    assert facts["learning_rate_tuned"] is False
    assert {"hardware", "git", "command"} <= set(facts)


@pytest.mark.parametrize("name", ["last", "best"])
def test_checkpoint_rebuilds_the_model_from_plain_containers(finished: Path, name: str) -> None:
    content = torch.load(finished / "checkpoints" / f"{name}.ckpt", weights_only=True)
    own = content[checkpoint.KEY]
    run = parse(own["config"])
    model = models.create(
        **run.model,
        mixers=run.mixers,
        image_size=tuple(own["data"]["image_size"]),
        in_channels=own["data"]["channels"],
        num_classes=own["data"]["num_classes"],
    )
    state = {key.removeprefix("model."): value for key, value in content["state_dict"].items()}
    model.load_state_dict(state)


def test_config_repeats_the_run(finished: Path, tmp_path: Path) -> None:
    config = OmegaConf.to_container(OmegaConf.load(finished / "config.yaml"))
    assert isinstance(config, dict)
    again = execute({str(key): value for key, value in config.items()}, tmp_path / "again")
    assert timeless(again) == timeless(json.loads((finished / "metrics.json").read_text()))
    same = (weights(folder / "checkpoints" / "last.ckpt") for folder in (finished, tmp_path / "again"))
    first, second = same
    assert all(torch.equal(first[key], second[key]) for key in first)


EXPERIMENTS = sorted({path.stem for path in Path(conf.__file__).parent.glob("experiment/*.yaml")} - set(RECIPES))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs(tiny: list[str], tmp_path: Path, experiment: str) -> None:
    # With its own model: an experiment whose mixer does not fit it would pass with another.
    small = [override for override in tiny if not override.startswith(("mixer=", "model."))] + ["trainer.max_epochs=1"]
    assert execute(compose([f"experiment={experiment}", *small]), tmp_path / "run")["status"] == "ok"


def test_seed_changes_the_run(finished: Path, fit: Fit) -> None:
    other = fit("other", "seed=1")
    assert other["test/loss"] != json.loads((finished / "metrics.json").read_text())["test/loss"]


LONG = ("trainer.max_steps=null", "trainer.max_epochs=3", "+trainer.limit_train_batches=3", "trainer.ema=0.9")


@pytest.mark.parametrize("killed_at", [3, 7], ids=["first step of an epoch", "within an epoch"])
def test_continued_run_ends_bit_for_bit_as_an_uninterrupted_one(fit: Fit, tmp_path: Path, killed_at: int) -> None:
    extra = (*LONG, "model.drop_path=0.4", "model.depth=2", "data.augment.cutmix=1")
    whole = fit("whole", *extra)
    with pytest.raises(RuntimeError, match="killed"):
        fit("cut", *extra, callbacks=[Kill(killed_at)])
    assert json.loads((tmp_path / "cut" / "metrics.json").read_text())["status"] == "failed"
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    continued = fit("cut", *extra, f"ckpt={last}")
    assert timeless(continued) == timeless(whole)
    one, other = weights(tmp_path / "whole" / "checkpoints" / "last.ckpt"), weights(last)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_run_stopped_by_steps_within_an_epoch_can_be_prolonged(fit: Fit, tmp_path: Path) -> None:
    flat = ("optimizer.schedule=constant", "optimizer.warmup=0", "trainer.max_epochs=null")
    fit("whole", *flat, "trainer.max_steps=5")
    fit("parts", *flat, "trainer.max_steps=2")
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    fit("parts", *flat, "trainer.max_steps=5", f"ckpt={last}")
    one, other = weights(tmp_path / "whole" / "checkpoints" / "last.ckpt"), weights(last)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_test_mode_repeats_the_scores_with_the_model_of_the_checkpoint(finished: Path, tmp_path: Path) -> None:
    best = finished / "checkpoints" / "best.ckpt"
    # The overrides compose another model: the checkpoint's is the one that counts.
    metrics = execute(compose(["mode=test", f"ckpt={best}", "trainer.accelerator=cpu"]), tmp_path / "test")
    trained = json.loads((finished / "metrics.json").read_text())
    for name in ("accuracy", "accuracy_top5", "loss", "ece"):
        assert metrics[f"test/{name}"] == trained[f"test/{name}"]
    assert metrics["mixer"] == "pool"
    assert "train/seconds" not in metrics
    assert not (tmp_path / "test" / "checkpoints").exists()


def test_best_checkpoint_is_the_one_tested(fit: Fit, tmp_path: Path) -> None:
    metrics = fit("run", *LONG, "optimizer.lr=0.02")
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best[checkpoint.KEY]["scores"]["val/accuracy"] == metrics["val/accuracy"]
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    again = execute(compose(["mode=test", f"ckpt={path}", "trainer.accelerator=cpu"]), tmp_path / "test")
    assert again["test/loss"] == metrics["test/loss"]


def test_average_is_what_is_validated_and_saved(fit: Fit, tmp_path: Path) -> None:
    fit("run", "trainer.ema=0.5", "optimizer.warmup=0", "optimizer.lr=0.01")
    content = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    average, current = content["state_dict"], content["current_model_state"]
    assert any(not torch.equal(average[key], current[key]) for key in average)


def test_init_starts_from_the_weights(finished: Path, fit: Fit, tmp_path: Path) -> None:
    start = finished / "checkpoints" / "last.ckpt"
    fit("warm", f"init={start}", "optimizer.lr=0")
    one, other = weights(start), weights(tmp_path / "warm" / "checkpoints" / "last.ckpt")
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_test_split_is_left_alone_when_asked(fit: Fit, tmp_path: Path) -> None:
    metrics = fit("run", "trainer.test=false")
    assert metrics["status"] == "ok"
    assert not any(key.startswith("test/") for key in metrics)
    assert not (tmp_path / "run" / "predictions.npz").exists()


def test_accumulated_batches_count_as_one_step(fit: Fit, tmp_path: Path) -> None:
    fit("run", "trainer.accumulate=2", "trainer.max_steps=2")
    content = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 2
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["effective_batch"] == 64


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model.depth=5"], "model.depth=5 contradicts the checkpoint, which has 1"),
        (["mixer=attention"], "mixer='attention' contradicts the checkpoint, which has 'pool'"),
        (["model.norm=rms", "mode=test"], "model.norm='rms' contradicts"),
        (["shell.conv=3", "mode=test"], "shell.conv=3 contradicts"),
        (["pde.state=1", "mode=test"], "contradicts the checkpoint, which has none"),
        (["optimizer.lr=0.5"], "optimizer.lr=0.5 contradicts"),
        (["seed=4"], "seed=4 contradicts"),
    ],
)
def test_override_that_contradicts_the_checkpoint_is_refused(
    finished: Path, overrides: list[str], expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        compose([f"ckpt={finished / 'checkpoints' / 'last.ckpt'}", *overrides])
    assert expected in str(caught.value)


def test_override_that_agrees_or_is_free_is_taken(finished: Path) -> None:
    last = finished / "checkpoints" / "last.ckpt"
    config = compose([f"ckpt={last}", "mixer=pool", "model.dim=16", "trainer.max_epochs=7"])
    assert config["trainer"]["max_epochs"] == 7
    assert config["trainer"]["max_steps"] == 3
    assert config["data"]["batch_size"] == 32
    tested = compose([f"ckpt={last}", "mode=test", "data.batch_size=8", "model=vit_nano"])
    assert (tested["data"]["batch_size"], tested["model"]["dim"]) == (8, 16)


def broken(kind: str, finished: Path, tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints" / "broken.ckpt"
    path.parent.mkdir()
    good = finished / "checkpoints" / "last.ckpt"
    if kind == "truncated":
        path.write_bytes(good.read_bytes()[:2000])
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("weights")
    elif kind == "pickle":
        torch.save({"state_dict": Path("x")}, path)
    elif kind == "foreign":
        torch.save({"state_dict": {}}, path)
    elif kind == "list":
        torch.save([1, 2], path)
    return path


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "pickle", "foreign", "list"])
@pytest.mark.parametrize("what", ["ckpt", "init"])
def test_damaged_or_foreign_checkpoint_is_refused_in_one_line(
    finished: Path, tiny: list[str], tmp_path: Path, kind: str, what: str
) -> None:
    path = broken(kind, finished, tmp_path)
    with pytest.raises(InputError) as caught:
        execute(compose([*tiny, f"{what}={path}"]), tmp_path if what == "ckpt" else tmp_path / "run")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("metrics.json"))


def test_weights_of_another_model_are_refused_by_name(finished: Path, fit: Fit) -> None:
    with pytest.raises(InputError, match=r"init=.* is of another model: for model\.\S+ it has"):
        fit("other", f"init={finished / 'checkpoints' / 'last.ckpt'}", "model.dim=24")


def test_fit_does_not_overwrite_another_run(fit: Fit, finished: Path, tiny: list[str]) -> None:
    with pytest.raises(InputError, match="already holds a run"):
        execute(compose(tiny), finished)
    with pytest.raises(InputError, match="continues the run in"):
        fit("elsewhere", f"ckpt={finished / 'checkpoints' / 'last.ckpt'}")


def test_what_lightning_refuses_is_wrong_input(fit: Fit) -> None:
    with pytest.raises(InputError, match=r"trainer.limit_train_batches=-3 must be an integer >= 1"):
        fit("run", "+trainer.limit_train_batches=-3")
    with pytest.raises(InputError, match=r"trainer: .*val_dataloader"):  # which it finds out when it has seen the data
        fit("run", "trainer.limit_val_batches=1e-9")
    with pytest.raises(InputError, match=r"trainer.val_check_interval=1000 must be at most 312, the number of batches"):
        fit("other", "+trainer.val_check_interval=1000")


def test_run_that_ends_before_a_validation_is_due_is_validated(fit: Fit) -> None:
    assert fit("run", "+trainer.check_val_every_n_epoch=5", "trainer.max_steps=2")["status"] == "ok"
    more = ("trainer.max_steps=null", "+trainer.limit_train_batches=2", "trainer.max_epochs=3")
    assert fit("epochs", "+trainer.check_val_every_n_epoch=5", *more)["status"] == "ok"


def test_divergence_in_validation_is_seen(fit: Fit) -> None:
    class Poison(Callback):
        def on_validation_start(self, trainer: Any, module: Any) -> None:
            with torch.no_grad():
                module.model.head.weight[0, 0] = math.nan

    metrics = fit("run", callbacks=[Poison()])
    assert metrics["status"] == "diverged"
    assert metrics["diverged/layer"] == "head (parameter weight)"
