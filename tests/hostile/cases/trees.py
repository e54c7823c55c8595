"""Folders of photographs as people have them, and as nobody should."""

# ruff: noqa: E501 - a row of the table is a line; odd characters are meant

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.hostile.case import FAILED, OK, REFUSED, Case, Step, run
from tests.hostile.making import bomb, cut, fifo, folder, images, link, picture, put

SPLITS: Step = images({f"tree/{split}/{name}": 12 for split in ("train", "test") for name in ("cat", "dog")})
PLAIN: Step = images({"tree/cat": 20, "tree/dog": 20})


def train(*overrides: str, root: str = "tree") -> str:
    return run(
        "data=image_folder", f"data.root={root}", "data.resolution=16", "data.batch_size=4", "data.num_workers=0",
        "trainer.max_steps=1", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1.0", "hydra.run.dir=outputs/run",
        *overrides,
    )  # fmt: skip


def images_tested(count: int, classes: int = 2) -> Callable[[Path], str]:
    """That so many images were tested, each once, in so many classes."""

    def check(work: Path) -> str:
        with np.load(work / "outputs" / "run" / "predictions.npz") as predictions:
            shape, numbers = predictions["logits"].shape, len(set(predictions["index"].tolist()))
        wrong = shape != (count, classes) or numbers != count
        return f"{numbers} images tested, logits {shape}, not {(count, classes)}" if wrong else ""

    return check


def good(name: str, *steps: Step, count: int = 24, classes: int = 2, overrides: tuple[str, ...] = ()) -> Case:
    """A tree that must be understood."""
    return Case(name, train(*overrides), steps, (OK,), check=images_tested(count, classes), seconds=200)


def either(name: str, *steps: Step, count: int = 24, classes: int = 2, overrides: tuple[str, ...] = ()) -> Case:
    """A tree that must be understood or refused."""
    return Case(name, train(*overrides), steps, (OK, REFUSED), check=images_tested(count, classes), seconds=200)


def bad(name: str, *steps: Step, overrides: tuple[str, ...] = (), root: str = "tree") -> Case:
    """A tree that must be refused."""
    return Case(name, train(*overrides, root=root), steps, seconds=200)


def twice(*names: str) -> Step:
    """Copies of the test images in folders of that name inside each class."""
    found = {f"tree/test/{kind}/{name}": 12 for name in names for kind in ("cat", "dog")}
    return images(found, first=24)


