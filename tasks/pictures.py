"""Sheets of images and films of how they came about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from einops import rearrange
from PIL import Image

Index = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

EXAMPLES = 8
"""Images of a class in a sheet."""
ROWS = 10
"""Classes in a sheet."""
FRAMES = 20
"""Least number of steps in a film."""
GAP, SMALL = 1, 64


def sheet(images: Pixels, columns: int) -> Pixels:
    """Images (N, C, H, W) with C = 1 or 3, row by row on black, as one (height, width, 3)."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    page = np.zeros((rows, columns, height + GAP, width + GAP, 3), dtype=np.uint8)
    place = page.reshape(rows * columns, height + GAP, width + GAP, 3)
    place[:count, :height, :width] = images.transpose(0, 2, 3, 1) if channels == 3 else images[:, 0, :, :, None]
    return rearrange(page, "row column h w colour -> (row h) (column w) colour")


def enlarged(page: Pixels, side: int) -> Image.Image:
    """The page as a picture; images whose `side` is small are shown several times as large, pixel by pixel."""
    times = max(1, SMALL // side)
    picture = Image.fromarray(page)
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def write_sheet(path: Path, images: Pixels, labels: Index) -> None:
    """Write a PNG of the first `EXAMPLES` of `images` (N, C, H, W) of each of the first `ROWS` classes, one per row."""
    chosen = []
    for label in np.unique(labels)[:ROWS]:
        (own,) = np.nonzero(labels == label)
        row = np.zeros((EXAMPLES, *images.shape[1:]), dtype=np.uint8)
        row[: len(own[:EXAMPLES])] = images[own[:EXAMPLES]]
        chosen.append(row)
    enlarged(sheet(np.concatenate(chosen), EXAMPLES), images.shape[-1]).save(path)


def write_film(path: Path, frames: Sequence[Pixels]) -> None:
    """Write a GIF of `frames`, each (K, C, H, W) shown side by side; the last one stays for a while."""
    pages = [enlarged(sheet(frame, len(frame)), frame.shape[-1]) for frame in frames]
    durations = [80] * (len(pages) - 1) + [2000]
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=durations, loop=0)


def write_images(folder: Path, index: Index, labels: Index, images: Pixels) -> None:
    """Write a PNG of each image (N, C, H, W), named by its index and class."""
    for number, label, image in zip(index.tolist(), labels.tolist(), images, strict=True):
        pixels = image.transpose(1, 2, 0) if len(image) == 3 else image[0]
        Image.fromarray(pixels).save(folder / f"{number:05d}_class{label}.png")
