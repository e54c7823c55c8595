"""The confusion matrix: counts, files and picture, with few and with many classes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks import confusion
from tests.tasks.conftest import Fit

NAMES = ["cat", "dog", "frog"]
COUNTS = np.array([[3, 1, 0], [0, 0, 0], [2, 2, 0]])


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_counts_have_true_classes_in_rows() -> None:
    label, predicted = np.array([0, 0, 0, 0, 2, 2, 2, 2]), np.array([0, 1, 0, 0, 1, 0, 1, 0])
    assert np.array_equal(confusion.count(label, predicted, 3), COUNTS)


def test_accuracy_and_the_usual_mistake_of_each_class() -> None:
    assert confusion.by_class(NAMES, COUNTS) == [
        ["cat", 4, 0.75, "dog", 0.25],
        ["dog", 0, "", "", ""],
        ["frog", 4, 0.0, "cat", 0.5],
    ]


def test_files_hold_the_numbers_and_a_picture(tmp_path: Path) -> None:
    confusion.write(tmp_path, NAMES, COUNTS)
    table = rows(tmp_path / "confusion.csv")
    assert table[0] == ["true class \\ predicted", *NAMES]
    assert [row[0] for row in table[1:]] == NAMES
    assert np.array_equal(np.array([row[1:] for row in table[1:]], dtype=int), COUNTS)
    assert rows(tmp_path / "classes.csv")[1] == ["cat", "4", "0.75", "dog", "0.25"]
    with Image.open(tmp_path / "confusion.png") as picture:
        assert min(picture.size) > 3 * confusion.MOST_CELL


@pytest.mark.parametrize("classes", [1, 2, 5, 26, 68, 69, 1000])
def test_every_cell_of_the_picture_has_the_colour_of_its_share(classes: int) -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 9, (classes, classes))
    names = [f"a class with a name that is long {number}" for number in range(classes)]
    pixels = np.asarray(confusion.draw(names, counts)).astype(int)
    cell = min(confusion.MOST_CELL, max(1, confusion.SIDE // classes))
    shares = counts / counts.sum(1, keepdims=True)
    # The frame's left upper corner: the only long black line from the top and the left.
    black = (pixels == 0).all(-1)
    top = int(np.flatnonzero(black.sum(1) >= cell * classes)[0]) + 1
    left = int(np.flatnonzero(black.sum(0) >= cell * classes)[0]) + 1
    assert left + cell * classes < pixels.shape[1]
    for row, column in rng.integers(0, classes, (20, 2)):
        corner = pixels[top + row * cell, left + column * cell]
        assert np.array_equal(corner, confusion._coloured(shares[row, column])), (row, column)


def test_colours_darken_steadily() -> None:
    lightness = confusion._coloured(np.linspace(0, 1, 50)).astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) < 0).all()


def test_a_run_leaves_the_matrix_of_its_predictions(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    counts = np.array([row[1:] for row in rows(finished / "confusion.csv")[1:]], dtype=int)
    with np.load(finished / "predictions.npz") as kept:
        label, predicted = kept["label"], kept["logits"].argmax(1)
    assert np.array_equal(counts, confusion.count(label, predicted, 10))
    assert counts.sum() == len(label) == metrics["test/n"]
    assert np.trace(counts) / counts.sum() == pytest.approx(metrics["test/accuracy"], abs=1e-9)
    assert rows(finished / "classes.csv")[1][0] == "T-shirt/top"
    assert (finished / "confusion.png").is_file()


def test_without_a_test_there_is_none(fit: Fit, tmp_path: Path) -> None:
    fit("run", "trainer.test=false")
    assert not (tmp_path / "run" / "confusion.csv").exists()
