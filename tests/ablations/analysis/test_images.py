"""Arms and effects are compared on the test images, and intervals allow for other images of the kind."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ablations.analysis.words import minus
from ablations.statistics import (
    image_difference_over_seeds,
)
from tests.ablations import fake_study
from tests.ablations.analysis.simple_study import analyse, by_name, simple
from tests.ablations.fake_study import FakeStudy


def test_test_images_are_told_apart(tmp_path: Path) -> None:
    fake = simple(tmp_path / "s", {"a": [0.5, 0.5], "b": [0.6, 0.6], "c": [0.7, 0.7]})
    right = np.random.default_rng(0).random((6, 50)) < 0.6
    for number in range(5):
        fake_study.predictions(tmp_path / "s" / "trials" / f"{number:05d}", right[number].tolist())
    fake_study.predictions(tmp_path / "s" / "trials" / "00005", right[5, :40].tolist())
    summary = analyse(fake.write())
    result = summary["blocks"][0]["objectives"][0]
    (one,) = result["images"]
    truth = image_difference_over_seeds(right[2:4], right[0:2])
    assert (one["arm"], one["images"], one["seeds"]) == ("mixer=b", 50, 2)
    assert (one["difference"], one["low"], one["high"]) == pytest.approx((truth.difference, truth.low, truth.high))
    assert "mixer=c and mixer=a were tested on different images: not compared image by image" in summary["notes"]


def of_two_kinds(path: Path, *, by_chance: bool = False) -> FakeStudy:
    """Two arms, the second right on 20 of 400 images more: on images of its own but for three, or by chance."""
    draw, images = np.random.default_rng(0), 400
    fake = simple(path, {"a": [0.0] * 3, "b": [0.0] * 3})
    own = [draw.permutation(images) < 300 + 20 * arm for arm in range(2)]
    for number, row in enumerate(fake.rows):
        right = own[number // 3].copy()
        right[draw.choice(images, 3, replace=False)] ^= True
        if by_chance:
            right = draw.permutation(right)
        row["test/accuracy"] = float(right.mean())
        fake_study.predictions(path / "trials" / f"{number:05d}", right.tolist())
    return fake


def test_what_test_images_add_is_in_the_answer_where_it_matters(tmp_path: Path) -> None:
    """Over seeds the arms are told apart, by 5 points; on other images of the kind they need not be."""
    summary = analyse(of_two_kinds(tmp_path / "s").write())
    result = summary["blocks"][0]["objectives"][0]
    (pair,), (effect,), arm = result["against_best"], result["effects"], by_name(result["arms"], "arm")["mixer=b"]
    assert pair["told_apart"]
    assert pair["low_images"] < 0 < pair["high_images"]
    assert effect["low_images"] < 0 < effect["low"]
    assert (effect["low_images"], effect["high_images"]) == pytest.approx(
        (arm["difference_low_images"], arm["difference_high_images"])
    )
    half = effect["high_images"] - effect["estimate"]
    error = stats.norm.ppf(0.975) * effect["image_error"]
    assert half == pytest.approx(math.hypot(effect["half"], error))
    low, high = minus(f"{100 * effect['low_images']:.1f}"), f"{100 * effect['high_images']:.1f}"
    assert f"for other test images too: mixer b rather than a {low} to {high}, not shown." in summary["answer"]
    assert result["best"]["low_images"] < result["best"]["low"]
    by_chance = analyse(of_two_kinds(tmp_path / "t", by_chance=True).write())
    assert "for other test images" not in by_chance["answer"]


def test_intervals_that_cannot_allow_for_other_images_say_so(tmp_path: Path) -> None:
    fake = of_two_kinds(tmp_path / "s")
    (tmp_path / "s" / "trials" / "00004" / "predictions.npz").unlink()
    summary = analyse(fake.write())
    (effect,) = summary["blocks"][0]["objectives"][0]["effects"]
    assert (effect["image_error"], effect["low_images"], effect["high_together_images"]) == (None, None, None)
    assert (
        "where predictions are missing (1 of 6 runs), intervals are for these test images, not for others"
        in summary["notes"]
    )
    generated = analyse(fake_study.mixers(tmp_path / "t"))["notes"]
    assert "intervals are for these test images, not for others: test loss is not kept image by image" in generated
