"""Where full data sets come from: folders, Debian's package, downloads, the Hub, the cache."""

import gzip
import hashlib
import io
import json
import logging
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from operators.errors import InputError
from tasks import data
from tasks.data.sources import cifar10, fashion_mnist, hugging_face

debian = pytest.mark.skipif(not fashion_mnist.DEBIAN.exists(), reason="Debian's dataset-fashion-mnist is not installed")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def one_line(function):
    with pytest.raises(InputError) as caught:
        function()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A server folder with four small IDX files that pass for Fashion-MNIST."""
    folder = tmp_path / "server"
    folder.mkdir()
    hashes = {}
    rng = np.random.default_rng(0)
    for name in fashion_mnist.SHA256:
        count = 40 if name.startswith("train") else 20
        if "images" in name:
            content = bytes(16) + rng.integers(0, 256, count * 784, dtype=np.uint8).tobytes()
        else:
            content = bytes(8) + (np.arange(count, dtype=np.uint8) % 10).tobytes()
        hashes[name] = hashlib.sha256(content).hexdigest()
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    monkeypatch.setattr(fashion_mnist, "SHA256", hashes)
    monkeypatch.setattr(fashion_mnist, "URL", folder.as_uri())
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "no-such-package")
    return folder


@debian
def test_full_fashion_mnist_from_debian():
    module = data.create("fashion_mnist")
    splits = module.splits
    assert (len(splits.train), len(splits.val), len(splits.test)) == (55_000, 5_000, 10_000)
    assert np.bincount(splits.val.labels).tolist() == [500] * 10
    assert splits.train.images.shape == (55_000, 1, 28, 28)
    pixels = splits.train.images[::10] / 255
    assert abs(pixels.mean() - module.mean[0]) < 0.004
    assert abs(pixels.std() - module.std[0]) < 0.004


@pytest.mark.parametrize("unpacked", [False, True])
def test_fashion_mnist_from_a_folder(tiny, unpacked):
    if unpacked:
        for path in tiny.glob("*.gz"):
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
    splits = data.create("fashion_mnist", root=str(tiny), val_size=10).splits
    assert (len(splits.train), len(splits.val), len(splits.test)) == (30, 10, 20)
    assert splits.test.labels.tolist() == [*range(10), *range(10)]


def test_fashion_mnist_root_without_files(tiny, tmp_path):
    line = one_line(lambda: data.create("fashion_mnist", root="/nowhere"))
    assert "data.root=/nowhere" in line
    assert all(name in line for name in fashion_mnist.SHA256)
    (tiny / "t10k-labels-idx1-ubyte.gz").unlink()
    line = one_line(lambda: data.create("fashion_mnist", root=str(tiny)))
    assert "lacks t10k-labels-idx1-ubyte;" in line


def test_fashion_mnist_downloads_once(tiny):
    module = data.create("fashion_mnist", val_size=10)
    module.prepare_data()
    assert len(module.splits.test) == 20
    cached = fashion_mnist.cache_dir("fashion-mnist")
    assert sorted(p.name for p in cached.iterdir()) == sorted(f"{name}.gz" for name in fashion_mnist.SHA256)
    for path in tiny.iterdir():
        path.unlink()
    assert data.create("fashion_mnist", val_size=10).fingerprint == module.fingerprint


@pytest.mark.parametrize("damage", ["truncated", "altered", "not gzip", "missing"])
def test_a_bad_download_leaves_nothing_behind(tiny, damage):
    path = tiny / "train-labels-idx1-ubyte.gz"
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    if damage == "altered":
        path.write_bytes(gzip.compress(b"other"))
    if damage == "not gzip":
        path.write_bytes(b"<html>")
    line = one_line(lambda: data.create("fashion_mnist").splits)
    assert path.name in line
    assert ("data.root=FOLDER" if damage == "missing" else "truncated or altered") in line
    cached = fashion_mnist.cache_dir("fashion-mnist")
    assert [p.name for p in cached.iterdir()] == ["train-images-idx3-ubyte.gz"]


def test_a_wrong_local_file_is_named(tiny):
    path = tiny / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:200])
    line = one_line(lambda: data.create("fashion_mnist", root=str(tiny)).splits)
    assert str(path) in line
    path.write_bytes(gzip.compress(b"other"))
    assert "SHA-256 differs" in one_line(lambda: data.create("fashion_mnist", root=str(tiny)).splits)


def encoded(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def table(images, labels, names=cifar10.CLASS_NAMES):
    rows = [{"bytes": image, "path": None} for image in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    built = pa.table({"img": pa.array(rows, kind), "label": pa.array(labels, pa.int64())})
    features = {"label": {"names": list(names), "_type": "ClassLabel"}}
    return built.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


@pytest.fixture
def parquet(tmp_path):
    """A CIFAR-10 folder of 40 + 20 images, train in two files; and the pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    images = [encoded(p) for p in pixels]
    folder = tmp_path / "cifar"
    folder.mkdir()
    for name, part in (("train-00000-of-00002", slice(0, 25)), ("train-00001-of-00002", slice(25, 40)),
                       ("test-00000-of-00001", slice(40, 60))):  # fmt: skip
        pa.parquet.write_table(table(images[part], np.arange(60)[part] % 10), folder / f"{name}.parquet")
    return folder, pixels


def cifar(folder):
    return data.create("cifar10", root=str(folder), val_size=10)


