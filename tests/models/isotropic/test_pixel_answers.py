"""`pooling="none"`: the head reads each token, and answers for every pixel of its patch."""

from __future__ import annotations

import torch

import models
from models import MixerSpec


def vit(**options: object) -> models.Trunk:
    size = {"image_size": (6, 4), "in_channels": 2, "num_classes": 3}
    more = {"dim": 8, "depth": 1, "patch": 2, "pooling": "none", **options}
    return models.create("vit_nano", mixers=MixerSpec("identity"), **size, **more)


def test_each_pixel_has_an_answer_of_its_own_patch() -> None:
    model, images = vit(), torch.randn(2, 2, 6, 4)
    changed = images.clone()
    changed[:, :, 2, 1] += 1
    before, after = model(images), model(changed)
    assert before.shape == (2, 3, 6, 4)
    assert ((before != after).any(dim=1).nonzero()[:, 1:].unique(dim=0).tolist()) == [[2, 0], [2, 1], [3, 0], [3, 1]]


def test_an_answer_is_the_heads_of_its_token() -> None:
    model, images = vit(patch=1), torch.randn(2, 2, 6, 4)
    assert isinstance(model, models.VisionTransformer)
    torch.testing.assert_close(model(images), model.head(model.features(images)).movedim(-1, 1))


def test_the_head_is_counted_at_each_token() -> None:
    assert vit().cost().macs - vit(pooling="mean").cost().macs == 6 * 8 * 3 * 4 - 8 * 3
