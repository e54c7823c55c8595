from __future__ import annotations

import json

import pytest
import torch

import tasks.data
from operators import InputError
from tasks.config.composition import read
from tasks.config.images import Images

SMALL = ("mixer=attention", "model.dim=16", "model.depth=2")


def test_record_is_plain_and_is_read_back() -> None:
    images = Images(10, 3, (8, 6), (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), (4, 2, 3))
    record = json.loads(json.dumps(images.record()))
    assert Images.recorded(record) == images
    assert set(record) == {"num_classes", "channels", "image_size", "mean", "std", "input"}


def test_model_is_the_same_whatever_was_built_before() -> None:
    run = read(SMALL)
    images = run.images(tasks.data.describe(**run.data))
    one, other = run.build(images), read([*SMALL, "model.depth=1"]).build(images)
    for name, weight in other.state_dict().items():
        assert torch.equal(one.state_dict()[name], weight), name


def test_model_on_the_meta_device_has_no_weights() -> None:
    run = read(["model.dim=4096", "mixer=attention"])
    images = run.images(tasks.data.describe(**run.data))
    model = run.build(images, device="meta")
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    assert model.cost().parameters == run.build(images, device="meta", depth=4).cost().parameters
    assert model.cost().parameters > run.build(images, device="meta", depth=1).cost().parameters


@pytest.mark.parametrize("more", [[], ["model.match={params: 5M}"]], ids=["plain", "budget"])
def test_sizes_that_overflow_are_refused(more: list[str]) -> None:
    def build() -> None:
        run = read(["mixer=attention", "model.dim=100000000000", *more])
        run.build(run.images(tasks.data.describe(**run.data)), device="meta")

    with pytest.raises(InputError, match="more than any memory holds"):
        build()
