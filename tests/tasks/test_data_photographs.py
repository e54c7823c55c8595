"""Photographs on disk: layouts, splits, keyed batches, corrupt images, refusals."""

import logging
import os
import pickle
import shutil
import statistics
import time
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from operators.errors import InputError
from tasks import data
from tasks.data import imagenet
from tests.checks import assert_close
from tests.tasks import photographs
from tests.tasks.photographs import LABELS, WNIDS, write_folder, write_parquet

ROOT = os.environ.get("OPERATOR_ZOO_DATA")
SAMPLE = Path(ROOT or "/nowhere") / "imagenet-sample"
sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason="OPERATOR_ZOO_DATA has no imagenet-sample")
SIZES = {"train": 8, "val": 4}
SMOKE = {"train": "val", "val": "val"}
ALL = {
    "flip": True,
    "erasing": 0.5,
    "mixup": 0.8,
    "cutmix": 1.0,
    "randaugment": {"ops": 2, "magnitude": 9},
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "arrow")
    datasets.disable_progress_bars()


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    write_folder(root / "folder", SIZES)
    write_parquet(root / "parquet", SIZES)
    write_parquet(root / "parquet in data" / "data", SIZES, list(WNIDS))
    return root


@pytest.fixture
def tree(tmp_path):
    """A tree to be damaged."""
    return write_folder(tmp_path / "tree", SIZES)


def create(root, name="imagenet", **params):
    return data.create(name, **{"root": root and str(root), "batch_size": 6, "resolution": 16, "val_size": 3, **params})


def refusal(function):
    with pytest.raises(InputError) as caught:
        function()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def everything(loader):
    batches = list(loader)
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def test_the_thousand_classes():
    classes = imagenet.classes()
    assert len(classes) == 1000
    assert list(classes) == sorted(classes)
    assert [list(classes)[label] for label in LABELS] == list(WNIDS)
    assert classes["n02012849"] == classes["n03126707"] == "crane"
    assert "WordNet 3.0 Copyright 2006" in imagenet.CLASSES.read_text()


@sample
def test_names_agree_with_those_of_the_sample():
    for line in (SAMPLE / "classes.txt").read_text().splitlines():
        wnid, name = line.split(maxsplit=1)
        assert name.replace("_", " ").lower() in imagenet.classes()[wnid].lower()


def test_interface(trees):
    module = create(trees / "folder")
    assert (module.name, module.num_classes, module.channels, module.image_size) == ("imagenet", 1000, 3, (16, 16))
    assert module.class_names[LABELS[1]] == "tabby, tabby cat"
    assert "splits" not in vars(module)
    assert module.steps_per_epoch == 3
    batch = next(iter(module.train_dataloader()))
    assert {name: (value.dtype, tuple(value.shape)) for name, value in batch.items()} == {
        "image": (torch.float32, (6, 3, 16, 16)),
        "label": (torch.int64, (6,)),
        "index": (torch.int64, (6,)),
        "epoch": (torch.int64, (6,)),
    }
    defaults = data.create("imagenet", root=str(trees / "folder"))
    assert defaults.image_size == (224, 224)
    assert defaults.augment.crop_scale == 0.08
    generation = data.create("imagenet", root=str(trees / "folder"), pipeline="generation")
    assert generation.image_size == (256, 256)
    assert not generation.augment.crop_scale


@pytest.mark.parametrize("layout", ["parquet", "parquet in data", "hub"])
def test_every_layout_gives_the_same_batches(trees, layout, monkeypatch):
    tables = {
        name: photographs.table(split, SIZES[split]) for name, split in (("train", "train"), ("validation", "val"))
    }
    if layout == "hub":
        asked = []

        def load_dataset(name, split):
            asked.append((name, split))
            return tables[split]

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        other = create(None)
        other.prepare_data()
        assert asked == [(imagenet.HUB, "train"), (imagenet.HUB, "validation")]
    else:
        other = create(trees / layout)
    ours = create(trees / "folder")
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        expected, found = everything(getattr(ours, loader)()), everything(getattr(other, loader)())
        for name, value in expected.items():
            assert torch.equal(value, found[name]), (loader, name)
    assert sorted(set(found["label"].tolist())) == list(LABELS)


def test_photographs_travel_to_spawned_workers(trees):
    for layout in ("folder", "parquet"):
        split = create(trees / layout).train_dataloader().dataset
        batch = pickle.loads(pickle.dumps(split)).__getitems__([(0, 3), (1, 5)])
        assert torch.equal(batch["image"], split.__getitems__([(0, 3), (1, 5)])["image"])


