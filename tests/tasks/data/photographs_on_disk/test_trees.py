"""Trees as people have them: what a system has left there, links, names of splits, tables of labels, copies."""

import logging
import os
import socket

import pytest

from tasks import data
from tasks.data.files import identical, walk
from tests.tasks.data.photographs import create, everything, jpeg, refusal


def plant(root, *places, count=4, first=0, suffix=".jpg"):
    """`count` images of their own in each of the folders."""
    for number, place in enumerate(places):
        folder = root / place
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (folder / f"{i}{suffix}").write_bytes(jpeg(first + 100 * number + i, 12))
    return root


def opened(root, **params):
    return create(root, "image_folder", **{"val_size": None, "batch_size": 2, **params})


def names(split):
    return split.store.names(split.positions)


def total(module):
    return sum(len(split) for split in (module.splits.train, module.splits.val, module.splits.test))


@pytest.mark.parametrize(
    "folders",
    [("Train", "Test"), ("training", "testing"), ("TRAIN", "Dev", "TEST"), ("train", "valid"), ("Training", "VAL")],
)
@pytest.mark.parametrize("name", ["image_folder", "imagenet"])
def test_splits_go_by_their_usual_names(tmp_path, folders, name):
    if name == "imagenet":  # its own test split is the validation split
        folders = (folders[0], "Dev")
    classes = ("n01440764", "n02123045")
    plant(tmp_path, *(f"{folder}/{c}" for folder in folders for c in classes))
    module = create(tmp_path, name, val_size=None if len(folders) == 3 and name != "imagenet" else 2, batch_size=2)
    if name == "image_folder":
        assert module.class_names == classes
    assert {n.split("/")[0] for n in names(module.splits.train)} == {folders[0]}
    expected = folders[1] if name == "imagenet" else folders[-1]
    assert {n.split("/")[0] for n in names(module.splits.test)} == {expected}


def test_ambiguous_splits_are_refused(tmp_path):
    plant(tmp_path, *(f"{s}/{c}" for s in ("train", "Train", "training", "test") for c in "ab"))
    line = refusal(lambda: opened(tmp_path))
    assert "has more than one train split, Train, train, training: say data.splits.train=NAME" in line
    assert {n.split("/")[0] for n in names(opened(tmp_path, splits={"train": "train"}).splits.train)} == {"train"}
    mixed = plant(tmp_path / "mixed", "train/a", "train/b", "cat", "dog")
    line = refusal(lambda: opened(mixed))
    assert "holds splits (train) beside other folders with images (cat, dog)" in line
    assert opened(mixed, splits={"train": "train"}).class_names == ("a", "b")
    vehicles = plant(tmp_path / "vehicles", "car", "plane", "train")
    assert "data.splits.train=. where all of them are classes" in refusal(lambda: opened(vehicles))
    assert opened(vehicles, splits={"train": "."}).class_names == ("car", "plane", "train")
    (tmp_path / "papers" / "devkit").mkdir(parents=True)
    (tmp_path / "papers" / "devkit" / "readme.txt").write_text("no image")
    assert opened(plant(tmp_path / "papers", "train/a", "train/b")).class_names == ("a", "b")


LITTER = (".ipynb_checkpoints", "@eaDir", "__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information")


def test_what_a_system_leaves_does_not_count(tmp_path):
    plant(tmp_path, "cat", "dog", count=12)
    for litter in LITTER:
        plant(tmp_path, litter, f"cat/{litter}", f"dog/sub/{litter}", count=3)
    for place in ("cat", "dog"):
        for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.jpg", ".hidden.png"):
            (tmp_path / place / name).write_bytes(jpeg(1, 12))
    module = opened(tmp_path)
    assert (module.class_names, total(module)) == (("cat", "dog"), 24)


