"""CIFAR-10 (Krizhevsky, 2009) in Hugging Face's parquet layout, from a folder or from the Hub."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from operators.errors import InputError
from tasks.data import cache
from tasks.data.files import columns
from tasks.data.sources import hugging_face
from tasks.data.splits import Source, SplitImages

if TYPE_CHECKING:
    import pyarrow

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
HUB = "uoft-cs/cifar10"
_HINT = "expected there: {train,test}-NNNNN-of-NNNNN.parquet with the columns img and label"


def _shards(root: str, split: str) -> list[Path]:
    """All files of a split, in order; `InputError` if one is missing."""
    pattern = f"{split}-*-of-*.parquet"
    # the Hub keeps them one folder down, in plain_text/
    paths = sorted(Path(root).glob(pattern)) or sorted(Path(root).glob(f"*/{pattern}"))
    if not paths:
        raise InputError(f"data.root={root} has no {split} split of CIFAR-10; {_HINT}")
    total = paths[0].stem.rpartition("-")[2]
    if not total.isdecimal() or len(paths) != int(total):
        raise InputError(f"data.root={root} has {len(paths)} of {total} {split} files of CIFAR-10; {_HINT}")
    return paths


def require(root: str | None) -> None:
    """Raise `InputError` if the folder the user named lacks a file of either split."""
    if root is not None:
        for split in ("train", "test"):
            _shards(root, split)


def decode(table: pyarrow.Table, origin: str) -> SplitImages:
    """Decode a table with the columns `img` (struct with `bytes`) and `label`.

    Decoding all 60,000 images takes five to ten seconds, so the result is kept, see `tasks.data.cache`.

    Raises:
        InputError: other columns or classes, or an image that cannot be decoded, named by `origin` and row.
    """
    import pyarrow.compute

    if not {"img", "label"} <= set(table.column_names):
        raise InputError(
            f"{origin} has the columns {', '.join(table.column_names)}; CIFAR-10 has img, label: for others take "
            "data=parquet, with data.image_column and data.label_column"
        )
    if not pyarrow.types.is_struct(table["img"].type) or table["img"].type.get_field_index("bytes") < 0:
        raise InputError(f"{origin} has a column img of type {table['img'].type}; expected: struct<bytes, path>")
    kind = table["img"].type.field("bytes").type
    if not (pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)):
        raise InputError(f"{origin} has a column img with bytes of type {kind}; expected: binary")
    try:
        metadata = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    except ValueError as error:
        raise InputError(f"{origin}: its metadata is damaged ({error})") from error
    names = columns.class_names(metadata, origin)
    if names is not None and tuple(names) != CLASS_NAMES:
        raise InputError(f"{origin} has the classes {', '.join(names)}; CIFAR-10 has {', '.join(CLASS_NAMES)}")
    known = {name: label for label, name in enumerate(CLASS_NAMES)}
    labels = columns.labels(table["label"], known, len(CLASS_NAMES), origin)
    encoded = pyarrow.compute.struct_field(table["img"], "bytes").to_pylist()

    def decode_rows(rows: range) -> npt.NDArray[np.uint8]:
        return np.stack([_decode_one(encoded[row], f"{origin}, row {row}") for row in rows])

    def decode_all() -> npt.NDArray[np.uint8]:
        # chunks, because a thread pool's work on a single small image would double the time
        chunks = [range(len(encoded))[first : first + 500] for first in range(0, len(encoded), 500)]
        with ThreadPoolExecutor() as pool:
            return np.concatenate(list(pool.map(decode_rows, chunks)))

    shape = (len(encoded), 3, 32, 32)
    return SplitImages(cache.decoded("cifar10", [e or b"" for e in encoded], shape, decode_all), labels)


def _decode_one(encoded: bytes, where: str) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, TypeError, ValueError) as error:
        raise InputError(f"{where}: the image cannot be decoded") from error
    if pixels.shape != (32, 32, 3):
        raise InputError(f"{where}: the image has {pixels.shape[0]}×{pixels.shape[1]} pixels, not 32×32")
    return pixels.transpose(2, 0, 1)


def _read(path: Path) -> pyarrow.Table:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path} cannot be read as parquet: {str(error).splitlines()[0]}") from error


def _from_hub(split: str) -> pyarrow.Table:
    datasets = hugging_face.library()
    try:
        data = datasets.load_dataset(HUB, split=split)
    except (OSError, datasets.exceptions.DatasetsError) as error:
        hint = "download its parquet files into a folder and give data.root=FOLDER"
        raise InputError(f"cannot load {HUB} from the Hugging Face Hub ({error}); {hint}") from error
    return data.cast_column("img", datasets.Image(decode=False)).with_format("arrow")[:]


def load(root: str | None) -> dict[str, SplitImages]:
    """Train and test split from the parquet files below `root`, else from the Hub (or its local cache)."""
    loaded = {}
    for split in ("train", "test"):
        if root is None:
            parts = [decode(_from_hub(split), f"{HUB}, {split}")]
        else:
            parts = [decode(_read(path), str(path)) for path in _shards(root, split)]
        loaded[split] = SplitImages(
            np.concatenate([part.images for part in parts]), np.concatenate([part.labels for part in parts])
        )
    return loaded


CIFAR10 = Source(
    name="cifar10",
    class_names=CLASS_NAMES,
    shape=(3, 32, 32),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    val_size=5000,
    require=require,
    load=load,
)
