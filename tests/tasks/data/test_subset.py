from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tasks.data
from operators import InputError
from tasks.config import bounds
from tasks.data import subset
from tasks.data.splits import SplitImages
from tests.tasks.data import photographs


def split(labels: list[int]) -> SplitImages:
    images = np.arange(len(labels)).astype(np.uint8).reshape(-1, 1, 1, 1)
    return SplitImages(images, np.array(labels, np.int64))


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 40), min_size=2, max_size=6),
    share=st.floats(0.01, 1, exclude_min=True),
    seed=st.integers(0, 99),
)
def test_every_class_keeps_its_share_and_an_image(counts: list[int], share: float, seed: int) -> None:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    whole = split(labels)
    size = round(share * len(labels))
    if size < len(counts):
        with pytest.raises(InputError, match="give at least"):
            subset.take(whole, share, seed)
        return
    part = subset.take(whole, share, seed)
    kept = np.bincount(part.labels, minlength=len(counts))
    assert size <= len(part) < size + len(counts)
    assert bool((kept >= 1).all())
    exact = np.array(counts) * size / len(labels)
    assert bool((np.abs(kept - exact) <= 1).all())
    positions = part.images[:, 0, 0, 0].astype(int)
    assert bool((np.diff(positions) > 0).all())
    assert part.labels.tolist() == [labels[position] for position in positions]


def test_least_share_in_the_message_is_enough() -> None:
    whole = split(list(range(7)) * 3)
    with pytest.raises(InputError) as caught:
        subset.take(whole, 0.1, 0)
    least = float(str(caught.value).split("at least ")[1].split(",")[0])
    assert sorted(subset.take(whole, least, 0).labels) == list(range(7))


def test_seed_alone_decides() -> None:
    whole = split([0, 1] * 50)
    first, again, other = (subset.take(whole, 0.3, seed).images for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("share", [None, 1, 1.0])
def test_all_of_it_is_the_split_itself(share: float | None) -> None:
    whole = split([0, 1])
    assert subset.take(whole, share, 0) is whole


@pytest.mark.parametrize("share", [0, -0.1, 1.1, "half", True, float("nan")])
def test_what_is_no_share_is_refused(share: object) -> None:
    with pytest.raises(InputError, match=r"data\.subset"):
        bounds.check_data(subset=share)
    with pytest.raises(InputError, match=r"data\.subset"):
        tasks.data.create("fashion_mnist_mini", subset=share)


def test_train_alone_is_cut_and_the_fingerprint_tells() -> None:
    whole, part = (tasks.data.create("fashion_mnist_mini", subset=share, seed=3) for share in (None, 0.1))
    assert len(part.splits.train) == round(0.1 * len(whole.splits.train))
    for name in ("val", "test"):
        assert getattr(part.splits, name) is getattr(part.whole, name)
        assert np.array_equal(getattr(part.splits, name).images, getattr(whole.splits, name).images)
    assert np.bincount(part.splits.train.labels).tolist() == [len(part.splits.train) // 10] * 10
    prints = {tasks.data.create("fashion_mnist_mini", subset=share, seed=seed).fingerprint
              for share, seed in ((None, 0), (None, 1), (0.1, 0), (0.1, 1), (0.2, 0))}  # fmt: skip
    assert len(prints) == 4
    assert part.steps_per_epoch == len(part.splits.train) // part.batch_size


def test_photographs_are_cut_as_well(tmp_path: Path) -> None:
    root = photographs.write_folder(tmp_path, {"train": 8, "val": 4})
    part = photographs.create(root, "image_folder", subset=0.5, val_size=None, splits={"val": "val"})
    assert np.bincount(part.splits.train.labels).tolist() == [4, 4, 4]
    assert [len(split) for split in (part.whole.train, part.splits.val, part.splits.test)] == [
        len(part.whole.train), len(part.whole.val), len(part.whole.test),
    ]  # fmt: skip
    (batch, *_) = part.train_dataloader()
    assert batch["image"].shape == (6, 3, 16, 16)