def test_each_file_counts_once(tmp_path):
    plant(tmp_path, "cat", "dog", "dog/deep", count=4)
    outside = plant(tmp_path / "elsewhere", "store", "more", first=900)
    root = tmp_path / "tree"
    root.mkdir()
    for name in ("cat", "dog"):
        (tmp_path / name).rename(root / name)
    (root / "cat" / "up").symlink_to("..")  # to everything
    (root / "cat" / "way up").symlink_to("/")
    (root / "cat" / "self").symlink_to(".")
    (root / "dog" / "cats").symlink_to("../cat")
    (root / "dog" / "a cat.jpg").symlink_to("../cat/0.jpg")
    (root / "dog" / "again.jpg").symlink_to("deep/0.jpg")
    os.link(root / "dog" / "1.jpg", root / "dog" / "hard.jpg")
    (root / "cat" / "round.jpg").symlink_to("round.jpg")
    (root / "dog" / "notes").symlink_to("nowhere")
    (root / "cat" / "store").symlink_to(outside / "store")
    (root / "cat" / "twice").symlink_to(outside / "store")
    (root / "dog" / "linked.jpg").symlink_to(outside / "more" / "0.jpg")
    (root / "dog" / "relinked.jpg").symlink_to(outside / "more" / "0.jpg")
    module = opened(root, max_corrupt=1)
    seen = [name for part in ("train", "val", "test") for name in names(getattr(module.splits, part))]
    expected = [f"cat/{i}.jpg" for i in range(4)] + [f"cat/store/{i}.jpg" for i in range(4)] + ["cat/round.jpg"]
    expected += [f"dog/{i}.jpg" for i in range(4)] + [f"dog/deep/{i}.jpg" for i in range(4)] + ["dog/linked.jpg"]
    hard = {"dog/1.jpg", "dog/hard.jpg"}
    assert sorted(set(seen) - hard) == sorted(set(expected) - hard)
    assert (len(seen), len(hard & set(seen))) == (len(expected), 1)
    for loader in (module.train_dataloader(), module.val_dataloader(), module.test_dataloader()):
        list(loader)
    assert {name for known in module.corrupt.values() for name in known.found} <= {"cat/round.jpg"}
    (root / "elk").symlink_to("cat")
    assert "are one folder and two classes" in refusal(lambda: opened(root).splits)


def test_a_dangling_link_is_a_corrupt_image(tmp_path):
    plant(tmp_path, "cat", "dog")
    (tmp_path / "cat" / "gone.jpg").symlink_to("nowhere.jpg")
    module = opened(tmp_path, max_corrupt=0)
    assert len(module.fingerprint) == 64
    loaders = (module.train_dataloader, module.val_dataloader, module.test_dataloader)
    line = refusal(lambda: [list(loader()) for loader in loaders])
    assert "cat/gone.jpg (No such file or directory)" in line


def test_hostile_entries(tmp_path, monkeypatch):
    """Nothing hangs, nothing is read that is no file; odd names, suffixes and depths are all right."""
    plant(tmp_path, "cat", "dog", suffix=".JPEG")
    os.mkfifo(tmp_path / "cat" / "pipe.jpg")
    (tmp_path / "cat" / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "cat" / "link.jpg").symlink_to("pipe.jpg")
    monkeypatch.chdir(tmp_path / "dog")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        (tmp_path / "dog" / "folder.jpg").mkdir()
        raw = os.fsencode(tmp_path / "cat")
        for name in (b"caf\xe9.jpg", b"new\nline.jpg", b"tab\t.jpg"):
            with open(os.path.join(raw, name), "wb") as file:
                file.write(jpeg(name[0], 12))
        deep = tmp_path / "dog" / "/".join(["d"] * 400)
        deep.mkdir(parents=True)
        (deep / "deep.jpg").write_bytes(jpeg(77, 12))
        (tmp_path / "dog" / "empty.jpg").touch()
        module = opened(tmp_path, max_corrupt=0.2)
        assert total(module) == 13
        assert len(module.fingerprint) == 64
        seen = sum(len(everything(loader())["index"]) for loader in (module.val_dataloader, module.test_dataloader))
        assert seen == 2
        list(module.train_dataloader())
    assert {name for known in module.corrupt.values() for name in known.found} <= {"dog/empty.jpg"}