def test_cifar10_from_a_folder(parquet):
    folder, pixels = parquet
    splits = cifar(folder).splits
    assert (len(splits.train), len(splits.val), len(splits.test)) == (30, 10, 20)
    assert np.array_equal(splits.test.images, pixels[40:].transpose(0, 3, 1, 2))
    assert splits.test.labels.tolist() == (np.arange(40, 60) % 10).tolist()


def test_decoded_images_are_kept_and_a_damaged_cache_is_replaced(parquet, monkeypatch, caplog):
    folder, _ = parquet
    first = cifar(folder).fingerprint
    files = sorted(cifar10.cache.cache_dir("cifar10").iterdir())
    assert len(files) == 3
    with monkeypatch.context() as patch:
        patch.setattr(cifar10, "_decode_one", None)
        assert cifar(folder).fingerprint == first
    files[0].write_bytes(files[0].read_bytes()[:-1])
    files[1].write_bytes(files[1].read_bytes()[:-1] + b"\0\0")
    files[2].write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert cifar(folder).fingerprint == first
    assert caplog.text.count("is damaged") == 3
    caplog.clear()
    assert cifar(folder).fingerprint == first
    assert not caplog.text


def test_a_cache_that_cannot_be_written_is_done_without(parquet, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(cifar(parquet[0]).splits.test) == 20
    assert "cannot be kept for the next run" in caplog.text


def test_cifar10_root_without_files(parquet):
    folder, _ = parquet
    line = one_line(lambda: cifar("/nowhere"))
    assert "data.root=/nowhere" in line
    assert "parquet" in line
    (folder / "train-00001-of-00002.parquet").unlink()
    assert "1 of 00002 train files" in one_line(lambda: cifar(folder))


def test_a_corrupt_image_is_named(parquet):
    folder, pixels = parquet
    path = folder / "test-00000-of-00001.parquet"
    good = encoded(pixels[0])
    for bad, message in (
        (good[:400], "cannot be decoded"),
        (b"nonsense", "cannot be decoded"),
        (None, "cannot be decoded"),
        (encoded(np.zeros((16, 32, 3), np.uint8)), "16×32 pixels"),
    ):
        pa.parquet.write_table(table([good, good, bad], [0, 1, 2]), path)
        line = one_line(lambda: cifar(folder).splits)
        assert f"{path}, row 2" in line
        assert message in line


def test_other_parquet_files_are_refused(parquet):
    folder, pixels = parquet
    path = folder / "test-00000-of-00001.parquet"
    good = [encoded(pixels[0])]
    for wrong, message in (
        (pa.table({"image": [1], "label": [0]}), "columns image, label"),
        (pa.table({"img": good, "label": [0]}), "type binary"),
        (table(good, [10]), "labels outside"),
        (table(good, [0], ("cat", "dog")), "classes cat, dog"),
    ):
        pa.parquet.write_table(wrong, path)
        line = one_line(lambda: cifar(folder).splits)
        assert str(path) in line
        assert message in line
    path.write_bytes(b"PAR1 and nothing else")
    assert "cannot be read as parquet" in one_line(lambda: cifar(folder).splits)


def test_cifar10_from_the_hub(parquet, monkeypatch):
    import datasets

    folder, pixels = parquet
    asked = []

    def local(name, split):
        asked.append((name, split))
        built = pa.parquet.read_table(folder / f"{split}-00000-of-0000{2 if split == 'train' else 1}.parquet")
        return datasets.Dataset(built.replace_schema_metadata(None)).cast_column("img", datasets.Image())

    monkeypatch.setattr(datasets, "load_dataset", local)
    splits = data.create("cifar10", val_size=10).splits
    assert asked == [(cifar10.HUB, "train"), (cifar10.HUB, "test")]
    assert np.array_equal(splits.test.images, pixels[40:].transpose(0, 3, 1, 2))

    def unreachable(name, split):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    line = one_line(lambda: data.create("cifar10").splits)
    assert "no route" in line
    assert "data.root=FOLDER" in line


needs_data = pytest.mark.skipif("OPERATOR_ZOO_DATA" not in os.environ, reason="OPERATOR_ZOO_DATA is not set")


@needs_data
def test_real_cifar10_images():
    root = Path(os.environ["OPERATOR_ZOO_DATA"]) / "cifar10"
    cifar10.require(str(root))
    images = cifar10.decode(cifar10._read(root / "test-00000-of-00001.parquet")[:3000], "test")
    assert images.images.shape == (3000, 3, 32, 32)
    assert np.bincount(images.labels, minlength=10).min() > 200
    module = data.create("cifar10", root=str(root))
    pixels = images.images / 255
    assert np.abs(pixels.mean((0, 2, 3)) - module.mean).max() < 0.01
    assert np.abs(pixels.std((0, 2, 3)) - module.std).max() < 0.01


@needs_data
@pytest.mark.slow
def test_real_cifar10_splits():
    splits = data.create("cifar10", root=str(Path(os.environ["OPERATOR_ZOO_DATA"]) / "cifar10")).splits
    assert (len(splits.train), len(splits.val), len(splits.test)) == (45_000, 5_000, 10_000)
    assert np.bincount(splits.val.labels).tolist() == [500] * 10


def test_progress_bars_of_datasets_are_no_lines_where_there_is_no_terminal(monkeypatch):
    """Between the beginning and the end of a bar, wrong files would be refused in three lines instead of one."""
    datasets = hugging_face.library()
    assert datasets.are_progress_bars_disabled()
    datasets.enable_progress_bars()
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    with monkeypatch.context() as patched:
        patched.setattr("sys.stderr", terminal)
        assert not hugging_face.library().are_progress_bars_disabled()
    assert hugging_face.library().are_progress_bars_disabled()
