"""Photographs on disk: what is refused, and in which words."""

import shutil

import datasets
import pytest

from tests.tasks.data.photographs import SIZES, SMOKE, WNIDS, create, refusal, write_parquet


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