@pytest.mark.parametrize("layout", ["folder", "parquet"])
def test_workers_ranks_and_batches_do_not_change_an_image(trees, layout):
    params = {"augment": ALL, "seed": 4}
    one = create(trees / layout, **params).train_dataloader()
    workers = create(trees / layout, num_workers=2, **params).train_dataloader()
    epochs = []
    for epoch in range(2):
        for loader in (one, workers):
            loader.batch_sampler.set_epoch(epoch)
        whole, again = everything(one), everything(workers)
        for name, value in whole.items():
            assert torch.equal(value, again[name]), name
        epochs.append(whole["image"][whole["index"].argsort()])
    assert not torch.equal(*epochs)
    parts = [create(trees / layout, batch_size=12, **params) for _ in range(2)]
    whole = next(iter(create(trees / layout, batch_size=12, **params).train_dataloader()))
    for rank, module in enumerate(parts):
        module.trainer = SimpleNamespace(global_rank=rank, world_size=2, default_root_dir=".")
        part = next(iter(module.train_dataloader()))
        for name in whole:
            assert torch.equal(part[name], whole[name][6 * rank : 6 * rank + 6]), name


def test_everything_on_at_224_pixels(trees):
    batch = next(iter(create(trees / "folder", resolution=None, batch_size=4, augment=ALL).train_dataloader()))
    assert batch["image"].shape == (4, 3, 224, 224)
    assert batch["mix"].shape == (4, 5)
    assert torch.isfinite(batch["image"]).all()


def test_pipelines(trees):
    """Values against the images themselves: the largest centred square in [-1, 1], or 7/8 of it, standardised."""
    for pipeline, share, mean, std in (
        ("generation", 1, [0.5] * 3, [0.5] * 3),
        ("classification", 0.875, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ):
        module = create(trees / "folder", pipeline=pipeline, augment={})
        batch = next(iter(module.test_dataloader()))
        _, _, content = photographs.images("val", 4)[0]
        with Image.open(photographs.io.BytesIO(content)) as image:
            assert image.size == (60, 40)
            box = (30 - 20 * share, 20 - 20 * share, 30 + 20 * share, 20 + 20 * share)
            expected = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC, box), np.float32) / 255
        expected = torch.from_numpy(expected).permute(2, 0, 1)
        expected = (expected - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        assert_close(batch["image"][0], expected, 1e-5, pipeline)
    generation = create(trees / "folder", pipeline="generation", augment={}).train_dataloader()
    first = everything(generation)
    generation.batch_sampler.set_epoch(1)
    second = everything(generation)
    for index in set(first["index"].tolist()) & set(second["index"].tolist()):
        image, other = (b["image"][b["index"] == index][0] for b in (first, second))
        assert torch.equal(image, other), "without a flip a centre crop is the same in every epoch"


def test_validation_is_carved_and_never_depends_on_the_seed(trees):
    one, two = create(trees / "folder").splits, create(trees / "folder", seed=3).splits
    assert (len(one.train), len(one.val), len(one.test)) == (21, 3, 12)
    assert np.array_equal(one.val.positions, two.val.positions)
    assert sorted(one.val.labels.tolist()) == list(LABELS)
    assert np.intersect1d(one.val.positions, one.train.positions).size == 0
    assert len(create(trees / "folder", val_size=None).splits.val) == 2
    smoke = create(trees / "folder", splits=SMOKE, val_size=None).splits
    assert len(smoke.train) == len(smoke.val) == len(smoke.test) == 12
    none = create(trees / "folder", splits={"train": "val", "test": None}).splits
    assert (len(none.train), len(none.val), len(none.test)) == (6, 3, 3)


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("train", "val"), {"train": "train", "val": "train", "test": "val"}),
        (("train", "valid"), {"train": "train", "val": "train", "test": "valid"}),
        (("train", "val", "test"), {"train": "train", "val": "val", "test": "test"}),
        (("train", "test"), {"train": "train", "val": "train", "test": "test"}),
        (("train",), {"train": "train", "val": "train", "test": "train"}),
        ((), {"train": ".", "val": ".", "test": "."}),
    ],
)
def test_image_folder_takes_what_there_is(tmp_path, folders, expected):
    for place in folders or (".",):
        for name in ("b cat", "a dog"):
            nested = tmp_path / place / name / "deeper"
            nested.mkdir(parents=True)
            for i in range(4):
                (nested / f"{i}.png").write_bytes(photographs.jpeg(i))
            (nested / "notes.txt").write_text("no image")
            (nested / "._0.png").write_text("left by a Macintosh")
    module = create(tmp_path, "image_folder", val_size=None if folders == ("train", "val", "test") else 2)
    assert module.class_names == ("a dog", "b cat")
    splits = module.splits
    for role, place in expected.items():
        split = getattr(splits, role)
        names = split.store.names(split.positions)
        assert all(Path(name).parts[0] == place for name in names) or place == "."
        assert all(module.class_names[label] in name for label, name in zip(split.labels, names, strict=True))
    carved = sum(place == expected["train"] for place in expected.values())
    assert len(splits.train) == 8 - 2 * (carved - 1)


