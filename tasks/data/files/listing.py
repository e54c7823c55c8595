"""Labels in a table beside the images: `labels.csv` or `metadata.csv`, as Hugging Face's image folders have them.

The table lies in the root or in the folder of each split. Its columns are `file_name`, relative to the table, and
`label`. In the root, the split of an image is the column `split` if there is one, else the first folder of its name if
that is called as a split, else the root as a whole.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from operators.errors import InputError
from tasks.data.files import walk
from tasks.data.files.layout import role_of

TABLES = ("labels.csv", "metadata.csv")
_FILE, _SPLIT = "file_name", "split"
_LABEL = ("label", "labels", "class", "class_name", "category")
WHOLE = "."


@dataclass(frozen=True)
class Rows:
    """Of one split: image names relative to the root, sorted, and the label of each in words."""

    names: Sequence[bytes]
    labels: Sequence[str]


def table(folder: Path) -> Path | None:
    """The table in `folder`; None where there is none, or where folders are the classes and it has no labels.

    Raises:
        InputError: there are two, or it cannot be read.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.name.lower() in TABLES and path.is_file())
    except OSError as error:
        raise InputError(f"data.root: {folder} cannot be read as a folder ({error.strerror})") from error
    labelled = [path for path in paths if _label_column(path, optional=bool(walk.folders(folder))) is not None]
    if len(labelled) > 1:
        listed = " and ".join(path.name for path in labelled)
        raise InputError(f"{folder} holds {listed}: it is not clear which of them has the labels; remove one")
    return labelled[0] if labelled else None


def read(path: Path, root: Path, split: str | None) -> dict[str, Rows]:
    """The rows of a table by split; all of them belong to `split` unless that is None.

    Raises:
        InputError: a row that cannot be understood or has no image, with its number.
    """
    label, inside = _label_column(path), os.path.relpath(path.parent, root)
    assert label is not None
    seen: dict[str, int] = {}
    rows: dict[str, list[tuple[bytes, str]]] = {}
    for number, row in _rows(path):
        where = f"{path}, row {number}"
        name = (row[_FILE] or "").strip()
        named = PurePosixPath(name)
        if not name or named.is_absolute() or ".." in named.parts or "\0" in name:
            raise InputError(f"{where}: file_name {name!r} must be the path of an image in the table's folder")
        if not (row[label] or "").strip():
            raise InputError(f"{where}: {name} has no {label}")
        if str(named) in seen:
            raise InputError(f"{where}: {name} is in row {seen[str(named)]} already")
        seen[str(named)] = number
        if not (path.parent / named).is_file():
            raise InputError(f"{where}: there is no file {name} in {path.parent}")
        place = split if split is not None else _place(row, named, where)
        full = os.path.normpath(os.path.join(os.fsencode(inside), os.fsencode(str(named))))
        rows.setdefault(place, []).append((full, row[label].strip()))
    if not rows:
        raise InputError(f"{path} has no rows: expected are {_FILE} and {label} of each image")
    if WHOLE in rows and len(rows) > 1:
        others = ", ".join(sorted(place for place in rows if place != WHOLE))
        first = os.fsdecode(rows[WHOLE][0][0])
        raise InputError(f"{path} lists images of the splits {others} and others, such as {first}, that are of none")
    return {place: Rows(*zip(*sorted(pairs), strict=True)) for place, pairs in rows.items()}


def classes(rows: Rows) -> list[str]:
    """The labels, sorted: whole numbers as numbers, all else as words."""
    names = sorted(set(rows.labels))
    if all(name.isascii() and name.isdigit() for name in names):
        names.sort(key=int)
    return names


@dataclass(frozen=True)
class TableLayout:
    """Splits as tables list them; `labels` gives the label of every class."""

    root: Path
    rows: Mapping[str, Rows]
    labels: Mapping[str, int]

    def load(self, split: str) -> tuple[walk.FolderStore, npt.NDArray[np.int64]]:
        """All images of a split, sorted by name."""
        rows = self.rows[split]
        labels = np.array([self.labels[label] for label in rows.labels], np.int64)
        return walk.FolderStore(self.root, rows.names), labels


def _place(row: Mapping[str, str], named: PurePosixPath, where: str) -> str:
    if _SPLIT in row:
        if not (row[_SPLIT] or "").strip():
            raise InputError(f"{where}: {named} has no {_SPLIT}")
        return row[_SPLIT].strip()
    first = named.parts[0]
    return first if len(named.parts) > 1 and role_of(first) is not None else WHOLE


def _label_column(path: Path, *, optional: bool = False) -> str | None:
    try:
        with path.open("rb") as file:
            start = file.readline(1 << 16)
        header = next(csv.reader([start.decode("utf-8-sig")], strict=True), [])
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}, row 1: it is not a table of comma-separated values in UTF-8 ({error})") from error
    columns = [name for name in header if name in _LABEL]
    if len(columns) == 1 and header.count(_FILE) == 1:
        return columns[0]
    if optional and not columns:
        return None
    raise InputError(
        f"{path}, row 1: it has the columns {', '.join(header)[:200] or 'none'}; expected are, separated by commas, "
        f"{_FILE} and one of {', '.join(_LABEL)}"
    )


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Number (of its last line in the file, from 1) and content of every row below the header."""
    number = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader)
            for values in reader:
                number = reader.line_num
                if not values:
                    continue
                if len(values) != len(header):
                    raise InputError(f"{path}, row {number}: it has {len(values)} fields, the first row {len(header)}")
                yield number, dict(zip(header, values, strict=True))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, after row {number}: it is not in UTF-8 ({error.reason})") from error
    except csv.Error as error:
        raise InputError(f"{path}, row {reader.line_num}: {error}") from error
