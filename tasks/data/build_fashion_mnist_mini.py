"""Builds the embedded data set: `python -m tasks.data.build_fashion_mnist_mini [--root DIR]`.

10,000 train and 2,000 validation images from Fashion-MNIST's train split and 2,000 test images from its test split,
every class equally often, in the order of their original indices. The choice is fixed, so a rebuild gives the same
arrays; the compressed bytes depend on the version of zlib.
"""

from __future__ import annotations

from operators.command_line import begin

if __name__ == "__main__":
    begin()  # before torch is imported

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.data.sources import fashion_mnist
from tasks.data.splits import SplitImages, Splits, stratified

ABOUT = {
    "name": "fashion_mnist_mini",
    "source": "Fashion-MNIST, https://github.com/zalandoresearch/fashion-mnist",
    "citation": "H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST, arXiv 1708.07747, 2017",
    "licence": "MIT, Copyright (c) 2017 Zalando SE, https://tech.zalando.com",
    "source_sha256": fashion_mnist.SHA256,
    "built_by": "python -m tasks.data.build_fashion_mnist_mini",
}


def build(root: str | None) -> dict[str, npt.NDArray[np.generic]]:
    """The arrays of the embedded file, from a Fashion-MNIST `root` as `fashion_mnist` takes it.

    Returns:
        For each of train, val and test: `<split>_images` uint8 (N, 28, 28), `<split>_labels` uint8 (N,),
        `<split>_index` int32 (N,), the position in the original split; and `about`, JSON text.
    """
    full = fashion_mnist.load(root)
    chosen, _ = stratified(full["train"].labels, 12_000, "mini/train+val")
    val, train = stratified(full["train"].labels[chosen], 2_000, "mini/val")
    test, _ = stratified(full["test"].labels, 2_000, "mini/test")
    parts: list[tuple[str, SplitImages, npt.NDArray[np.int64]]] = [
        ("train", full["train"], chosen[train]),
        ("val", full["train"], chosen[val]),
        ("test", full["test"], test),
    ]
    arrays: dict[str, npt.NDArray[np.generic]] = {"about": np.array(json.dumps(ABOUT))}
    for name, split, index in parts:
        arrays[f"{name}_images"] = split.images[index, 0]
        arrays[f"{name}_labels"] = split.labels[index].astype(np.uint8)
        arrays[f"{name}_index"] = index.astype(np.int32)
    return arrays


def fingerprint(arrays: dict[str, npt.NDArray[np.generic]]) -> str:
    """What `fashion_mnist.MINI_FINGERPRINT` has to be for these arrays."""
    splits = [
        SplitImages(arrays[f"{name}_images"].astype(np.uint8)[:, None], arrays[f"{name}_labels"].astype(np.int64))
        for name in ("train", "val", "test")
    ]
    return Splits(*splits).fingerprint()


def main() -> None:
    """Write the embedded file and say what its fingerprint is."""
    parser = argparse.ArgumentParser(description="Build the embedded Fashion-MNIST subset.")
    parser.add_argument("--root", help="folder with Fashion-MNIST's four IDX files")
    parser.add_argument("--out", type=Path, default=fashion_mnist.MINI, help="file to write")
    arguments = parser.parse_args()
    arrays = build(arguments.root)
    np.savez_compressed(arguments.out, **arrays)  # type: ignore[arg-type]
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes, fingerprint {fingerprint(arrays)}")  # noqa: T201


if __name__ == "__main__":
    main()
