"""Samples as files: resumed bit for bit, in bounded memory, in the layout of ADM's evaluator, never mixed."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import Callback
from PIL import Image

from operators.errors import InputError
from tasks import samples
from tasks.config.composition import compose
from tasks.measures.frechet import doubt
from tasks.run.execute import execute
from tasks.samples import Batches, Unfinished, classes_of, shown
from tests.tasks.generation.small import SMALL

ORIGIN = {"weights": "abc", "sample.steps": 2, "sample.classes": None}
CLASSES = (3, 1, 7)


def pixels(index: np.ndarray[Any, Any], channels: int = 1, side: int = 4) -> samples.Pixels:
    """Images that tell their indices: each pixel holds index + row."""
    rows = np.arange(side)[:, None]
    images = index[:, None, None, None] + rows
    return np.broadcast_to(images, (len(index), channels, side, side)).astype(np.uint8)


def draw(folder: Path, n: int, size: int, processes: int = 1, most: int | None = None, channels: int = 1) -> Unfinished:
    """Draw the batches that are missing, at most so many; and collect them, once they are all there."""
    store = Unfinished(folder, ORIGIN)
    store.begin()
    each = [Batches(n, size, rank, processes).ranges for rank in range(processes)]
    left = [batch for own in each for batch in own if not store.holds(batch)]
    for batch in left[:most]:
        index = np.array(batch)
        store.keep(index, classes_of(index, CLASSES), pixels(index, channels))
    if most is None:
        store.collect(CLASSES, n, each)
    return store


@pytest.mark.parametrize(("n", "size", "processes"), [(7, 3, 1), (7, 2, 2), (1, 5, 1), (11, 2, 3), (6, 3, 2)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_archive_holds_all_samples_in_order(
    tmp_path: Path, n: int, size: int, processes: int, channels: int
) -> None:
    draw(tmp_path, n, size, processes, channels=channels)
    with np.load(tmp_path / "samples.npz") as kept:
        assert kept.files == ["arr_0", "labels"]
        images, labels = kept["arr_0"], kept["labels"]
    assert images.dtype == np.uint8
    assert images.shape == (n, 4, 4, 3)
    assert np.array_equal(images, pixels(np.arange(n), 3).transpose(0, 2, 3, 1))
    assert labels.dtype == np.int64
    assert labels.tolist() == [CLASSES[i % 3] for i in range(n)]
    assert not (tmp_path / samples.PARTS).exists()
    with Image.open(tmp_path / f"{n - 1:05d}_class{CLASSES[(n - 1) % 3]}.png") as picture:
        assert picture.mode == ("L" if channels == 1 else "RGB")


@pytest.mark.parametrize("most", [0, 1, 3])
def test_a_run_that_was_stopped_goes_on_and_gives_the_same_bytes(tmp_path: Path, most: int) -> None:
    draw(tmp_path / "whole", 9, 2)
    draw(tmp_path / "cut", 9, 2, most=most)
    store = Unfinished(tmp_path / "cut", ORIGIN)
    assert sum(map(store.holds, Batches(9, 2).ranges)) == most
    draw(tmp_path / "cut", 9, 2)
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert names == {path.name for path in (tmp_path / "cut").iterdir()}
    assert all((tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in names)


def test_batches_of_another_size_are_drawn_anew(tmp_path: Path) -> None:
    draw(tmp_path, 9, 2, most=2)
    store = Unfinished(tmp_path, ORIGIN)
    assert not any(map(store.holds, Batches(9, 3).ranges))
    draw(tmp_path, 9, 3)
    with np.load(tmp_path / "samples.npz") as kept:
        assert np.array_equal(kept["arr_0"], pixels(np.arange(9), 3).transpose(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("key", "value"), [("weights", "other"), ("sample.steps", 4), ("sample.classes", [1]), ("more", 1)]
)
def test_samples_of_another_origin_are_refused_in_one_line(tmp_path: Path, key: str, value: Any) -> None:
    draw(tmp_path, 9, 2, most=2)
    with pytest.raises(
        InputError, match=rf"has samples with {key}={ORIGIN.get(key)}, not .*another hydra\.run\.dir"
    ) as caught:
        Unfinished(tmp_path, {**ORIGIN, key: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [None, "", "{", "[1]", "3"])
def test_samples_without_an_origin_are_refused(tmp_path: Path, text: str | None) -> None:
    draw(tmp_path, 9, 2, most=2)
    path = tmp_path / samples.PARTS / samples.ORIGIN
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=r"no origin\.json that says what they are: remove it"):
        Unfinished(tmp_path, ORIGIN)


@pytest.mark.parametrize("damage", ["empty", "cut", "foreign"])
def test_a_damaged_batch_is_set_aside_and_drawn_anew(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path, 9, 2, most=3)
    path = tmp_path / samples.PARTS / "00000002.npz"
    path.write_bytes({"empty": b"", "cut": path.read_bytes()[:-40], "foreign": b"no archive at all"}[damage])
    draw(tmp_path / "whole", 9, 2)
    draw(tmp_path, 9, 2)
    assert "is damaged; it is kept as 00000002.npz.aside-1" in capsys.readouterr().err
    assert (tmp_path / "samples.npz").read_bytes() == (tmp_path / "whole" / "samples.npz").read_bytes()


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    def peak(n: int) -> int:
        folder, side, size = tmp_path / str(n), 64, 8
        store = Unfinished(folder, ORIGIN)
        tracemalloc.start()
        store.begin()
        ranges = Batches(n, size).ranges
        for batch in ranges:
            index = np.array(batch)
            store.keep(index, classes_of(index, CLASSES), pixels(index, 3, side))
        store.collect(CLASSES, n, [ranges])
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    one_image = 3 * 64 * 64
    peak(32)  # what is imported late
    assert peak(192) - peak(32) < 10 * one_image, "160 more images"


@pytest.mark.parametrize(
    ("classes", "n", "expected"),
    [((0, 1), 5, [0, 2, 4, 1, 3]), ((5, 2), 3, [1, 0, 2]), ((4, 4), 3, [0, 1, 2]), ((1, 0), 1, [0])],
)
def test_the_sheet_shows_the_first_of_each_class(classes: tuple[int, ...], n: int, expected: list[int]) -> None:
    assert shown(classes, n).tolist() == expected


@pytest.mark.parametrize(("n", "features", "doubted"), [(1280, 1280, True), (1281, 1280, False), (2, 1280, True)])
def test_a_distance_of_few_images_is_doubted(n: int, features: int, doubted: bool) -> None:
    text = doubt(n, features)
    assert (text is not None) is doubted
    if text is not None:
        assert f"more than {features} images" in text
        assert "\n" not in text


class Stopping(Callback):
    """Fails after so many batches of samples."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx + 1 == self.after:
            raise RuntimeError("killed")


