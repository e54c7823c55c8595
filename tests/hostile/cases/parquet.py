"""Parquet files of CIFAR-10 and ImageNet, and Fashion-MNIST's IDX files, that are not what they should be."""

# ruff: noqa: E501 - a row of the table is a line; odd characters are meant

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from tests.hostile.case import OK, REFUSED, Case, Step, run
from tests.hostile.making import cut, fifo, folder, picture, put
from tests.hostile.store import Store

_ROWS = 40
_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def _image(number: int, side: int = 32) -> dict[str, Any]:
    return {"bytes": picture(number, (side, side)), "path": f"{number}.png"}


def table(
    splits: Sequence[str] = ("train", "test"),
    *,
    name: str = "img",
    images: Any = None,
    labels: Any = None,
    columns: dict[str, Any] | None = None,
    metadata: dict[bytes, bytes] | None = None,
) -> Step:
    """A parquet file for each split below `data`; by default of images of noise and good labels."""

    def step(work: Path, _: Store) -> None:
        (work / "data").mkdir(exist_ok=True)
        for split in splits:
            shown = [_image(i) for i in range(_ROWS)] if images is None else images
            held = {name: shown, "label": [i % 10 for i in range(len(shown))] if labels is None else labels}
            made = pyarrow.table(held if columns is None else columns).replace_schema_metadata(metadata)
            pyarrow.parquet.write_table(made, work / "data" / f"{split}-00000-of-00001.parquet")

    return step


def cifar(*overrides: str) -> str:
    return run(
        "data=cifar10",
        "data.root=data",
        "data.val_size=10",
        "data.batch_size=4",
        "hydra.run.dir=outputs/run",
        *overrides,
    )


def imagenet(*overrides: str) -> str:
    return run(
        "data=imagenet", "data.root=data", "data.resolution=16", "data.batch_size=4", "data.num_workers=0", "data.val_size=4",
        "hydra.run.dir=outputs/run", *overrides,
    )  # fmt: skip


