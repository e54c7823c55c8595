"""Levels of factors that are the registered mixers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import models
from ablations import plan as plans
from ablations import studyfile
from ablations.factors import Factor
from operators import InputError
from tasks.config.composition import compose


@pytest.mark.slow
@pytest.mark.parametrize("study", ["mixers", "mixers_generation", "zoo"])
def test_every_mixer_of_a_study_meets_its_budget(study: str) -> None:
    plan = plans.read(studyfile.load(study))
    fixed = [*plan.overrides, "data=fashion_mnist_mini"]
    trunk = "dit_nano" if "task=generation" in fixed else "vit_nano"
    shape = {"image_size": (28, 28), "in_channels": 1, "num_classes": 10, "dim": 48}
    for block in plan.blocks:
        for mixer in block.factors[0].levels:
            config = compose([*fixed, *block.overrides, f"mixer={mixer}"])
            spec = models.MixerSpec(mixer, shell=config["shell"])
            with torch.device("meta"):
                model = models.create(trunk, mixers=spec, match=config["model"]["match"], **shape)
            assert abs(model.cost().parameters / 200_000 - 1) <= 0.02, (block.name, mixer)


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        ({"key": "mixer", "levels": "registry", "without": ["pdessm"]}, "did you mean 'pde_ssm'"),
        ({"key": "mixer", "levels": "registry", "without": "fno"}, "without of factor mixer"),
        ({"key": "mixer", "levels": ["pool", "conv"], "without": ["conv"]}, "needs levels: registry"),
    ],
)
def test_what_is_left_out_of_the_registry(factor: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Factor.read("mixer", factor)


@pytest.fixture
def two_blocks() -> dict[str, Any]:
    conv = {"key": "shell.conv", "levels": [0, 3], "labels": ["off", "on"]}
    mixer = {"key": "mixer", "levels": ["pool", "identity", "conv", "random"]}
    return {
        "name": "some",
        "question": "Which?",
        "objectives": [{"metric": "test/accuracy"}],
        "blocks": [
            {"name": "one", "factors": {"mixer": mixer, "conv": conv}, "reference": {"mixer": "identity"}},
            {"name": "two", "factors": {"mixer": {**mixer, "levels": ["conv", "random", "attention"]}}},
        ],
    }


def test_levels_of_a_study_are_kept_where_a_block_has_them(two_blocks: dict[str, Any]) -> None:
    plan = plans.read(studyfile.narrowed(two_blocks, levels={"mixer": ["attention", "conv", "identity"]}))
    mixers, conv = plan.blocks[0].factors
    assert mixers.levels == ("identity", "conv"), "in the block's own order"
    assert (conv.levels, conv.labels) == ((0, 3), ("off", "on")), "a factor that is not named stays"
    assert plan.blocks[0].reference["mixer"] == "identity"
    assert plan.blocks[1].factors[0].levels == ("conv", "attention")


def test_blocks_of_a_study_are_kept(two_blocks: dict[str, Any]) -> None:
    plan = plans.read(studyfile.narrowed(two_blocks, blocks=["two"]))
    assert [block.name for block in plan.blocks] == ["two"]


@pytest.mark.parametrize(
    ("less", "message"),
    [
        ({"blocks": ["three"]}, "study.blocks has no 'three': allowed are one, two"),
        ({"levels": {"mixr": ["conv"]}}, "did you mean 'mixer'"),
        ({"levels": {"mixer": ["identity", "cnv"]}}, "study.levels of mixer has no 'cnv'.*did you mean 'conv'"),
        ({"levels": {"mixer": ["conv", "random"]}}, "leaves out 'identity', which block one compares with"),
        ({"levels": {"mixer": ["identity", "conv"]}}, r"levels \['conv'\]: it needs a list of two or more"),
        ({"levels": ["conv"]}, "study.levels must be a mapping"),
        ({"levels": {"conv": 3}}, "study.levels of conv must be a list"),
        ({"blocks": "one"}, "study.blocks must be a list"),
    ],
)
def test_what_a_study_has_not_cannot_be_kept(two_blocks: dict[str, Any], less: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plans.read(studyfile.narrowed(two_blocks, **less))