CASES = [
    good("plain splits", SPLITS),
    good("copies in a notebook's folder", SPLITS, twice(".ipynb_checkpoints")),
    good("thumbnails of a storage box", SPLITS, twice("@eaDir")),
    good("leftovers of a Mac", SPLITS, twice("__MACOSX"), put("tree/test/cat/._000.png", "resource fork")),
    good("a system's own folders beside the splits", SPLITS, folder("tree/$RECYCLE.BIN", "tree/lost+found", "tree/.git")),
    good("a notebook's folder beside the classes", SPLITS, images({"tree/test/.ipynb_checkpoints": 2}),
         images({"tree/train/@eaDir": 2}, 90)),
    good("thumbs and notes among images", SPLITS, put("tree/test/cat/Thumbs.db", b"\0"), put("tree/README.txt", "x")),
    good("splits with capitals", images({f"tree/{s}/{c}": 12 for s in ("Train", "Test") for c in ("cat", "dog")})),
    good("splits called training and testing", images({f"tree/{s}/{c}": 12 for s in ("training", "testing") for c in ("a", "b")})),
    good("splits in capitals with a validation", images({f"tree/{s}/{c}": 12 for s in ("TRAIN", "VALID", "TEST") for c in "ab"})),
    either("split names twice", SPLITS, images({"tree/Train/cat": 3, "tree/Train/dog": 3}, 70)),
    either("a class called train", images({"tree/cat": 20, "tree/train": 20}), count=4),
    either("a link to the parent", SPLITS, link("tree/test/cat/up", "../..")),
    either("a link to itself", SPLITS, link("tree/test/cat/me", ".")),
    either("a class that is a link to another", SPLITS, link("tree/test/lion", "cat"), link("tree/train/lion", "cat"), count=24),
    either("a link out to a device", SPLITS, link("tree/test/cat/zero.png", "/dev/zero")),
    either("a dangling link among images", SPLITS, link("tree/test/cat/x.png", "/nowhere/x.png")),
    either("a dangling link as a class", SPLITS, link("tree/test/lion", "/nowhere")),
    either("a link to a file of another class", SPLITS, link("tree/test/dog/x.png", "../cat/000.png")),
    bad("a dangling link as the root", link("tree", "/nowhere")),
    bad("one class", images({"tree/train/cat": 12, "tree/test/cat": 12})),
    bad("flat folder of images", images({"tree": 12})),
    bad("flat folders as splits", images({"tree/train": 12, "tree/test": 12})),
    bad("an empty class", SPLITS, folder("tree/train/lion")),
    bad("an empty root", folder("tree")),
    bad("a root that is a file", put("tree", "x")),
    bad("a root that is a device", root="/dev/null"),
    bad("a root in proc", root="/proc/self"),
    bad("classes of test that train lacks", SPLITS, images({"tree/test/lion": 3}, 80)),
    bad("classes of train that test lacks", SPLITS, images({"tree/train/lion": 3}, 80)),
    bad("a class that differs by a capital", images({"tree/train/Cat": 9, "tree/train/dog": 9, "tree/test/cat": 3, "tree/test/dog": 3})),
    bad("fewer images than a batch", images({"tree/train/a": 1, "tree/train/b": 1, "tree/test/a": 1, "tree/test/b": 1})),
    bad("fewer images than classes to carve from", images({"tree/a": 1, "tree/b": 1}), overrides=("data.batch_size=1",)),
    bad("a split that does not exist", SPLITS, overrides=("data.splits={train: train, val: vall}",)),
    bad("a split above the root", SPLITS, overrides=("data.splits={train: ../tree/train, test: test}",)),
    bad("splits that are a list", SPLITS, overrides=("data.splits=[train,test]",)),
    bad("a corrupt share that is a word", SPLITS, overrides=("data.max_corrupt=some",)),
    bad("more to validate on than there is", SPLITS, overrides=("data.val_size=1000",)),
    bad("files cut off", SPLITS, *(cut(f"tree/train/cat/{i:03}.png", 0.5) for i in range(12))),
    bad("empty files", SPLITS, *(put(f"tree/test/cat/{i:03}.png") for i in range(12))),
    bad("web pages called png", SPLITS, *(put(f"tree/test/dog/{i:03}.png", "<html>404</html>") for i in range(12))),
    Case("a pipe among images", train(), (SPLITS, fifo("tree/train/cat/a.png")), (OK, REFUSED), seconds=200),
    Case("a decompression bomb", train(), (SPLITS, *(
        put(f"tree/train/cat/{i:03}.png", lambda: bomb(30_000)) for i in range(3))), (OK, FAILED, REFUSED), seconds=200),
    Case("an image of one pixel", train(), (SPLITS, put("tree/test/cat/000.png", picture(0, (1, 1)))), (OK,), check=images_tested(24)),
    Case("an image of one row of 20,000", train(), (SPLITS, put("tree/train/cat/000.png", lambda: picture(0, (20_000, 1)))), (OK,)),
    Case("palettes, alpha, CMYK, grey and 16 bits", train(), (
        SPLITS,
        put("tree/train/cat/000.png", picture(0, mode="P")), put("tree/train/cat/001.png", picture(1, mode="RGBA")),
        put("tree/train/cat/p.jpg", picture(2, kind="JPEG", mode="CMYK")), put("tree/test/dog/000.png", picture(3, mode="LA")),
        put("tree/test/cat/000.png", picture(4, mode="I;16")),
    ), (OK,), check=images_tested(24)),
    good("names of every alphabet", images({f"tree/{s}/{c}": 12 for s in ("train", "test") for c in ("猫 🐈", "a'b\"[x]{y}")})),
    good("a name that is no UTF-8", SPLITS, lambda work, _: (work / "tree/test/cat/000.png").rename(
        work / "tree/test/cat" / "caf\udce9.png")),
    good("an equals sign in the root", images({f"a=b/{s}/{c}": 12 for s in ("train", "test") for c in ("a", "b")}),
         overrides=("data.root='a=b'",)),
    good("identical images in two splits", SPLITS, images({"tree/train/cat": 3}, first=24)),
    good("labels in metadata.csv", images({"tree/train": 24, "tree/test": 24}), *(
        put(f"tree/{split}/metadata.csv", "file_name,label\n" + "".join(
            f"{i:03}.png,{'cat' if i % 2 else 'dog'}\n" for i in range(24))) for split in ("train", "test"))),
    bad("metadata.csv names files that are not there", images({"tree/train": 24, "tree/test": 24}), *(
        put(f"tree/{split}/metadata.csv", "file_name,label\nx.png,cat\n") for split in ("train", "test"))),
    bad("metadata.csv is binary", images({"tree/train": 24}), put("tree/train/metadata.csv", bytes(range(256)))),
    bad("metadata.csv points out of the tree", images({"tree/train": 4}), put("secret.png", picture(9)),
        put("tree/train/metadata.csv", "file_name,label\n../../secret.png,a\n000.png,b\n")),
    Case("labels.csv without labels", train(), (images({"tree/train": 4}), put("tree/train/labels.csv", "file_name\n000.png\n")),),
    Case("ImageNet with a stranger's class", train("data=imagenet"), (images({"tree/train/cat": 9, "tree/val/cat": 3}),)),
    Case("1,400 test images and few descriptors", train("data.num_workers=2", "data.batch_size=2"), (
        images({"tree/train/a": 4, "tree/train/b": 4, "tree/test/a": 700, "tree/test/b": 700}),), (OK,),
        check=images_tested(1400), limits=("nofile=512",), seconds=400),
]  # fmt: skip