def test_fingerprint_sees_names_sizes_and_labels(trees, tree):
    first = create(trees / "folder").fingerprint
    assert first == create(tree, seed=9, num_workers=2, batch_size=4).fingerprint
    assert first != create(tree, splits=SMOKE, val_size=None).fingerprint
    path = next((tree / "train").glob("*/*"))
    content = path.read_bytes()
    path.write_bytes(content + b"\0")
    assert create(tree).fingerprint != first
    path.unlink()
    path.with_name("zzz.JPEG").write_bytes(content)
    assert create(tree).fingerprint != first
    parquet = create(trees / "parquet").fingerprint
    assert parquet == create(trees / "parquet").fingerprint
    assert len(parquet) == 64


def damage(tree, count, split="train"):
    paths = sorted((tree / split).glob("*/*"))[:count]
    for path in paths:
        path.write_bytes(path.read_bytes()[:200])
    return [str(path.relative_to(tree)) for path in paths]


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_images_are_named_counted_and_replaced(tree, tmp_path, caplog, workers):
    whole = create(tree, splits=SMOKE, val_size=None, num_workers=0)
    expected = everything(whole.test_dataloader())
    names = damage(tree, 2, "val")
    module = create(tree, splits=SMOKE, val_size=None, num_workers=workers, max_corrupt=2)
    module.trainer = SimpleNamespace(global_rank=0, world_size=1, default_root_dir=str(tmp_path / "run"))
    with caplog.at_level(logging.WARNING):
        found = everything(module.test_dataloader())
        list(module.test_dataloader())
    assert sorted(module.corrupt["test"].found) == names
    assert [any(name in r.message for r in caplog.records) for name in names] == [True, True]
    assert len(caplog.records) == 2
    lines = (tmp_path / "run/corrupt.txt").read_text().splitlines()
    assert [line.split("\t")[:2] for line in lines] == [["test", name] for name in names]
    assert torch.equal(found["index"], torch.arange(12))
    assert torch.equal(found["image"][2:], expected["image"][2:])
    for slot in range(2):
        twins = [i for i in range(2, 12) if torch.equal(expected["image"][i], found["image"][slot])]
        assert [expected["label"][i] for i in twins] == [found["label"][slot]]


def test_replacements_are_keyed(tree):
    damage(tree, 6)
    seen = []
    for workers, size in ((0, 6), (2, 12)):
        module = create(tree, num_workers=workers, batch_size=size, max_corrupt=0.5)
        loader = module.train_dataloader()
        loader.batch_sampler.set_epoch(1)
        batch = everything(loader)
        order = batch["index"][:12].argsort()
        seen.append({name: value[:12][order] for name, value in batch.items()})
    for name in seen[0]:
        assert torch.equal(seen[0][name], seen[1][name]), name


@pytest.mark.parametrize(
    ("given", "tolerated", "workers"),
    [(0, 0, 0), (1, 1, 0), (1, 1, 2), (3, 3, 0), (0.1, 1, 0), (0.25, 3, 0), (100, 11, 0)],
)
def test_corrupt_images_are_bounded(tree, given, tolerated, workers):
    damage(tree, tolerated, "val")
    params = {"splits": SMOKE, "val_size": None, "max_corrupt": given, "num_workers": workers}
    module = create(tree, **params)
    list(module.val_dataloader())
    assert len(module.corrupt["val"].found) == tolerated
    names = damage(tree, tolerated + 1, "val")
    line = refusal(lambda: list(create(tree, **params).val_dataloader()))
    assert f"data.max_corrupt={given:g} tolerates {tolerated} corrupt images among the 12 of val" in line
    assert names[0] in line