def test_a_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    plant(tmp_path, "cat", "dog", "dog/locked")
    scandir = os.scandir

    def guarded(path):
        if os.fsencode(path).endswith(b"locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    line = refusal(lambda: opened(tmp_path).splits)
    assert line.endswith("dog/locked cannot be read as a folder (Permission denied)")


def test_one_class_and_flat_folders(tmp_path):
    line = refusal(lambda: opened(plant(tmp_path / "one", "cat")))
    assert "has one class, 'cat': a classifier needs two or more" in line
    assert opened(tmp_path / "one", pipeline="generation").num_classes == 1
    for place in (".", "train"):
        root = plant(tmp_path / f"flat {place}", place)
        line = refusal(lambda root=root: opened(root))
        assert "holds no class folders; expected there: CLASS/IMAGE, or a table labels.csv beside the images" in line


def table(path, *rows, header="file_name,label", encoding="utf-8"):
    path.write_bytes("\n".join([header, *rows, ""]).encode(encoding))


@pytest.mark.parametrize("file", ["labels.csv", "metadata.csv", "Labels.CSV"])
@pytest.mark.parametrize("where", ["root", "splits", "column", "whole"])
def test_tables_of_labels(tmp_path, file, where):
    for split in ("train", "validation", "test"):
        plant(tmp_path, split, count=6)
    rows = {split: [f"{i}.jpg,{'10' if i % 2 else '9'}" for i in range(6)] for split in ("train", "validation", "test")}
    if where == "splits":
        for split, own in rows.items():
            table(tmp_path / split / file, *own, encoding="utf-8-sig")
    elif where == "column":
        every = [f"{split}/{row},{split}" for split, own in rows.items() for row in own]
        table(tmp_path / file, *every, header="file_name,label,split")
    elif where == "root":
        table(tmp_path / file, *(f"{split}/{row}" for split, own in rows.items() for row in own))
    else:
        plant(tmp_path, ".", count=6)
        table(tmp_path / file, *rows["train"])
    module = opened(tmp_path)
    assert module.class_names == ("9", "10"), "numbers are sorted as such"
    if where == "whole":
        assert total(module) == 6
        assert all("/" not in name for name in names(module.splits.train))
        return
    assert [len(getattr(module.splits, role)) for role in ("train", "val", "test")] == [6, 6, 6]
    assert names(module.splits.val) == [f"validation/{i}.jpg" for i in range(6)]
    assert everything(module.val_dataloader())["label"].tolist() == [0, 1] * 3
    assert len(module.fingerprint) == 64


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("file_name,label", ["0.jpg,a", "nowhere.jpg,b"], "row 3: there is no file nowhere.jpg"),
        ("file_name,label", ["0.jpg,a", "1.jpg,b", "0.jpg,b"], "row 4: 0.jpg is in row 2 already"),
        ("file_name,label", ["0.jpg,a", "../1.jpg,b"], "row 3: file_name '../1.jpg' must be the path"),
        ("file_name,label", ["0.jpg,a", "/etc/passwd,b"], "row 3: file_name '/etc/passwd' must be the path"),
        ("file_name,label", ["0.jpg,a", ",b"], "row 3: file_name '' must be"),
        ("file_name,label", ["0.jpg,a", "1.jpg, "], "row 3: 1.jpg has no label"),
        ("file_name,label", ["0.jpg,a", "1.jpg"], "row 3: it has 1 fields, the first row 2"),
        ("file_name,label", ["0.jpg,a", '1.jpg,"b'], "row 3: unexpected end of data"),
        ("file_name,label", ["0.jpg,a", "1.jpg," + "b" * 200_000], "row 3: field larger than field limit"),
        ("file_name,label", [], "has no rows"),
        ("file_name,label", ["0.jpg,a", "1.jpg,a"], "has one class, 'a'"),
        ("file_name;label", ["0.jpg;a"], "row 1: it has the columns file_name;label; expected are"),
        ("file_name,breed", ["0.jpg,a"], "row 1: it has the columns file_name, breed; expected are"),
        ("file_name,label,class", ["0.jpg,a,b"], "row 1: it has the columns"),
        ("", [], "row 1: it has the columns none"),
    ],
)
def test_odd_tables_are_refused(tmp_path, header, rows, message):
    plant(tmp_path, ".")
    table(tmp_path / "labels.csv", *rows, header=header)
    assert message in refusal(lambda: opened(tmp_path))


