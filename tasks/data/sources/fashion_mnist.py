"""Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv 1708.07747; MIT licence, Zalando SE), in full and embedded."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

from operators.errors import InputError
from tasks.data.cache import cache_dir
from tasks.data.splits import Source, SplitImages, Splits

CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""Of the unpacked files: gzip headers differ between distributors."""
_LARGEST = 16 + 60_000 * 28 * 28
"""Bytes of the largest of them."""
URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
MINI = Path(__file__).with_name("fashion_mnist_mini.npz")
MINI_FINGERPRINT = "ab9e0b6ed8cced063ed278d17aa34817d1cf28d0c43ac9d3539731c8e45d9cd2"


def _find(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def read_file(path: Path) -> bytes:
    """The unpacked content of one of the four files, gzipped or not.

    Raises:
        InputError: unreadable, truncated, or not the file of that name in Fashion-MNIST.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(_LARGEST + 1)  # whatever a file of that name unpacks to
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != SHA256[path.name.removesuffix(".gz")]:
        raise InputError(f"{path} is not Fashion-MNIST's: its SHA-256 differs; remove or replace it")
    return content


def _images(folder: Path, prefix: str) -> SplitImages:
    paths = [_find(folder, name) for name in SHA256 if name.startswith(prefix)]
    images, labels = (read_file(path) for path in paths if path is not None)
    # IDX: a header of 16 and 8 bytes; the checksum has vouched for its content
    return SplitImages(
        np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28).copy(),
        np.frombuffer(labels, np.uint8, offset=8).astype(np.int64),
    )


def require(root: str | None) -> None:
    """Raise `InputError` if the folder the user named lacks any of the four files."""
    if root is None:
        return
    missing = [name for name in SHA256 if _find(Path(root), name) is None]
    if missing:
        listed = ", ".join(missing)
        raise InputError(f"data.root={root} lacks {listed}; expected there: Fashion-MNIST's IDX files, plain or .gz")


def download(folder: Path) -> None:
    """Fetch the files that `folder` lacks; each appears under its name only when complete and verified.

    Raises:
        InputError: no connection, or a truncated or wrong file.
    """
    import http.client
    import urllib.request

    folder.mkdir(parents=True, exist_ok=True)
    for name in SHA256:
        if _find(folder, name) is not None:
            continue
        url = f"{URL}/{name}.gz"
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            target = Path(temporary) / f"{name}.gz"
            try:
                with urllib.request.urlopen(url, timeout=60) as response, target.open("wb") as file:
                    shutil.copyfileobj(response, file)
            except (OSError, http.client.HTTPException) as error:
                hint = "put the four files into a folder and give data.root=FOLDER"
                raise InputError(f"cannot download {url} ({error}); {hint}") from error
            try:
                read_file(target)
            except InputError as error:
                raise InputError(f"the download of {url} is truncated or altered; try again") from error
            target.replace(folder / target.name)


def load(root: str | None) -> dict[str, SplitImages]:
    """Train and test split from `root`, else from Debian's package, else from the cache, downloading if need be."""
    if root is not None:
        folder = Path(root)
    elif all(_find(DEBIAN, name) for name in SHA256):
        folder = DEBIAN
    else:
        folder = cache_dir("fashion-mnist")
        download(folder)
    return {"train": _images(folder, "train"), "test": _images(folder, "t10k")}


def refuse_root(root: str | None) -> None:
    """Raise `InputError` if a root is given: the embedded data set has none."""
    if root is not None:
        raise InputError(f"data.root={root} is refused: fashion_mnist_mini is embedded; data=fashion_mnist has a root")


def load_mini(root: str | None) -> dict[str, SplitImages]:
    """The three splits of the embedded file, verified.

    Raises:
        InputError: the installed file is damaged.
    """
    try:
        with MINI.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            loaded = {
                split: SplitImages(file[f"{split}_images"][:, None], file[f"{split}_labels"].astype(np.int64))
                for split in ("train", "val", "test")
            }
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{MINI} cannot be read ({error}); reinstall the package") from error
    if Splits(**loaded).fingerprint() != MINI_FINGERPRINT:
        raise InputError(f"{MINI} is damaged: its checksum differs; reinstall the package")
    return loaded


FASHION_MNIST = Source(
    name="fashion_mnist",
    class_names=CLASS_NAMES,
    shape=(1, 28, 28),
    mean=(0.2860,),
    std=(0.3530,),
    val_size=5000,
    require=require,
    load=load,
)
FASHION_MNIST_MINI = Source(
    name="fashion_mnist_mini",
    class_names=CLASS_NAMES,
    shape=(1, 28, 28),
    mean=(0.2860,),
    std=(0.3530,),
    val_size=None,
    require=refuse_root,
    load=load_mini,
)
