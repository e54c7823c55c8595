from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from tasks import data
from tests.tasks.data.photographs import create, jpeg, refusal

WORDS = ("cat", "dog", "eel")


def rows(count: int, first: int = 0) -> tuple[list[bytes], list[int]]:
    """Images of three classes in turn."""
    return [jpeg(first + number) for number in range(count)], [number % 3 for number in range(count)]


def write(path: Path, columns: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.table(columns), path)
    return path


def made(root: Path, **params: Any) -> Any:
    return create(root, "parquet", **{"val_size": None, **params})


def pixels(split: Any, index: int) -> np.ndarray:
    return split.fetch(0, np.zeros(1, np.int64), np.array([index]), data.Augment()).pixels[0]


def centre(encoded: bytes) -> np.ndarray:
    """The centre of a photograph of one colour field after another, at 16 pixels; loosely."""
    with Image.open(io.BytesIO(encoded)) as image:
        width, height = image.size
        side = round(height * 0.875)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
        return np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BICUBIC, box)).transpose(2, 0, 1)


@pytest.mark.parametrize("struct", [True, False])
@pytest.mark.parametrize("kind", ["numbers", "text", "dictionary", "odd numbers"])
def test_any_columns_of_any_type_are_read(struct: bool, kind: str, tmp_path: Path) -> None:
    images, numbers = rows(12)
    picture = [{"bytes": encoded, "path": f"{i}.jpg"} for i, encoded in enumerate(images)] if struct else images
    label: Any = {
        "numbers": numbers,
        "odd numbers": [(-5, 3, 20)[number] for number in numbers],
        "text": [WORDS[number] for number in numbers],
        "dictionary": pa.array([WORDS[number] for number in numbers]).dictionary_encode(),
    }[kind]
    path = write(tmp_path / "all.parquet", {"id": list(range(12)), "photo": picture, "kind": label})
    found = made(path, image_column="photo", label_column="kind", splits={"train": ".", "val": ".", "test": "."})
    names = {"numbers": "012", "odd numbers": ("-5", "3", "20")}.get(kind, WORDS)
    assert list(found.class_names) == list(names)
    assert found.splits.train.labels.tolist() == numbers
    for index in (0, 7):
        difference = np.abs(pixels(found.splits.train, index).astype(int) - centre(images[index]).astype(int))
        assert difference.mean() < 6  # another image differs by tens
    assert len(next(iter(found.train_dataloader()))["label"]) == 6


def test_hugging_face_metadata_names_the_classes(tmp_path: Path) -> None:
    images, numbers = rows(9)
    features = datasets.Features({"img": datasets.Image(), "fine": datasets.ClassLabel(names=["z", "y", "x", "w"])})
    columns = {"img": [{"bytes": encoded, "path": None} for encoded in images], "fine": numbers}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(tmp_path / "train.parquet"))
    found = made(tmp_path, image_column="img", label_column="fine", val_size=3)
    assert found.class_names == ("z", "y", "x", "w")
    parts = [split.labels.tolist() for split in (found.splits.train, found.splits.val, found.splits.test)]
    assert sorted(label for part in parts for label in part) == sorted(numbers)


@pytest.mark.parametrize(
    "names",
    [
        ("train-00000-of-00001.parquet", "validation-00000-of-00001.parquet", "test-00000-of-00001.parquet"),
        ("train/a.parquet", "val/a.parquet", "test/a.parquet"),
        ("Training.parquet", "dev.parquet", "testing.parquet"),
    ],
)
def test_names_of_files_say_the_split(names: tuple[str, ...], tmp_path: Path) -> None:
    for number, name in enumerate(names):
        images, numbers = rows(6 + 3 * number, first=100 * number)
        write(tmp_path / name, {"image": images, "label": numbers})
    found = made(tmp_path)
    assert [len(split) for split in (found.splits.train, found.splits.val, found.splits.test)] == [6, 9, 12]


def test_values_of_a_column_say_the_split(tmp_path: Path) -> None:
    images, numbers = rows(24)
    where = ["train", "holdout"] * 6 + ["train"] * 12
    for part in range(2):
        half = slice(12 * part, 12 * part + 12)
        write(tmp_path / f"{part}.parquet", {"image": images[half], "label": numbers[half], "fold": where[half]})
    found = made(tmp_path, split_column="fold", splits={"test": "holdout"}, val_size=3)
    held = [number for number, fold in zip(numbers, where, strict=True) if fold == "holdout"]
    assert found.splits.test.labels.tolist() == held
    assert len(found.splits.train) + len(found.splits.val) == 18
    for index, position in enumerate((1, 3, 5)):
        expected = centre(images[position]).astype(int)
        assert np.abs(pixels(found.splits.test, index).astype(int) - expected).mean() < 6


