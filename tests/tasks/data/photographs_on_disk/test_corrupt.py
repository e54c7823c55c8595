"""Photographs that cannot be decoded: named, counted, replaced, bounded."""

import errno
import logging
import os
from types import SimpleNamespace

import datasets
import pytest
import torch

from tasks.data.files.walk import FolderStore
from tasks.system.failure import WorkerError
from tests.tasks.data import photographs
from tests.tasks.data.photographs import (
    SMOKE,
    WNIDS,
    create,
    damage,
    everything,
    refusal,
)


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


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM])
def test_a_process_that_has_run_out_of_something_finds_no_image_corrupt(tree, monkeypatch, code):
    module = create(tree, splits=SMOKE, val_size=None, num_workers=0, max_corrupt=0.9)

    def exhausted(store, position):
        raise OSError(code, os.strerror(code), "an_image.JPEG")

    monkeypatch.setattr(FolderStore, "open", exhausted)
    with pytest.raises(WorkerError, match=f"an_image.JPEG cannot be read: {os.strerror(code)}"):
        list(module.test_dataloader())
    assert not module.corrupt.get("test") or not module.corrupt["test"].found