def test_corrupt_rows_and_vanished_files_are_named(trees, tree, monkeypatch):
    module = create(tree, max_corrupt=1, splits=SMOKE, val_size=None)
    loader = module.val_dataloader()
    next((tree / "val" / WNIDS[0]).glob("*")).unlink()
    list(loader)
    (reason,) = module.corrupt["val"].found.values()
    assert reason == "No such file or directory"
    rows = photographs.table("val", 4)
    table = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": b"" if i == 2 else photographs.jpeg(i), "path": None} for i in range(6)],
            "label": [0] * 6,
        },
        features=rows.features,
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: table)
    module = create(None, splits=SMOKE, val_size=None, max_corrupt=1)
    list(module.val_dataloader())
    assert module.corrupt["val"].found == {"validation, row 2": "no bytes"}
    assert len(module.fingerprint) == 64


def test_a_run_goes_through(tree, fit, tmp_path):
    names = damage(tree, 1, "val")
    overrides = ["data=imagenet", f"data.root={tree}", "data.splits={train: val, val: val}", "data.resolution=32"]
    more = ["data.batch_size=4", "data.num_workers=0", "data.max_corrupt=0.1", "model.patch=8"]
    metrics = fit("run", *overrides, *more)
    assert metrics["status"] == "ok"
    assert metrics["data"] == "imagenet"
    recorded = {line.split("\t")[1] for line in (tmp_path / "run/corrupt.txt").read_text().splitlines()}
    assert recorded == set(names)


def test_refused_roots(tmp_path, tree):
    assert "needs data.root=DIR" in refusal(lambda: create(None, "image_folder"))
    for name in ("imagenet", "image_folder"):
        assert "/nowhere cannot be read as a folder" in refusal(lambda name=name: create("/nowhere", name))
    assert "its splits are none" in refusal(lambda: create(tmp_path / "tree" / "val" / WNIDS[0]))
    (tmp_path / "empty" / "train").mkdir(parents=True)
    assert "holds no class folders" in refusal(lambda: create(tmp_path / "empty", "image_folder"))
    (tmp_path / "none").mkdir()
    assert "holds no class folders" in refusal(lambda: create(tmp_path / "none", "image_folder"))
    only = tmp_path / "only"
    shutil.copytree(tree / "val", only / "val")
    line = refusal(lambda: create(only, "image_folder"))
    assert "data.splits.train='train' is not in" in line
    assert "its splits are val" in line
    assert "data.splits.train='train'" in refusal(lambda: create(only))


def test_refused_classes(tree):
    (tree / "val" / WNIDS[1]).rename(tree / "val" / "n02123046")
    line = refusal(lambda: create(tree))
    assert "n02123046 is not a class of ImageNet; data=image_folder takes any; did you mean 'n02123045'" in line
    line = refusal(lambda: create(tree, "image_folder"))
    assert "n02123046 is not a class of train; did you mean 'n02123045'" in line
    shutil.rmtree(tree / "val" / "n02123046")
    for name in ("imagenet", "image_folder"):
        line = refusal(lambda name=name: create(tree, name).splits)
        assert "the classes differ: 1 of train are not in test, the first is" in line
    shutil.copytree(tree / "train" / WNIDS[1], tree / "val" / WNIDS[1])
    for path in (tree / "train" / WNIDS[1]).iterdir():
        path.rename(path.with_suffix(".txt"))
    assert f"train/{WNIDS[1]} holds no image" in refusal(lambda: create(tree).splits)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"splits": {"train": "trian"}}, "data.splits.train='trian' is not in"),
        ({"splits": {"train": "trian"}}, "its splits are train, val; did you mean 'train'"),
        ({"splits": {"trian": "train"}}, "did you mean 'train'"),
        ({"splits": {"train": None}}, "data.splits.train=None"),
        ({"splits": {"val": 3}}, "data.splits.val=3"),
        ({"splits": "val"}, "must be a mapping"),
        ({"splits": SMOKE, "val_size": 3}, "data.val_size=3 is refused"),
        ({"val_size": 0}, "data.val_size=0"),
        ({"max_corrupt": -1}, "data.max_corrupt=-1"),
        ({"pipeline": "generator"}, "did you mean 'generation'"),
        ({"resolution": 0}, "data.resolution=0"),
        ({"max_corupt": 1}, "did you mean 'max_corrupt'"),
        ({"augment": {"crop_pad": 4}}, "crop_pad is refused: data=imagenet is cropped by crop_scale"),
        ({"augment": {"crop_scale": 2}}, "crop_scale=2"),
    ],
)
def test_wrong_parameters_are_refused(trees, params, message):
    assert message in refusal(lambda: create(trees / "folder", **params))


