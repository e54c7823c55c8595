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
