from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import conf
import operators
from operators import InputError
from tasks.config import schema
from tasks.config.composition import compose
from tasks.config.layers import mixer_specs
from tasks.config.schema import parse
from tasks.config.training import LoggerConfig, OptimizerConfig, TrainerConfig
from tests.mixers import every_mixer

CONF = Path(conf.__file__).parent
SHELL = {"name": "common"}


def parsed(*overrides: str) -> schema.RunConfig:
    return parse(compose(overrides))


def refused(overrides: Sequence[str]) -> str:
    with pytest.raises(InputError) as caught:
        parse(compose(overrides))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_defaults_are_a_classification_run_of_the_pde_mixer() -> None:
    run = parsed()
    assert (run.task.name, run.mixer, run.shell, run.seed, run.mode) == (
        "classification",
        "pde_ssm",
        "common",
        0,
        "fit",
    )
    assert run.model["name"] == "vit_nano"
    assert run.data["name"] == "fashion_mnist_mini"


@pytest.mark.parametrize(
    ("file", "cls"),
    [("optimizer/adamw", OptimizerConfig), ("trainer/default", TrainerConfig), ("logger/none", LoggerConfig)],
)
def test_yaml_and_python_have_the_same_defaults(file: str, cls: Any) -> None:
    values = OmegaConf.to_container(OmegaConf.load(CONF / f"{file}.yaml"))
    assert isinstance(values, dict)
    default = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(cls()).items()}
    assert values == {key: value for key, value in default.items() if key in values}
    if cls is not LoggerConfig:
        assert set(values) == {field.name for field in fields(cls)} - {"lightning", "momentum"}