def test_a_run_of_mode_sample_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    execute(compose([*SMALL, "trainer.test=false"]), tmp_path / "run")
    ckpt = f"ckpt={tmp_path / 'run' / 'checkpoints' / 'best.ckpt'}"
    given = ["mode=sample", ckpt, "sample.n=23", "sample.batch_size=10", "logger=none"]
    execute(compose(given), tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        execute(compose(given), tmp_path / "cut", callbacks=[Stopping(2)])
    assert json.loads((tmp_path / "cut" / "metrics.json").read_text())["status"] == "failed"
    first = tmp_path / "cut" / "samples" / samples.PARTS / "00000000.npz"
    before = first.stat().st_mtime_ns
    with pytest.raises(InputError, match=r"has samples with sample\.steps=2, not 3: choose another hydra\.run\.dir"):
        execute(compose([*given, "sample.steps=3"]), tmp_path / "cut")
    assert first.stat().st_mtime_ns == before
    drawn: list[int] = []

    class Counting(Callback):
        def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            drawn.extend(batch.tolist())

    assert execute(compose(given), tmp_path / "cut", callbacks=[Counting()])["status"] == "ok"
    assert drawn == [20, 21, 22]
    names = {path.name for path in (tmp_path / "whole" / "samples").iterdir()}
    assert len(names) == 23 + 3
    assert names == {path.name for path in (tmp_path / "cut" / "samples").iterdir()}
    for name in names:
        one, two = (tmp_path / folder / "samples" / name for folder in ("whole", "cut"))
        assert one.read_bytes() == two.read_bytes(), name
