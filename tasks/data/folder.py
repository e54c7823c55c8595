"""Photographs in folders: ROOT/SPLIT/CLASS/…/IMAGE, or without splits ROOT/CLASS/…/IMAGE."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from operators.errors import InputError, nearest
from tasks.data import keyed, layout
from tasks.data.layout import Options
from tasks.data.splits import Source

EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".avif",
)  # fmt: skip
WHOLE = "."
"""The split that is the root itself."""


class FolderStore:
    """Image files below a root, by their relative names.

    The names lie in one array: a list of a million strings would be copied into every worker, object by object, as
    their reference counts change.
    """

    def __init__(self, root: Path, names: Sequence[bytes]) -> None:
        self._root = os.fsencode(root)
        self._text = np.frombuffer(b"".join(names), np.uint8)
        self._ends = np.cumsum([0, *map(len, names)])

    def open(self, position: int) -> BinaryIO:
        """The file; raises `OSError`."""
        return open(os.path.join(self._root, self._name(position)), "rb")

    def names(self, positions: keyed.Index) -> list[str]:
        """Relative to the root."""
        return [os.fsdecode(self._name(position)) for position in positions.tolist()]

    def sizes(self, positions: keyed.Index) -> npt.NDArray[np.int64]:
        """As the file system says, in bytes."""
        paths = (os.path.join(self._root, self._name(position)) for position in positions.tolist())
        return np.fromiter((os.stat(path).st_size for path in paths), np.int64, len(positions))

    def _name(self, position: int) -> bytes:
        return self._text[self._ends[position] : self._ends[position + 1]].tobytes()


@dataclass(frozen=True)
class FolderLayout:
    """Splits below `root`; `labels` gives the label of every class folder."""

    root: Path
    labels: Mapping[str, int]

    def load(self, split: str) -> tuple[FolderStore, npt.NDArray[np.int64]]:
        """All images of a split, sorted by class folder and name.

        Raises:
            InputError: a class folder without images.
        """
        names: list[bytes] = []
        labels: list[npt.NDArray[np.int64]] = []
        for name in class_folders(self.root, split):
            found = sorted(_images(self.root, split, name))
            if not found:
                kinds = ", ".join(EXTENSIONS)
                raise InputError(f"{self.root / split / name} holds no image ({kinds}): fill or remove the folder")
            names += found
            labels.append(np.full(len(found), self.labels[name], np.int64))
        return FolderStore(self.root, names), np.concatenate(labels)


def _images(root: Path, split: str, name: str) -> Iterator[bytes]:
    base = os.fsencode(root)
    for folder, _, files in os.walk(os.fsencode(root / split / name), followlinks=True):
        inside = os.path.relpath(folder, base)
        for file in files:
            if os.fsdecode(file).lower().endswith(EXTENSIONS) and not file.startswith(b"."):
                yield os.path.join(inside, file)


def folders(path: Path) -> list[str]:
    """Names of the folders in `path` that are not hidden, sorted.

    Raises:
        InputError: it is not a readable folder.
    """
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"data.root: {path} cannot be read as a folder ({error.strerror})") from error


def class_folders(root: Path, split: str) -> list[str]:
    """The classes of a split, sorted; raises `InputError` if there are none."""
    found = folders(root / split)
    if not found:
        raise InputError(f"{root / split} holds no class folders; expected there: CLASS/IMAGE")
    return found


def check_classes(root: Path, split: str, known: Mapping[str, int], what: str) -> None:
    """Raise `InputError` if a split has a class that is not `known`; `what` says what it is not."""
    for name in class_folders(root, split):
        if name not in known:
            raise InputError(f"{root / split / name} is not {what}{nearest(name, known)}")


def open_root(options: Options, name: str) -> Path:
    """The root as a path; raises `InputError` if it is not given."""
    if options.root is None:
        raise InputError(f"data={name} needs data.root=DIR, a folder with SPLIT/CLASS/IMAGE")
    return Path(options.root).expanduser()


def image_folder(options: Options) -> Source:
    """Any class-per-folder tree; the class folders of train, sorted, are the classes.

    On its own it takes `train` to train on; to test, `test`, else the validation split; to validate, the
    validation split unless that is the test. What is missing is carved from train. A root without any of them
    is one split of classes.

    Raises:
        InputError: no such tree, no such split, or a class that train does not have.
    """
    root = open_root(options, "image_folder")
    available = folders(root)
    val = next((n for n in layout.VALIDATION if n in available), None)
    test = "test" if "test" in available else val
    plain = not {"train", "test", *layout.VALIDATION} & set(available)
    default = {"train": WHOLE if plain else "train", "val": None if val == test else val, "test": test}
    roles = layout.choose(options, default, [*available, WHOLE], f"data.root={root}")
    train = roles["train"] or WHOLE
    names = class_folders(root, train)
    labels = {name: label for label, name in enumerate(names)}
    for split in {split for split in roles.values() if split is not None}:
        check_classes(root, split, labels, f"a class of {train}")
    return layout.source("image_folder", options, names, roles, FolderLayout(root, labels))
