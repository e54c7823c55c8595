"""The labels in parquet files: numbers of classes or their names, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from operators.errors import InputError, nearest

if TYPE_CHECKING:
    import pyarrow


def labels(column: pyarrow.ChunkedArray, names: Mapping[str, int], count: int, where: str) -> npt.NDArray[np.int64]:
    """The labels int64 (N,), as the file numbers them.

    Args:
        column: integers, whole numbers of another type, or words: of `names`, or such numbers.
        names: the label of every class name.
        count: of classes.
        where: names the file.

    Raises:
        InputError: no rows, a row without a label (with its number, from 0), another type, or another class.
    """
    import pyarrow
    import pyarrow.compute

    if len(column) == 0:
        raise InputError(f"{where} has no rows: it cannot be used")
    if column.null_count:
        row = int(pyarrow.compute.index(pyarrow.compute.is_null(column), value=True).as_py())
        raise InputError(f"{where}, row {row}: there is no label")
    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        column = pyarrow.compute.cast(column, kind.value_type)
        kind = column.type
    if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
        column = _numbered(column, names, count, where)
    expected = f"expected are integers, 0 … {count - 1}, or names of classes"
    try:
        numbers = column.cast(pyarrow.int64()) if _is_number(column.type) else None
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{where} has a label that is no whole number ({error}); {expected}") from error
    if numbers is None:
        raise InputError(f"{where} has labels of type {kind}; {expected}")
    values = numbers.to_numpy().astype(np.int64)
    if not 0 <= values.min() <= values.max() < count:
        row = int(np.flatnonzero((values < 0) | (values >= count))[0])
        raise InputError(f"{where} has labels outside 0 … {count - 1}: {values[row]} in row {row}")
    return values


def class_names(features: object, where: str, column: str = "label") -> list[str] | None:
    """The names that a file's metadata lists for the column of labels; None where it lists none.

    Args:
        features: of Hugging Face's metadata, which anybody can write.
        where: names the file.
        column: of the labels.

    Raises:
        InputError: they are no list of words.
    """
    for key in ("info", "features", column):
        features = features.get(key) if isinstance(features, Mapping) else None
    names = features.get("names") if isinstance(features, Mapping) else None
    if names is None:
        return None
    if not isinstance(names, Sequence) or isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where}: its metadata lists no names of classes but {str(names)[:80]!r}")
    return list(names)


def _numbered(column: Any, names: Mapping[str, int], count: int, where: str) -> Any:
    import pyarrow
    import pyarrow.compute

    words = pyarrow.compute.unique(column).to_pylist()
    if all(word.isascii() and word.isdigit() for word in words):
        return pyarrow.compute.cast(column, pyarrow.int64())
    for word in words:
        if word not in names:
            raise InputError(
                f"{where} has the label {word[:80]!r}, which is no class{nearest(word, names)}; expected are integers, "
                f"0 … {count - 1}, or names of classes, such as {next(iter(names))!r}"
            )
    numbers = pyarrow.array([names[word] for word in words], pyarrow.int64())
    return numbers.take(pyarrow.compute.index_in(column, pyarrow.array(words, column.type)).combine_chunks())


def _is_number(kind: pyarrow.DataType) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_decimal(kind))
