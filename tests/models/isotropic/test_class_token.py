"""A class token in front of the grid's, for mixers to which all tokens are alike."""

from __future__ import annotations

import pytest
import torch

import models
import operators
from models import MixerSpec
from operators import InputError
from operators.testing.counter import count_macs

ALIKE = [name for name in operators.names() if operators.describe(name).permutation_equivariant]


def vit(mixers: object, **options: object) -> models.VisionTransformer:
    spec = MixerSpec(mixers) if isinstance(mixers, str) else mixers
    size = {"image_size": (8, 12), "in_channels": 3, "num_classes": 5}
    return models.create(
        "vit_nano", mixers=spec, **{**size, "dim": 16, "depth": 2, "pooling": "class", **options}
    ).eval()


@pytest.mark.parametrize("mixer", ALIKE)
def test_every_parameter_learns_and_features_are_the_grids(mixer: str) -> None:
    model = vit(mixer)
    images = torch.randn(2, 3, 8, 12)
    assert model.features(images).shape == (2, 2, 3, 16)
    model(images).square().sum().backward()
    assert model.class_token.grad is not None
    assert bool(model.class_token.grad.any())
    if mixer != "identity":  # which lets the class token see no image
        assert bool(model.stem.weight.grad.any())
        assert not torch.equal(model(images), model(images.roll(1, dims=0)))


def test_order_of_tokens_without_positions_is_invisible_to_the_head() -> None:
    model = vit("attention", positions="none").double()
    images = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    moved = torch.cat([images[..., 4:], images[..., :4]], dim=-1)  # patches are 4 wide
    torch.testing.assert_close(model(moved), model(images))


@pytest.mark.parametrize("mixer", ALIKE)
def test_cost_agrees_with_a_counter_that_watches(mixer: str) -> None:
    model = vit(mixer)
    cost, images = model.cost(), torch.randn(1, 3, 8, 12)
    assert cost.parameters == sum(parameter.numel() for parameter in model.parameters())
    mixing = sum(count_macs(mixer, torch.randn(1, 1, 7, 16)) for mixer in model.mixers)
    # the head reads one token, as it reads one mean
    assert count_macs(model, images) - mixing == cost.macs - cost.mixer_macs
    assert cost.mixer_macs == sum(mixer.cost(1, 7).macs for mixer in model.mixers)


def test_other_resolutions_are_served() -> None:
    model = vit("attention")
    assert model(torch.randn(2, 3, 20, 8)).shape == (2, 5)
    assert model.cost(20, 8).macs > model.cost().macs


@pytest.mark.parametrize(
    "mixers",
    [
        *(MixerSpec(name) for name in operators.names() if name not in ALIKE),
        MixerSpec("attention", {"rope": True}),
        MixerSpec("pom", {"rope": True}),
        MixerSpec("vssd", {"conv": 3}),
        MixerSpec("attention", shell={"name": "common", "conv": 3}),
        [MixerSpec("attention"), MixerSpec("conv")],
    ],
    ids=str,
)
def test_mixers_that_know_places_are_refused(mixers: object) -> None:
    with pytest.raises(InputError, match=r"take model\.pooling=mean"):
        vit(mixers)


def test_class_token_is_not_decayed_and_not_muons() -> None:
    model = vit("attention")
    assert "class_token" not in model.hidden_matrices()
    assert model.class_token.ndim == 1  # vectors are never decayed
