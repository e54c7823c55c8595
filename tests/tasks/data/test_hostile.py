"""Files and values that no data set has: one line each, before memory is taken."""

from __future__ import annotations

import gzip
import io
import json
import re
import tracemalloc

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from tasks import data
from tasks.data.sources import fashion_mnist
from tasks.run.resolutions import sides
from tests.tasks.data.photographs import refusal

IMAGES = {"imagenet": "image", "cifar10": "img"}
NAMES = {"imagenet": ("n01440764", "n01443537"), "cifar10": ("airplane", "automobile")}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "arrow")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


def rows(labels, content=None):
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (3, 4, 5)).save(file, "PNG")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": content or file.getvalue(), "path": None}] * len(labels), kind)
    return images, labels


def opened(root, name, labels, metadata=None, images=None):
    """The data set whose every split is one parquet file of these columns."""
    root.mkdir(exist_ok=True)
    made, labels = rows(labels)
    table = pa.table({IMAGES[name]: made if images is None else images, "label": labels})
    if metadata is not None:
        table = table.replace_schema_metadata({"huggingface": metadata})
    for split in ("train", "validation" if name == "imagenet" else "test"):
        pa.parquet.write_table(table, root / f"{split}-00000-of-00001.parquet")
    params = {"resolution": 16} if name == "imagenet" else {}
    return data.create(name, root=str(root), batch_size=2, val_size=2, **params)


@pytest.mark.parametrize("name", IMAGES)
def test_labels_in_words_are_understood(tmp_path, name):
    one, other = NAMES[name]
    for number, labels in enumerate(
        (
            pa.array([one, other] * 4),
            pa.array([one, other] * 4).dictionary_encode(),
            pa.array(["0", "1"] * 4),
            pa.array([0, 1] * 4, pa.int8()),
            pa.array([0.0, 1.0] * 4),
        )
    ):
        splits = opened(tmp_path / str(number), name, labels).splits
        assert splits.test.labels.tolist() == [0, 1] * 4


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (pa.array(["unicorn", "cat"] * 4), "has the label 'unicorn', which is no class"),
        (pa.array([0, 1] * 4).slice(0, 0), "has no rows: it cannot be used"),
        (pa.array([0, None] * 4), "row 1: there is no label"),
        (pa.nulls(8), "row 0: there is no label"),
        (pa.array([0.0, 1.5] * 4), "has a label that is no whole number"),
        (pa.array([0.0, float("nan")] * 4), "has a label that is no whole number"),
        (pa.array([2**64 - 1, 1] * 4, pa.uint64()), "has a label that is no whole number"),
        (pa.array([0, 1000] * 4), "has labels outside 0 … .*: 1000 in row 1"),
        (pa.array([0, -1] * 4), "has labels outside 0 … .*: -1 in row 1"),
        (pa.array([True, False] * 4), "has labels of type bool; expected are integers"),
        (pa.array([[0], [1]] * 4), "has labels of type list<"),
        (pa.array([b"0", b"1"] * 4), "has labels of type binary"),
        (pa.array([0, 1] * 4, pa.timestamp("s")), "has labels of type timestamp"),
    ],
)
def test_other_labels_are_refused(tmp_path, name, labels, message):
    line = refusal(lambda: opened(tmp_path / "root", name, labels).splits)
    assert re.search(message, line), line


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("{", "its metadata is damaged"),
        (
            json.dumps({"info": {"features": {"label": {"names": 3, "_type": "ClassLabel"}}}}),
            "its metadata lists no names of classes but '3'",
        ),
        (
            json.dumps({"info": {"features": {"label": {"names": [1, 2], "_type": "ClassLabel"}}}}),
            "its metadata lists no names of classes but '[1, 2]'",
        ),
    ],
)
def test_damaged_metadata_is_refused(tmp_path, name, metadata, message):
    assert message in refusal(lambda: opened(tmp_path / "root", name, pa.array([0, 1] * 4), metadata).splits)


def test_images_of_another_type_are_refused(tmp_path):
    text = pa.array([{"bytes": "x", "path": "y"}] * 8)
    line = refusal(lambda: opened(tmp_path / "a", "cifar10", pa.array([0, 1] * 4), images=text).splits)
    assert "has a column img with bytes of type string; expected: binary" in line


@pytest.mark.parametrize("name", ["image_folder", "imagenet", "fashion_mnist_mini", "cifar10"])
def test_an_enormous_resolution_is_refused(tmp_path, name):
    root = tmp_path / "tree"
    for folder in ("train/n01440764", "train/n02123045", "val/n01440764", "val/n02123045"):
        (root / folder).mkdir(parents=True)
    given = {"root": str(root)} if name in ("image_folder", "imagenet") else {}
    line = refusal(lambda: data.create(name, resolution=100_000, **given))
    assert line == "data.resolution=100000 must be an integer >= 1 and <= 13377"
    line = refusal(lambda: data.create(name, resolution=13_000, batch_size=10_000, **given))
    assert "data.batch_size=10000 images of 13000×13000 pixels take " in line
    assert "in a batch" in line
    assert data.describe(name, resolution=13_000, batch_size=10_000, **given).image_size == (13_000, 13_000)
    assert "<= 13377" in refusal(lambda: sides([28, 100_000]))


def test_a_file_that_unpacks_to_far_more_is_not_unpacked(tmp_path):
    """168 MB of zeros: only as much is read as the largest file of Fashion-MNIST has."""
    path = tmp_path / "train-images-idx3-ubyte.gz"
    with gzip.open(path, "wb", 1) as file:
        for _ in range(20):
            file.write(bytes(2**23))
    tracemalloc.start()
    line = refusal(lambda: fashion_mnist.read_file(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "is not Fashion-MNIST's: its SHA-256 differs" in line
    assert peak < 130e6