def test_odd_files_of_tables_are_refused(tmp_path):
    plant(tmp_path, ".")
    table(tmp_path / "labels.csv", "0.jpg,caf\xe9", encoding="latin-1")
    assert "after row 1: it is not in UTF-8" in refusal(lambda: opened(tmp_path))
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\0\1")
    assert "row 1: it is not a table of comma-separated values in UTF-8" in refusal(lambda: opened(tmp_path))
    for name in ("labels.csv", "metadata.csv"):
        table(tmp_path / name, "0.jpg,a", "1.jpg,b")
    assert "holds labels.csv and metadata.csv: it is not clear" in refusal(lambda: opened(tmp_path))
    part = plant(tmp_path / "part", "train", "test")
    table(part / "train" / "labels.csv", "0.jpg,a", "1.jpg,b")
    assert "test has no table of labels as" in refusal(lambda: opened(part))
    table(part / "test" / "labels.csv", "0.jpg,a", "1.jpg,c")
    assert "label 'c' of test is not one of train" in refusal(lambda: opened(part))
    captions = plant(tmp_path / "captions", "cat", "dog")
    table(captions / "metadata.csv", "cat/0.jpg,a cat", header="file_name,text")
    assert opened(captions).class_names == ("cat", "dog")


def test_copies_in_two_splits_are_counted_and_told(tmp_path, caplog):
    root = plant(tmp_path / "tree", "train/a", "train/b", "val/a", "val/b", "test/a", "test/b")
    with caplog.at_level(logging.WARNING):
        assert opened(root).identical == {"images": 0, "examined": 16, "held_out": 16}
    assert not caplog.records
    content = (root / "train/a/0.jpg").read_bytes()
    (root / "test/b/copy.jpg").write_bytes(content)
    (root / "val/a/copy.jpg").write_bytes(content)
    (root / "val/a/other.jpg").write_bytes(content[:-9] + bytes(9))
    with caplog.at_level(logging.WARNING):
        assert opened(root).identical == {"images": 2, "examined": 19, "held_out": 19}
    (record,) = caplog.records
    assert record.getMessage() == (
        "2 of the 19 test and validation images are byte for byte in another split too, such as test/b/copy.jpg and "
        "train/a/0.jpg"
    )
    assert data.create("fashion_mnist_mini").identical is None
    shared = opened(root, splits={"train": "train", "val": "train", "test": "test"})
    assert shared.identical["images"] == 1, "a split that serves twice is no copy"


def test_looking_for_copies_costs_little(tmp_path, monkeypatch):
    """However many images there are: all of one size here, the worst case."""
    root = plant(tmp_path, "train/a", "train/b", "val/a", "val/b", count=6)
    for path in root.rglob("*.jpg"):
        content = path.read_bytes()
        path.write_bytes(content + bytes(2000 - len(content)))
    reads = []
    opening = walk.FolderStore.open
    monkeypatch.setattr(walk.FolderStore, "open", lambda *given: reads.append(given) or opening(*given))
    monkeypatch.setattr(identical, "PIECES", 10)
    counted = opened(root, val_size=2).identical
    assert (counted["images"], counted["held_out"]) == (0, 14)
    assert counted["examined"] < 14
    assert len(reads) <= 10 + 12