GOOD = table()
FILE = "data/train-00000-of-00001.parquet"
BIG: Step = table(("train", "validation"), name="image")
CASES = [
    Case("good CIFAR-10", cifar(), (GOOD,), (OK,)),
    Case("val_size larger than train", cifar("data.val_size=5000"), (GOOD,)),
    Case("val_size of all of train", cifar("data.val_size=40"), (GOOD,)),
    Case("val_size 0", cifar("data.val_size=0"), (GOOD,)),
    Case("val_size as a share", cifar("data.val_size=0.1"), (GOOD,)),
    Case("cut off", cifar(), (GOOD, cut(FILE, 0.5))),
    Case("empty file", cifar(), (GOOD, put(FILE))),
    Case("a web page", cifar(), (GOOD, put(FILE, "<html>login</html>"))),
    Case("a pointer of Git LFS", cifar(), (GOOD, put(FILE, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"))),
    Case("a folder called parquet", cifar(), (table(("test",)), folder(FILE))),
    Case("a pipe called parquet", cifar(), (table(("test",)), fifo(FILE))),
    Case("footer overwritten", cifar(), (GOOD, lambda work, _: (work / FILE).write_bytes(
        (work / FILE).read_bytes()[:-400] + b"\xff" * 392 + (work / FILE).read_bytes()[-8:]))),
    Case("pages overwritten", cifar(), (GOOD, lambda work, _: (work / FILE).write_bytes(
        (lambda content: content[:100] + b"\x00" * 500 + content[600:])((work / FILE).read_bytes())))),
    Case("no test split", cifar(), (table(("train",)),)),
    Case("of 3 shards one", cifar(), (GOOD, lambda work, _: (work / FILE).rename(work / "data/train-00000-of-00003.parquet"))),
    Case("zero rows", cifar(), (table(images=[], labels=pyarrow.array([], pyarrow.int64())),)),
    Case("zero rows without types", cifar(), (table(columns={"img": [], "label": []}),)),
    Case("labels as text", cifar(), (table(labels=["cat"] * _ROWS),), allowed=(OK, REFUSED)),
    Case("labels as fractions", cifar(), (table(labels=[0.5] * _ROWS),)),
    Case("labels with gaps", cifar(), (table(labels=[None, *range(_ROWS - 1)]),)),
    Case("labels out of range", cifar(), (table(labels=[10] * _ROWS),)),
    Case("labels below zero", cifar(), (table(labels=[-1] * _ROWS),)),
    Case("labels beyond 63 bits", cifar(), (table(labels=pyarrow.array([2**63] * _ROWS, pyarrow.uint64())),)),
    Case("labels as lists", cifar(), (table(labels=[[1]] * _ROWS),)),
    Case("labels as truth values", cifar(), (table(labels=[True, False] * (_ROWS // 2)),), (OK, REFUSED)),
    Case("labels as dates", cifar(), (table(labels=pyarrow.array([1] * _ROWS, pyarrow.timestamp("s"))),)),
    Case("images as text", cifar(), (table(images=["a.png"] * _ROWS),)),
    Case("images as bytes", cifar(), (table(images=[picture(i, (32, 32)) for i in range(_ROWS)]),), (OK, REFUSED)),
    Case("images without bytes", cifar(), (table(images=[{"bytes": None, "path": "x"}] * _ROWS),)),
    Case("images that are null", cifar(), (table(images=[None, *(_image(i) for i in range(_ROWS - 1))]),)),
    Case("bytes that are numbers", cifar(), (table(images=[{"bytes": 5, "path": "x"}] * _ROWS),)),
    Case("bytes that are text", cifar(), (table(images=[{"bytes": "png", "path": "x"}] * _ROWS),)),
    Case("images of another size", cifar(), (table(images=[_image(i, 16) for i in range(_ROWS)]),)),
    Case("no label column", cifar(), (table(columns={"img": [_image(0)]}),)),
    Case("two label columns", cifar(), (lambda work, _: _two_columns(work),)),
    Case("metadata that is no JSON", cifar(), (table(metadata={b"huggingface": b"{"}),), (OK, REFUSED)),
    Case("metadata of another shape", cifar(), (table(metadata={b"huggingface": b'{"info": {"features": [1]}}'}),), (OK, REFUSED)),
    Case("metadata that is a number", cifar(), (table(metadata={b"huggingface": b"5"}),), (OK, REFUSED)),
    Case("metadata with other classes", cifar(), (table(
        metadata={b"huggingface": b'{"info": {"features": {"label": {"names": ["a", "b"]}}}}'}),)),
    Case("metadata with names that are numbers", cifar(), (table(
        metadata={b"huggingface": b'{"info": {"features": {"label": {"names": 7}}}}'}),), (OK, REFUSED)),
    Case("fewer images than a batch", cifar("data.batch_size=64"), (GOOD,)),
    Case("CIFAR-10's files as ImageNet", imagenet(), (GOOD,)),
    Case("good ImageNet", imagenet(), (BIG,), (OK,)),
    Case("ImageNet: labels as text", imagenet(), (table(("train", "validation"), name="image", labels=["tench"] * _ROWS),)),
    Case("ImageNet: labels with gaps", imagenet(), (
        table(("train", "validation"), name="image", labels=[None, *range(_ROWS - 1)]),)),
    Case("ImageNet: zero rows", imagenet(), (table(("train", "validation"), name="image", images=[], labels=[]),)),
    Case("ImageNet: cut off", imagenet(), (BIG, cut(FILE, 0.7))),
    Case("ImageNet: images that are null", imagenet(), (
        table(("train", "validation"), name="image", images=[None] * _ROWS),)),
    Case("ImageNet: a disk without room for its cache", imagenet(), (BIG,), (1, 2), environment={"HF_HOME": "/proc/nowhere",
         "XDG_CACHE_HOME": "/proc/nowhere"}),
    Case("IDX: an empty folder", run("data=fashion_mnist", "data.root=data"), (folder("data"),)),
    Case("IDX: empty files", run("data=fashion_mnist", "data.root=data"), tuple(put(f"data/{name}") for name in _IDX)),
    Case("IDX: gzip cut off", run("data=fashion_mnist", "data.root=data"), tuple(
        put(f"data/{name}.gz", gzip.compress(bytes(5000))[:20]) for name in _IDX)),
    Case("IDX: a bomb of gzip", run("data=fashion_mnist", "data.root=data"), tuple(
        put(f"data/{name}.gz", lambda: gzip.compress(bytes(50_000_000)) * 200) for name in _IDX[:1])
        + tuple(put(f"data/{name}") for name in _IDX[1:])),
    Case("IDX: MNIST in its place", run("data=fashion_mnist", "data.root=data"), tuple(
        put(f"data/{name}", b"\0\0\x08\x03" + bytes(100)) for name in _IDX)),
    Case("IDX: folders in place of files", run("data=fashion_mnist", "data.root=data"), (folder(*(f"data/{n}" for n in _IDX)),)),
    Case("IDX: pipes in place of files", run("data=fashion_mnist", "data.root=data"), tuple(fifo(f"data/{n}.gz") for n in _IDX)),
    Case("a root for the embedded images", run("data.root=data"), (folder("data"),)),
]  # fmt: skip


def _two_columns(work: Path) -> None:
    (work / "data").mkdir()
    columns = [pyarrow.array([_image(0)] * _ROWS), pyarrow.array([1] * _ROWS), pyarrow.array([2] * _ROWS)]
    made = pyarrow.Table.from_arrays(columns, names=["img", "label", "label"])
    for split in ("train", "test"):
        pyarrow.parquet.write_table(made, work / "data" / f"{split}-00000-of-00001.parquet")