def test_refused_parquet(trees, tmp_path):
    root = tmp_path / "p"
    shutil.copytree(trees / "parquet", root)
    (root / "train-00001-of-00002.parquet").unlink()
    assert "has 1 of the 2 train files" in refusal(lambda: create(root))
    (root / "train-00000-of-00002.parquet").rename(root / "train-00000-of-00001.parquet")
    (root / "train-00000-of-00001.parquet").write_bytes(b"PAR1 no more")
    assert "cannot load train" in refusal(lambda: create(root).splits)
    for columns, message in (
        ({"img": ["a"], "label": [0]}, "has the columns img, label; expected: image, label"),
        ({"image": [3], "label": [0]}, "not struct<bytes, path>"),
        ({"image": [{"bytes": b"", "path": ""}], "label": [-1]}, "labels outside 0 … 999"),
        ({"image": [{"bytes": b"", "path": ""}], "label": [1000]}, "labels outside 0 … 999"),
    ):
        for name in ("train", "validation"):
            datasets.Dataset.from_dict(columns).to_parquet(str(root / f"{name}-00000-of-00001.parquet"))
        for path in root.glob("*-of-00002.parquet"):
            path.unlink()
        assert message in refusal(lambda: create(root).splits)
    other = write_parquet(tmp_path / "other", SIZES, ["cat", "dog", "orange"])
    assert "lists 3 classes, of which 'cat' is the first" in refusal(lambda: create(other).splits)


def test_a_hub_that_refuses_says_what_to_do(monkeypatch):
    def load_dataset(name, split):
        raise datasets.exceptions.DatasetNotFoundError("gated\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    line = refusal(lambda: create(None).splits)
    assert line.startswith("cannot load train of ILSVRC/imagenet-1k (gated); accept its terms")


@sample
@pytest.mark.parametrize("layout", ["folder", "parquet"])
def test_real_photographs(tmp_path, layout):
    root = SAMPLE
    if layout == "parquet":
        labels = {wnid: label for label, wnid in enumerate(imagenet.classes())}
        paths = sorted((SAMPLE / "val").glob("*/*"))
        rows = {
            "image": [{"bytes": path.read_bytes(), "path": path.name} for path in paths],
            "label": [labels[path.parent.name] for path in paths],
        }
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(str(tmp_path / "validation-00000-of-00001.parquet"))
        root = tmp_path
    module = data.create("imagenet", root=str(root), splits=SMOKE, batch_size=50, resolution=64, augment={"flip": True})
    seen = everything(module.test_dataloader())
    assert sorted(set(seen["label"].tolist())) == sorted(
        list(imagenet.classes()).index(path.name) for path in (SAMPLE / "val").iterdir()
    )
    train = everything(module.train_dataloader())
    assert (train["image"].shape, module.corrupt["train"].found) == ((100, 3, 64, 64), {})
    # standardised by ImageNet's statistics
    assert train["image"].mean().abs() < 0.3
    assert abs(train["image"].std() - 1) < 0.3


def anonymous():
    """Memory of this process that is no file's, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize("layout", ["folder", "parquet"])
def test_memory_stays_flat(trees, layout):
    loader = create(trees / layout, resolution=64).train_dataloader()
    sizes = []
    for epoch in range(400):
        loader.batch_sampler.set_epoch(epoch)
        for _ in loader:
            pass
        if epoch % 100 == 99:
            sizes.append(anonymous())
    assert sizes[-1] - sizes[0] < 4e6, sizes


class Bare(torch.utils.data.Dataset):
    """Decode and resize, and nothing else."""

    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        with Image.open(self.paths[index]) as image:
            full = image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(full))


@sample
@pytest.mark.slow
def test_loading_keeps_up_with_bare_decoding():
    """Images per second against plain decoding and resizing in as many processes: median of five interleaved."""
    module = data.create(
        "imagenet", root=str(SAMPLE), splits=SMOKE, batch_size=25, num_workers=2, augment={"flip": True}
    )
    paths = [str(path) for path in sorted((SAMPLE / "val").glob("*/*"))]
    bare = DataLoader(Bare(paths), batch_size=25, num_workers=2, persistent_workers=True)
    ours = module.train_dataloader()
    for loader in (bare, ours):
        list(loader)
    ratios = []
    for _ in range(5):
        seconds = []
        for loader in (bare, ours):
            start = time.perf_counter()
            for _ in range(3):
                assert sum(1 for _ in loader) == 4
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
    assert statistics.median(ratios) >= 0.9, ratios
