"""Weights & Biases and MLflow, with stand-ins for their packages: what they are told, and how a run continues."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lightning.pytorch.loggers import mlflow as lightning_mlflow
from lightning.pytorch.loggers import wandb as lightning_wandb

from operators import InputError
from tasks.config.composition import compose, read
from tasks.config.schema import check
from tasks.config.training import LoggerConfig
from tasks.run import curves, loggers
from tasks.run.execute import execute
from tests.tasks.conftest import TINY

QUICK = ("logger.every=1", "trainer.max_steps=2")


class Log(SimpleNamespace):
    """What a tracker is told."""

    def __init__(self, refusal: str | None = None) -> None:
        super().__init__(runs=[], settings={}, metrics={}, images={}, ended=[], refusal=refusal)


def module(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> ModuleType:
    made = ModuleType(name)
    made.__spec__ = ModuleSpec(name, None)
    vars(made).update(content)
    monkeypatch.setitem(sys.modules, name, made)
    return made


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()

    class Run:
        def __init__(self, name: str) -> None:
            self.id = name
            self.config = SimpleNamespace(update=lambda params, **_: log.settings.update(params))

        def define_metric(self, *_: Any, **__: Any) -> None:
            """Axes."""

        def log(self, values: dict[str, Any]) -> None:
            for key, value in values.items():
                images = key != "trainer/global_step" and isinstance(value, list)
                (log.images if images else log.metrics).setdefault(key, []).append(value)

        def finish(self, exit_code: int) -> None:
            log.ended.append(exit_code)

    def init(**settings: Any) -> Run:
        if log.refusal:
            raise RuntimeError(log.refusal)
        log.runs.append(settings)
        return Run(settings["id"])

    module(monkeypatch, "wandb", run=None, init=init, Image=lambda pixels, **_: np.asarray(pixels))
    module(monkeypatch, "wandb.sdk")
    module(monkeypatch, "wandb.sdk.lib", RunDisabled=type("RunDisabled", (), {}))
    module(monkeypatch, "wandb.wandb_run", Run=Run)
    monkeypatch.setattr(lightning_wandb, "_WANDB_AVAILABLE", True)
    monkeypatch.setenv("WANDB_MODE", "restored after the test")
    return log


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()

    class Client:
        def __init__(self, uri: str) -> None:
            log.uri = uri

        def get_experiment_by_name(self, name: str) -> Any:
            if log.refusal:
                raise RuntimeError(log.refusal)
            return SimpleNamespace(experiment_id=name, lifecycle_stage="active")

        def create_run(self, experiment_id: str, tags: dict[str, str]) -> Any:
            log.runs.append({"experiment": experiment_id, **tags})
            return SimpleNamespace(info=SimpleNamespace(run_id=f"run {len(log.runs)}"))

        def get_run(self, run_id: str) -> Any:
            log.runs.append({"continued": run_id})
            return SimpleNamespace(info=SimpleNamespace(experiment_id="x", run_id=run_id))

        def log_batch(self, run_id: str, metrics: Any = (), params: Any = (), **_: Any) -> None:
            for metric in metrics:
                log.metrics.setdefault(metric.key, []).append(metric.value)
            log.settings.update({param.key: param.value for param in params})

        def log_image(self, run_id: str, pixels: Any, artifact_file: str) -> None:
            log.images[artifact_file] = pixels

        def set_terminated(self, run_id: str, status: str) -> None:
            log.ended.append(status)

    module(monkeypatch, "mlflow", set_tracking_uri=lambda uri: None)
    module(monkeypatch, "mlflow.tracking", MlflowClient=Client)
    module(monkeypatch, "mlflow.tracking.context")
    module(monkeypatch, "mlflow.tracking.context.registry", resolve_tags=dict)
    module(monkeypatch, "mlflow.entities", Metric=SimpleNamespace, Param=SimpleNamespace)
    module(monkeypatch, "mlflow.utils")
    module(monkeypatch, "mlflow.utils.mlflow_tags", MLFLOW_RUN_NAME="name")
    monkeypatch.setattr(lightning_mlflow, "_MLFLOW_AVAILABLE", True)
    monkeypatch.setattr(lightning_mlflow, "_get_resolve_tags", lambda: dict)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return log


@pytest.fixture
def track(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def do(name: str, *overrides: str) -> dict[str, Any]:
        config = compose([*TINY, *overrides, *QUICK])
        return execute(config, tmp_path / name, callbacks=[curves.Settings(config)])

    return do


def test_wandb_is_told_settings_curves_and_inputs(wandb: Log, track: Any, tmp_path: Path) -> None:
    metrics = track("first", "logger=wandb", "logger.offline=true", "logger.project=mine")
    (settings,) = wandb.runs
    assert (settings["project"], settings["name"], settings["dir"]) == ("mine", "first", str(tmp_path / "first"))
    assert json.loads((tmp_path / "first" / "tracker.json").read_text()) == {"logger": "wandb", "run": settings["id"]}
    assert wandb.settings["mixer.name"] == "pool"
    assert wandb.metrics["test/accuracy"] == [metrics["test/accuracy"]]
    assert len(wandb.metrics["train/gradient_norm"]) == len(wandb.metrics["lr"]) == 2
    (picture,) = wandb.images["inputs"]
    assert picture[0].shape[-1] == 3
    assert wandb.ended == [0]


def test_every_run_of_a_process_is_a_run_of_wandb(wandb: Log, track: Any) -> None:
    track("first", "logger=wandb")
    track("second", "logger=wandb")
    assert len({run["id"] for run in wandb.runs}) == len(wandb.ended) == 2


def test_a_run_that_fails_ends_as_failed(wandb: Log, track: Any) -> None:
    metrics = track("lost", "logger=wandb", "optimizer.lr=1e30", "optimizer.warmup=0", "trainer.clip=0")
    assert metrics["status"] == "diverged"
    assert wandb.ended == [1]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_continued_run_goes_on_in_its_own(request: Any, track: Any, tmp_path: Path, name: str) -> None:
    log = request.getfixturevalue(name)
    track("run", f"logger={name}")
    first = json.loads((tmp_path / "run" / "tracker.json").read_text())["run"]
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    config = compose([*TINY, f"logger={name}", "logger.every=1", "trainer.max_steps=4", f"ckpt={last}"])
    execute(config, tmp_path / "run")
    again = log.runs[1]
    assert (again["id"] if name == "wandb" else again["continued"]) == first


def test_mlflow_is_told_settings_curves_and_inputs(mlflow: Log, track: Any) -> None:
    metrics = track("first", "logger=mlflow", "logger.project=mine", "logger.uri=http://localhost:5000")
    assert mlflow.runs[0] == {"experiment": "mine", "name": "first"}
    assert mlflow.uri == "http://localhost:5000"
    assert mlflow.settings["mixer.name"] == "pool"
    assert mlflow.metrics["test/accuracy"] == [metrics["test/accuracy"]]
    assert len(mlflow.metrics["train/gradient_norm"]) == 2
    assert mlflow.images["inputs_1.png"].shape[-1] == 3
    assert mlflow.ended[-1] == "FINISHED"


def test_mlflow_without_a_server_keeps_a_file_here(mlflow: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    loggers.create(LoggerConfig("mlflow"), Path("run"), 0)
    assert mlflow.uri == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    loggers.create(LoggerConfig("mlflow"), Path("run"), 0)
    assert mlflow.uri == "http://elsewhere"


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_refuses_is_one_line(request: Any, track: Any, tmp_path: Path, name: str) -> None:
    request.getfixturevalue(name).refusal = "no login\nfor you"
    with pytest.raises(InputError, match=f"logger={name}: no login for you") as caught:
        track("run", f"logger={name}")
    assert ("logger.offline=true" in str(caught.value)) == (name == "wandb")
    assert not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_refused_before_torch_is_imported(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("tasks.config.training.find_spec", lambda _: None)
    with pytest.raises(InputError, match=f"logger={name} needs a package that is not installed: pip install {name}"):
        check(read([*TINY, f"logger={name}"]))
    with pytest.raises(InputError, match="not installed"):
        loggers.create(LoggerConfig(name), Path("run"), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "wndb"}, "did you mean 'wandb'"),
        ({"name": "csv", "offline": True}, "logger.offline=True goes with logger=wandb, not with csv"),
        ({"name": "wandb", "uri": "http://x"}, "logger.uri=http://x goes with logger=mlflow, not with wandb"),
        ({"name": "tensorboard", "project": "x"}, "logger.project=x goes with logger=wandb or mlflow"),
        ({"name": "wandb", "project": ""}, "logger.project='' must be a name"),
        ({"name": "mlflow", "uri": 3}, "logger.uri=3 must be an address or null"),
        ({"name": "wandb", "offline": "x"}, "logger.offline='x' is not known"),
    ],
)
def test_options_of_other_loggers_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        LoggerConfig(**settings)
    assert message in str(caught.value)


def test_a_damaged_identity_is_named(wandb: Log, tmp_path: Path) -> None:
    (tmp_path / "tracker.json").write_text("{")
    with pytest.raises(InputError, match=r"tracker\.json is damaged"):
        loggers.create(LoggerConfig("wandb"), tmp_path, 5)
