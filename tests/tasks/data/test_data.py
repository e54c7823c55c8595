"""The data module: interface, batches, loaders, the embedded data set, errors."""

import json
import pickle
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from operators.errors import InputError
from tasks import data
from tasks.data.build_fashion_mnist_mini import build, fingerprint
from tasks.data.files.layout import Options
from tasks.data.sources import fashion_mnist
from tasks.data.sources.tables import TableOptions
from tasks.data.splits import Source, SplitImages, carve, stratified

CONF = Path(__file__).parents[3] / "conf" / "data"
MINI = "fashion_mnist_mini"


def place(module, rank, world):
    module.trainer = SimpleNamespace(global_rank=rank, world_size=world, default_root_dir=".")
    return module


def toy(shape=(3, 8, 6), sizes=(64, 24), **params):
    """A data module over random images, one class in five."""
    rng = np.random.default_rng(0)

    def images(count):
        return SplitImages(rng.integers(0, 256, (count, *shape), dtype=np.uint8), np.arange(count) % 5)

    loaded = {"train": images(sizes[0]), "test": images(sizes[1])}
    channels = (0.5,) * shape[0]
    source = Source("toy", tuple("abcde"), shape, channels, channels, 14, lambda root: None, lambda root: loaded)
    return data.ImageData(source, **params)


def test_names():
    assert data.names() == [
        "cifar10",
        "fashion_mnist",
        "fashion_mnist_mini",
        "image_folder",
        "imagenet",
        "parquet",
        "probe",
    ]


def test_interface_needs_no_loading():
    module = data.create("cifar10", resolution=64)
    assert (module.name, module.num_classes, module.channels, module.image_size) == ("cifar10", 10, 3, (64, 64))
    assert module.class_names[6] == "frog"
    assert len(module.mean) == len(module.std) == 3
    assert "splits" not in vars(module)


def test_embedded_batches():
    module = data.create(MINI, batch_size=64, augment={"flip": True, "crop_pad": 2})
    assert (module.channels, module.image_size, module.steps_per_epoch) == (1, (28, 28), 156)
    loader = module.train_dataloader()
    assert len(loader) == 156
    batch = next(iter(loader))
    assert {name: (value.dtype, tuple(value.shape)) for name, value in batch.items()} == {
        "image": (torch.float32, (64, 1, 28, 28)),
        "label": (torch.int64, (64,)),
        "index": (torch.int64, (64,)),
        "epoch": (torch.int64, (64,)),
    }
    assert torch.equal(batch["label"], torch.from_numpy(module.splits.train.labels)[batch["index"]])
    for loader, split in ((module.val_dataloader(), "val"), (module.test_dataloader(), "test")):
        batches = list(loader)
        assert torch.equal(torch.cat([b["index"] for b in batches]), torch.arange(2000))
        images = torch.cat([b["image"] for b in batches])
        pixels = torch.from_numpy(getattr(module.splits, split).images)
        assert torch.allclose(images * 0.3530 + 0.2860, pixels / 255, atol=1e-6)


def test_embedded_splits_are_stratified_and_apart():
    splits = data.create(MINI).splits
    for split, count in ((splits.train, 1000), (splits.val, 200), (splits.test, 200)):
        assert np.bincount(split.labels).tolist() == [count] * 10
    pixels = splits.train.images / 255
    assert abs(pixels.mean() - 0.2860) < 0.005
    assert abs(pixels.std() - 0.3530) < 0.005
    with np.load(fashion_mnist.MINI, allow_pickle=False) as file:
        assert np.intersect1d(file["train_index"], file["val_index"]).size == 0
        about = json.loads(str(file["about"]))
    assert about["source_sha256"] == fashion_mnist.SHA256
    assert "MIT" in about["licence"]
    assert fashion_mnist.MINI.stat().st_size < 8e6


