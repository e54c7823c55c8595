"""Trajectories from files of The Well (arXiv 2412.00568), of the layout of its docs/data_format.md at d23fd1a.

A file has the groups `t0_fields`, `t1_fields` and `t2_fields` of scalars, vectors and tensors, each with an attribute
`field_names` and datasets (trajectories, times, rows, columns, …components), whose attributes `sample_varying`,
`time_varying` and `dim_varying` say which of the first four axes they have. `dimensions` names the axes of space.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.errors import InputError, check_choice

Field = npt.NDArray[np.float32]

FOLDERS = {"train": "train", "val": "valid", "test": "test"}
"""What a split is called on disk, below `data/`."""
GROUPS = ("t0_fields", "t1_fields", "t2_fields")
_SUFFIXES = (".hdf5", ".h5")


def library() -> Any:
    """The module `h5py`.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise InputError(
            f"files of The Well need h5py, which is not installed: pip install 'operator-zoo[well]' ({error})"
        ) from None


@dataclass(frozen=True)
class WellSplit:
    """Reads one split of a data set of two dimensions of space.

    Args:
        root: folder of the data set, which holds data/train, data/valid and data/test.
        split: train | val | test.

    Attributes:
        files: of the split, in the order of their names.
        counts: trajectories in each of them.
        fields: names of the fields that change in time; components of vectors and tensors have the names of their axes
            behind their own.
        constants: names of those that do not.
        grid: rows and columns.
        frames: times of a trajectory, at least.

    Raises:
        InputError: h5py is missing, there are no such files, or they are not of this layout.
    """

    root: Path
    split: str = "train"

    @cached_property
    def files(self) -> tuple[Path, ...]:
        folder = self.root / "data" / FOLDERS[check_choice("split", self.split, FOLDERS)]
        paths = sorted(path for path in folder.glob("*") if path.suffix in _SUFFIXES) if folder.is_dir() else []
        if not paths:
            raise InputError(f"{folder} has no files *.hdf5: give the folder of a data set of The Well")
        return tuple(paths)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        return tuple(self._read(path, lambda file: int(file.attrs["n_trajectories"])) for path in self.files)

    @property
    def fields(self) -> tuple[str, ...]:
        return self._layout[0]

    @property
    def constants(self) -> tuple[str, ...]:
        return self._layout[1]

    @property
    def grid(self) -> tuple[int, int]:
        return self._layout[2]

    @property
    def frames(self) -> int:
        return self._layout[3]

    def __len__(self) -> int:
        return sum(self.counts)

    def trajectory(self, index: int, frames: int | None = None) -> tuple[Field, Field]:
        """States (frames, C, rows, columns) and constant fields (K, rows, columns), in the order of the names.

        Args:
            index: of the trajectory in the split.
            frames: times to read; None reads all.

        Raises:
            InputError: a file that cannot be read, has too few times, or is not of this layout.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"trajectory {index} of {len(self)}")
        file, wanted = 0, frames or self.frames
        while index >= self.counts[file]:
            index, file = index - self.counts[file], file + 1
        changing, still = self._read(self.files[file], lambda opened: _fields(opened, index, wanted))
        states, constants = [values for _, values in changing], [values for _, values in still]
        if [name for name, _ in changing] != list(self.fields) or min(map(len, states)) < wanted:
            raise InputError(f"{self.files[file]} has other fields than {self.files[0]}, or fewer than {wanted} times")
        return np.stack(states, axis=1), np.stack(constants) if constants else np.zeros((0, *self.grid), np.float32)

    @cached_property
    def _layout(self) -> tuple[tuple[str, ...], tuple[str, ...], tuple[int, int], int]:
        frames, changing, still = self._read(self.files[0], lambda file: (_times(file), *_fields(file, 0, 1)))
        if not changing:
            raise InputError(f"{self.files[0]} has no field that changes in time")
        _, rows, columns = changing[0][1].shape
        return tuple(name for name, _ in changing), tuple(name for name, _ in still), (rows, columns), frames

    def _read(self, path: Path, read: Any) -> Any:
        h5py = library()
        try:
            with h5py.File(path, "r") as file:
                return read(file)
        except (OSError, KeyError) as error:
            raise InputError(f"{path} is not a file of The Well: {error}") from error


def _times(file: Any) -> int:
    return int(file["dimensions"]["time"].shape[-1])


def _fields(file: Any, index: int, frames: int) -> tuple[list[tuple[str, Field]], list[tuple[str, Field]]]:
    """Components with their names: those that change in time (times, rows, columns), those that do not (rows, columns).

    Args:
        file: that is open.
        index: of the trajectory in it.
        frames: times to read.
    """
    axes = [_text(axis) for axis in file["dimensions"].attrs["spatial_dims"]]
    if len(axes) != 2:
        raise InputError(f"{file.filename} has {len(axes)} dimensions of space: only files of two can be read")
    sizes = [len(file["dimensions"][axis]) for axis in axes]
    changing: list[tuple[str, Field]] = []
    still: list[tuple[str, Field]] = []
    for order, group in enumerate(GROUPS):
        if group not in file:
            continue
        for name in map(_text, file[group].attrs["field_names"]):
            dataset = file[group][name]
            in_time = bool(dataset.attrs["time_varying"])
            which = ((index,) if dataset.attrs["sample_varying"] else ()) + ((slice(frames),) if in_time else ())
            values = dataset[which]
            for axis, varies in enumerate(dataset.attrs["dim_varying"]):
                if not varies:
                    values = np.repeat(np.expand_dims(values, in_time + axis), sizes[axis], in_time + axis)
            kept = values.shape[: in_time + 2]
            components = np.moveaxis(values.reshape(*kept, -1), -1, 0).astype(np.float32)
            names = [name] if order == 0 else [f"{name}_{''.join(letters)}" for letters in _product(axes, order)]
            if len(names) != len(components):
                raise InputError(f"{file.filename}: {group}/{name} has {len(components)} components, not {len(names)}")
            (changing if in_time else still).extend(zip(names, components, strict=True))
    return changing, still


def _product(axes: list[str], order: int) -> list[tuple[str, ...]]:
    return [(axis,) for axis in axes] if order == 1 else [(first, second) for first in axes for second in axes]


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