@pytest.mark.parametrize("group", ["shell", "model", "data", "trainer", "logger", "optimizer", "task"])
def test_every_option_composes_and_is_named_after_its_file(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.config.training.find_spec", lambda name: name)  # wandb and mlflow are no dependencies
    options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    assert options
    for option in options:
        trunks = {"dit": ["task=generation"], "cells": ["task=probe", "probe=shift"]}
        beside = trunks.get(option.partition("_")[0], [])
        if group == "shell":
            own = (name for name in operators.names() if option in ("common", *operators.describe(name).shells))
            beside = [f"mixer={next(own)}"]
        config = compose([f"{group}={option}", *beside])
        assert config[group].get("name", option) == option


@pytest.mark.parametrize("mixer", [*every_mixer(), "hybrid"])
def test_pde_exists_exactly_with_pde_layers(mixer: str) -> None:
    assert ("pde" in compose([f"mixer={mixer}"])) == (mixer in ("pde_ssm", "hybrid"))


def test_pde_node_becomes_the_parameters_of_the_mixer() -> None:
    config = compose(["pde.terms=[diffusion]", "pde.boundary=neumann"])
    spec = parse(config).mixers
    assert not isinstance(spec, list)
    assert spec.params == config["pde"]
    assert spec.params["terms"] == ["diffusion"]
    assert spec.shell == config["shell"]


def test_hybrid_has_parameters_by_name_and_one_pde_node() -> None:
    run = parsed(
        "mixer=hybrid", "mixer.pattern=[pde_ssm,pde_ssm,attention]", "mixer.params.attention.heads=3", "pde.state=2"
    )
    assert isinstance(run.mixers, list)
    assert [spec.name for spec in run.mixers] == ["pde_ssm", "pde_ssm", "attention"]
    assert run.mixers[2].params == {"heads": 3}
    assert [spec.params.get("state") for spec in run.mixers] == [2, 2, None]


def test_hybrid_without_pde_layers_has_no_pde_node() -> None:
    run = compose(["mixer=hybrid", "mixer.pattern=[pool,attention]"])
    assert "pde" not in run
    specs = parse(run).mixers
    assert isinstance(specs, list)
    assert [spec.name for spec in specs] == ["pool", "attention"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["mixer=pde_sm"], ["mixer='pde_sm'", "attention", "did you mean 'pde_ssm'"]),
        (["mixr=pool"], ["mixr does not exist", "did you mean 'mixer'"]),
        (["model.depht=3"], ["model.depht does not exist", "did you mean 'depth'"]),
        (["mixer=attention", "mixer.haeds=3"], ["did you mean 'heads'"]),
        (["mixer=pool", "pde.terms=[]"], ["pde.* exists only with mixer=pde_ssm"]),
        (["pde.boundry=neumann"], ["did you mean 'boundary'"]),
        (["mixer=hybrid", "mixer.pattern=[pool,attention]", "pde.state=1"], ["pde.* exists only with"]),
        (["mixer=hybrid", "mixer.pattern=[]"], ["mixer.pattern=[] must be a list of mixers"]),
        (["mixer=hybrid", "mixer.pattern=pool"], ["mixer.pattern='pool' must be a list"]),
        (["mixer=hybrid", "mixer.params.pool.size=5"], ["mixer.params has no 'pool'", "attention"]),
        (["mixer=hybrid", "mixer.params.attention=5"], ["must be a mapping"]),
        (["mixer=hybrid", "mixer.params.pde_ssm.terms=[]"], ["set by pde.terms"]),
        (["mixer.name.x=3"], ["mixer.name.x does not exist"]),
        (["foo"], ["'foo' cannot be read", "EQUAL"]),
        (["model.depth=[1,"], ["cannot be read"]),
        (["model.depth=1,2"], ["Ambiguous", "--multirun"]),
        (["model=null"], ["must be a string"]),
        (["seed=${nope}"], ["'nope' not found", "seed"]),
        (["hydra.run.dr=x"], ["hydra.run.dr does not exist"]),
        (["+foo=1"], ["no 'foo'"]),
        (["seed=abc"], ["seed='abc' must be an integer"]),
        (["seed=-1"], ["seed=-1"]),
        (["mode=tets"], ["mode='tets'", "did you mean 'test'"]),
        (["mode=test"], ["needs ckpt=PATH"]),
        (["mode=test", "init=a"], ["mode=test needs ckpt"]),
        (["ckpt=nowhere.ckpt"], ["ckpt=nowhere.ckpt does not exist"]),
        (["task.label_smoothing=2"], ["task.label_smoothing=2"]),
        (["optimizer.lr=-1"], ["optimizer.lr=-1 must be a number >= 0"]),
        (["optimizer.lr=fast"], ["optimizer.lr='fast'"]),
        (["optimizer.betas=[0.9]"], ["optimizer.betas=[0.9] must be two numbers"]),
        (["optimizer.schedule=cosin"], ["did you mean 'cosine'"]),
        (["trainer.max_epochs=-5"], ["trainer.max_epochs=-5 must be an integer >= 1"]),
        (["trainer.max_epochs=null"], ["cannot both be null"]),
        (["trainer.devices=0"], ["trainer.devices"]),
        (["trainer.precision=bf16"], ["trainer.precision='bf16'", "did you mean"]),
        (["trainer.ema=1"], ["trainer.ema=1"]),
        (["trainer.compile=yes please"], ["trainer.compile"]),
        (["+trainer.limit_vals_batches=1"], ["did you mean 'limit_val_batches'"]),
        (["+trainer.callbacks=[]"], ["trainer has no 'callbacks'"]),
        (["logger.every=0"], ["logger.every=0"]),
        (["model.name=null"], ["model.name=None must be a name"]),
        (["~data"], ["data=None must be a mapping"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and "=" in value[0] else None,
)
def test_bad_input_is_one_line_that_helps(overrides: list[str], expected: list[str]) -> None:
    message = refused(overrides)
    for part in expected:
        assert part in message, message


def test_any_other_argument_of_the_trainer_goes_to_lightning() -> None:
    assert parsed("trainer=smoke").trainer.lightning == {"limit_val_batches": 2, "limit_test_batches": 2}


def test_single_mixer_takes_backend_apart_from_parameters() -> None:
    spec = mixer_specs({"name": "attention", "backend": "sdpa", "heads": 4}, SHELL, None)
    assert not isinstance(spec, list)
    assert (spec.name, spec.backend, spec.params) == ("attention", "sdpa", {"heads": 4})


def test_composing_inside_a_composition_leaves_hydra_as_it_was() -> None:
    from hydra.core.global_hydra import GlobalHydra

    compose(["mixer=pool"])
    assert not GlobalHydra.instance().is_initialized()
