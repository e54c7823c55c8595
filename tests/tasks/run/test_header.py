"""The lines before a run: what they say of the model, the device and the images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tasks.data
from tasks.config.composition import read
from tasks.run import header
from tests.tasks.conftest import TINY, Fit

FACTS = {"params": 12345, "macs": 67890, "backend": "torch"}


def lines(*overrides: str, data: Any = None) -> dict[str, str]:
    run = read([*TINY, *overrides])
    described = header.describe(run, FACTS, data, "cpu", Path("outputs/run"))
    assert len({len(line) - len(line.split(maxsplit=1)[1]) for line in described}) == 1, described
    return dict(line.split(maxsplit=1) for line in described)


def photographs(folder: Path, sizes: list[tuple[int, int]], mode: str = "RGB") -> Path:
    for split in ("train", "val", "test"):
        for label in ("a", "b"):
            place = folder / split / label
            place.mkdir(parents=True)
            for number, (width, height) in enumerate(sizes):
                shape = (height, width) if mode == "L" else (height, width, 3)
                noise = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(noise).save(place / f"{number}.png")
    return folder


def test_model_device_data_and_directory() -> None:
    data = tasks.data.create("fashion_mnist_mini")
    assert lines("seed=4", data=data) == {
        "classification": "pool in vit_nano, shell common, 12,345 parameters, 67,890 MACs an image",
        "device": "cpu, 32-true, backend torch",
        "data": "fashion_mnist_mini: 10,000 train, 2,000 val, 2,000 test images of 10 classes",
        "images": "28×28, 1 channel",
        "run": "fit, seed 4, in outputs/run",
    }


def test_sampling_reads_no_images() -> None:
    assert set(lines(data=None)) == {"classification", "device", "run"}


@pytest.mark.parametrize(("resolution", "change"), [(56, "enlarged from 28×28"), (16, "reduced from 28×28")])
def test_images_in_memory_of_another_size(resolution: int, change: str) -> None:
    data = tasks.data.create("fashion_mnist_mini", resolution=resolution)
    assert lines(data=data)["images"] == f"{resolution}×{resolution}, 1 channel, {change}"


@pytest.mark.parametrize(
    ("sizes", "mode", "expected"),
    [
        ([(20, 20)] * 2, "L", "32×32, 3 channels, all enlarged; the first is 20×20, greyscale tripled"),
        ([(90, 70)] * 2, "RGB", "32×32, 3 channels, none enlarged; the first is 70×90"),
        ([(64, 48), (9, 9)], "RGB", "32×32, 3 channels, 2 of 4 enlarged; the first is 48×64"),
        ([(90, 70)] * 9, "RGB", "32×32, 3 channels, none enlarged; the first is 70×90 (of 8 looked at)"),
    ],
)
def test_photographs_are_looked_at(tmp_path: Path, sizes: list[tuple[int, int]], mode: str, expected: str) -> None:
    data = tasks.data.create("image_folder", root=str(photographs(tmp_path, sizes, mode)), resolution=32)
    assert lines(data=data)["images"] == expected


def test_photographs_that_cannot_be_decoded_are_left_out(tmp_path: Path) -> None:
    root = photographs(tmp_path, [(40, 40)] * 2)
    (root / "train" / "a" / "0.png").write_bytes(b"nothing")
    data = tasks.data.create("image_folder", root=str(root), resolution=32, max_corrupt=0.5)
    assert lines(data=data)["images"].endswith("none enlarged; the first is 40×40")
    for path in root.glob("train/*/*.png"):
        path.write_bytes(b"nothing")
    assert lines(data=data)["images"] == "32×32, 3 channels"


def test_a_run_prints_it_once_before_it_starts(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    metrics = fit("a run", "data.resolution=56")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("classification  pool in vit_nano, shell common, ")
    assert f"{metrics['params']:,} parameters" in printed[0]
    assert printed[3] == "images          56×56, 1 channel, enlarged from 28×28"
    assert printed[4].endswith("a run")
    assert sum(line.startswith("device ") for line in printed) == 1
    assert json.loads((tmp_path / "a run" / "metrics.json").read_text())["backend"] in printed[1]