@pytest.mark.skipif(not fashion_mnist.DEBIAN.exists(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_embedded_file_can_be_rebuilt():
    arrays = build(None)
    assert fingerprint(arrays) == fashion_mnist.MINI_FINGERPRINT
    with np.load(fashion_mnist.MINI, allow_pickle=False) as file:
        assert set(file.files) == set(arrays)
        assert all(np.array_equal(file[name], arrays[name]) for name in arrays)


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_a_damaged_embedded_file_is_noticed(tmp_path, monkeypatch, damage):
    path = tmp_path / "mini.npz"
    content = fashion_mnist.MINI.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[:100_000])
    if damage == "altered":
        with np.load(fashion_mnist.MINI) as file:
            arrays = dict(file)
        arrays["val_labels"][3] ^= 1
        np.savez(path, **arrays)
    monkeypatch.setattr(fashion_mnist, "MINI", path)
    with pytest.raises(InputError, match=r"mini\.npz .*reinstall the package"):
        _ = data.create(MINI).splits


def test_fingerprint_is_stable_and_sees_everything():
    module = toy()
    first = module.fingerprint
    assert first == toy(seed=5, batch_size=8, augment={"flip": True}).fingerprint
    assert first != toy(val_size=10).fingerprint
    module = toy()
    module.splits.test.labels[0] += 1
    assert module.fingerprint != first
    assert data.create(MINI).fingerprint == fashion_mnist.MINI_FINGERPRINT


def test_validation_is_carved_from_train_whatever_the_seed():
    one, two = toy(seed=0).splits, toy(seed=1).splits
    assert np.array_equal(one.val.images, two.val.images)
    assert (len(one.train), len(one.val), len(one.test)) == (50, 14, 24)
    loaded = {"train": SplitImages(np.arange(100, dtype=np.uint8).reshape(-1, 1, 1, 1), np.arange(100) % 4)}
    splits = carve({**loaded, "test": loaded["train"]}, 20)
    assert np.bincount(splits.val.labels).tolist() == [5, 5, 5, 5]
    assert sorted([*splits.val.images.ravel(), *splits.train.images.ravel()]) == list(range(100))


def test_stratified_keeps_shares_of_unequal_classes():
    labels = np.repeat([0, 1, 2], [70, 20, 10])
    chosen, rest = stratified(labels, 15, "a")
    assert np.bincount(labels[chosen]).sum() == 15
    assert np.abs(np.bincount(labels[chosen]) - [10.5, 3, 1.5]).max() <= 0.5
    assert np.array_equal(np.sort(np.concatenate([chosen, rest])), np.arange(100))
    assert not np.array_equal(stratified(labels, 15, "b")[0], chosen)


ALL = {
    "flip": True,
    "crop_pad": 1,
    "erasing": 0.5,
    "mixup": 0.8,
    "cutmix": 1.0,
    "randaugment": {"ops": 1, "magnitude": 9},
}


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_and_workers_see_the_batches_of_one_process(workers):
    options = {"batch_size": 16, "augment": ALL, "seed": 4, "resolution": 10}
    loader = toy(**options).train_dataloader()
    loaders = [place(toy(num_workers=workers, **options), r, 2).train_dataloader() for r in range(2)]
    for epoch in range(2):
        for one in (loader, *loaders):
            one.batch_sampler.set_epoch(epoch)
        for whole, *parts in zip(loader, *loaders, strict=True):
            assert set(whole) == {"image", "label", "index", "epoch", "mix"}
            for name in whole:
                assert torch.equal(whole[name], torch.cat([part[name] for part in parts])), name
            assert (whole["epoch"] == epoch).all()


def test_batches_do_not_depend_on_global_generators():
    torch.manual_seed(1)
    first = next(iter(toy(batch_size=16, augment=ALL).train_dataloader()))
    torch.manual_seed(2)
    second = next(iter(toy(batch_size=16, augment=ALL).train_dataloader()))
    assert torch.equal(first["image"], second["image"])


def test_a_split_travels_to_spawned_workers():
    split = toy(batch_size=16).train_dataloader().dataset
    batch = pickle.loads(pickle.dumps(split)).__getitems__([(0, 3), (1, 5)])
    assert batch["epoch"].tolist() == [0, 1]


@pytest.mark.parametrize("rank_world", [(0, 3), (2, 3)])
def test_evaluation_shards_are_contiguous(rank_world):
    rank, world = rank_world
    batches = list(place(toy(batch_size=9), rank, world).test_dataloader())
    assert torch.cat([b["index"] for b in batches]).tolist() == list(range(rank * 8, rank * 8 + 8))


def test_native_resolution_costs_no_resize():
    native, given = data.create(MINI), data.create(MINI, resolution=28)
    assert torch.equal(next(iter(native.val_dataloader()))["image"], next(iter(given.val_dataloader()))["image"])
    assert next(iter(data.create(MINI, resolution=14).val_dataloader()))["image"].shape[-2:] == (14, 14)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"name": "fashion_mnist_min"}, "did you mean 'fashion_mnist_mini'"),
        ({"batchsize": 3}, "did you mean 'batch_size'"),
        ({"source": 3}, "no 'source'"),
        ({"batch_size": 0}, "data.batch_size=0"),
        ({"batch_size": 2.5}, "data.batch_size=2.5"),
        ({"num_workers": -1}, "data.num_workers=-1"),
        ({"resolution": 0}, "data.resolution=0"),
        ({"seed": "x"}, "seed='x'"),
        ({"val_size": 100}, "has a validation split"),
        ({"root": "/nowhere"}, "embedded"),
        ({"augment": {"flop": True}}, "did you mean 'flip'"),
        ({"augment": {"crop_scale": 0.5}}, "crop_scale is refused: data=fashion_mnist_mini is cropped by crop_pad"),
        ({"pipeline": "generation"}, "no 'pipeline'"),
    ],
)
def test_wrong_parameters_are_refused(params, message):
    with pytest.raises(InputError) as caught:
        data.create(**{"name": MINI, **params})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("params", "world", "message"),
    [
        ({"batch_size": 16}, 3, "batch_size=16 must be divisible by the 3"),
        ({"batch_size": 51}, 1, "at most 50"),
        ({"batch_size": 15, "augment": {"mixup": 0.8}}, 1, "even number"),
        ({"batch_size": 6, "augment": {"cutmix": 1.0}}, 2, "even number"),
        ({"val_size": 64}, 1, "between 1 and 63"),
    ],
)
def test_batches_that_cannot_be_shared_out_are_refused(params, world, message):
    with pytest.raises(InputError, match=message):
        place(toy(**params), 0, world).train_dataloader()


@pytest.mark.parametrize("name", [name for name in data.names() if name != data.PROBE])
def test_configuration_files_are_complete(name, tmp_path):
    node = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    photographs = "pipeline" in node
    if photographs:
        node["pipeline"] = "generation"
        options = {f.name for f in fields(TableOptions if name == "parquet" else Options)}
        assert set(node) - {"name", "augment", "batch_size", "num_workers", "subset"} == options
    if name == "image_folder":
        (tmp_path / "train" / "a").mkdir(parents=True)
        node["root"] = str(tmp_path)
    if name == "parquet":
        pq.write_table(pa.table({"image": [b"x"] * 20, "label": [0, 1] * 10}), tmp_path / "train.parquet")
        node["root"] = str(tmp_path)
    module = data.create(**node, seed=3)
    assert module.name == name
    assert module.augment.flip
    other = "crop_pad" if photographs else "crop_scale"
    assert {*node["augment"], other} == set(data.Augment.__dataclass_fields__)