def test_files_and_patterns_say_the_split(tmp_path: Path) -> None:
    for number in range(4):
        images, numbers = rows(6, first=10 * number)
        write(tmp_path / f"part-{number}.parquet", {"image": images, "label": numbers})
    found = made(tmp_path, splits={"train": "part-[01].parquet", "val": "part-2", "test": "part-3.parquet"})
    assert [len(split) for split in (found.splits.train, found.splits.val, found.splits.test)] == [12, 6, 6]
    pattern = made(tmp_path / "part-[012].parquet", val_size=3)
    assert sum(len(split) for split in (pattern.splits.train, pattern.splits.val, pattern.splits.test)) == 18


def test_rows_of_one_file_are_carved_and_have_a_fingerprint(tmp_path: Path) -> None:
    images, numbers = rows(18)
    path = write(tmp_path / "all.parquet", {"image": images, "label": numbers})
    one, two = made(path, val_size=3), made(path, val_size=3, subset=0.5)
    assert [len(split) for split in (one.splits.train, one.splits.val, one.splits.test)] == [12, 3, 3]
    assert len(two.splits.train) == 6
    assert one.fingerprint != two.fingerprint
    assert one.fingerprint == made(path, val_size=3).fingerprint


def table(**changes: Any) -> dict[str, Any]:
    images, numbers = rows(6)
    return {"image": images, "label": numbers, **changes}


@pytest.mark.parametrize(
    ("columns", "params", "said"),
    [
        ({"img": rows(3)[0], "label": [0, 1, 2]}, {}, ["no column 'image'", "img (binary)", "data.image_column=img"]),
        ({"image": rows(3)[0], "kind": [0, 1, 2]}, {}, ["no column 'label'", "data.label_column=kind"]),
        (table(kind=list("abcabc")), {"label_column": "kin"}, ["no column 'kin'", "data.label_column=NAME"]),
        (
            table(),
            {"image_column": "label", "label_column": "label"},
            ["'label' is of type int64", "image_column=image"],
        ),
        (table(label=[1.5] * 6), {}, ["'label' is of type double", "integers or text"]),
        (table(), {"split_column": "fold"}, ["no column 'fold'", "data.split_column=NAME"]),
        (table(label=[0, 1, None] * 2), {}, ["row 2", "there is no label"]),
        (table(label=[3] * 6), {}, ["one class"]),
        (table(fold=["a"] * 6), {"split_column": "fold", "splits": {"train": "b"}}, ["'b' is not in", "a"]),
        (table(fold=list("aabbcc")), {"split_column": "fold"}, ["no split but a, b, c", "data.splits.train=a"]),
        (table(fold=["train", "spare"] * 3), {"split_column": "fold"}, ["beside others (spare)", "splits.train=train"]),
        (table(), {"splits": {"train": "nothing-*.parquet"}}, ["nothing-*.parquet", "is not in"]),
    ],
)
def test_what_cannot_be_is_said_in_one_line(columns: Any, params: Any, said: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "data.parquet", columns)
    message = refusal(lambda: made(path, **params).splits)
    assert all(part in message for part in said), message


def test_label_that_train_does_not_have_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", table(label=["cat", "dog"] * 3))
    write(tmp_path / "test.parquet", table(label=["cat", "dgo"] * 3))
    message = refusal(lambda: made(tmp_path, val_size=2).splits)
    assert "'dgo' is not one of train" in message
    assert "did you mean dog" in message.replace("'", "")


@pytest.mark.parametrize("root", ["nothing.parquet", "*.parquet", ""])
def test_root_without_files_is_refused_before_anything_is_read(root: str, tmp_path: Path) -> None:
    message = refusal(lambda: data.check("parquet", root=str(tmp_path / root)))
    assert "data.root" in message
    assert "needs data.root=PATH" in refusal(lambda: data.create("parquet"))


def test_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("no table")
    assert "cannot be read as parquet" in refusal(lambda: made(tmp_path))


def test_files_that_name_other_classes_or_no_split_are_not_guessed_at(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", table())
    write(tmp_path / "spare.parquet", table())
    message = refusal(lambda: made(tmp_path))
    assert "beside others (spare)" in message
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    images, numbers = rows(6)
    columns = {"image": [{"bytes": encoded, "path": None} for encoded in images], "label": numbers}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(tmp_path / "test.parquet"))
    (tmp_path / "spare.parquet").unlink()
    assert "names other classes" in refusal(lambda: made(tmp_path))
