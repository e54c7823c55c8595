"""Which classes a classifier mistakes for which: counts, accuracy by class, and a picture."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Counts = npt.NDArray[np.int64]

SIDE, MOST_CELL = 960, 56
"""Pixels: of a picture of many classes, and of a cell where there are few."""
NAMED, NUMBERED = 14, 36
"""Smallest cells, in pixels, that have names beside them, and numbers in them."""
LONGEST_NAME = 24
FONT, GAP = 13, 10
"""Height of letters and space around them, in pixels."""
TICKS = 10
"""Numbers along an axis without names, at least."""
BLUES = ((255, 255, 255), (198, 219, 239), (107, 174, 214), (33, 113, 181), (8, 48, 107))
"""From none to all: one hue that darkens steadily, which every kind of colour vision and grey print keep in order."""
SCALE = (0.0, 0.01, 0.1, 0.25, 0.5, 1.0)
"""Shares in the legend. Colours follow the square root, which shows the rare mistakes."""


def count(label: npt.NDArray[Any], predicted: npt.NDArray[Any], classes: int) -> Counts:
    """How many images of each class (row) were taken for each class (column)."""
    pairs = label.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def write(folder: Path, names: Sequence[str], counts: Counts) -> None:
    """Write `confusion.csv` (the counts), `classes.csv` (a row for each class) and `confusion.png` into `folder`."""
    _write_rows(folder / "confusion.csv", [["true class \\ predicted", *names], *_named_rows(names, counts.tolist())])
    header = ["class", "images", "accuracy", "mistaken_for", "share"]
    _write_rows(folder / "classes.csv", [header, *by_class(names, counts)])
    draw(names, counts).save(folder / "confusion.png")


def by_class(names: Sequence[str], counts: Counts) -> list[list[Any]]:
    """For each class: name, images, accuracy, the class that it is most often mistaken for, and how often (shares).

    What does not exist, for want of images or of mistakes, is an empty text.
    """
    rows: list[list[Any]] = []
    for number, (name, row) in enumerate(zip(names, counts, strict=True)):
        total, wrong = int(row.sum()), np.where(np.arange(len(row)) == number, 0, row)
        rival = int(wrong.argmax())
        accuracy = row[number] / total if total else ""
        rows.append([name, total, accuracy, *((names[rival], wrong[rival] / total) if wrong[rival] else ("", ""))])
    return rows


def draw(names: Sequence[str], counts: Counts) -> Image.Image:
    """The matrix as shares of each row; cells are named and numbered where there is room."""
    classes = len(names)
    cell = min(MOST_CELL, max(1, SIDE // classes))
    font = ImageFont.load_default(FONT)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    labels = _labels(names, cell)
    left = top = GAP + max(round(font.getlength(text)) for text in labels.values()) + 2 * FONT
    side = classes * cell
    title = "columns: predicted class, rows: true class, per cent of the row"
    summary = f"{counts.sum():,} images, {np.trace(counts) / counts.sum():.2%} right"
    width = max(side, round(font.getlength(title)), round(font.getlength(summary)))
    page = Image.new("RGB", (left + width + GAP, top + side + 4 * FONT + GAP), "white")
    pixels = np.kron(_coloured(shares), np.ones((cell, cell, 1), np.uint8))
    page.paste(Image.fromarray(pixels), (left, top))
    pen = ImageDraw.Draw(page)
    pen.rectangle((left - 1, top - 1, left + side, top + side), outline="black")
    for number, text in labels.items():
        middle = round((number + 0.5) * cell)
        pen.text((left - GAP // 2, top + middle), text, "black", font, anchor="rm")
        _write_upright(page, (left + middle, top - GAP // 2), text, font)
    if cell >= NUMBERED:
        for row, column in np.argwhere(counts):
            share = shares[row, column]
            colour = "white" if share > 0.3 else "black"
            at = (left + round((column + 0.5) * cell), top + round((row + 0.5) * cell))
            pen.text(at, _percent(share), colour, font, anchor="mm")
    pen.text((left, GAP), title, "black", font, anchor="lt")
    _legend(pen, (left, top + side + GAP), font, summary)
    return page


def _labels(names: Sequence[str], cell: int) -> dict[int, str]:
    """What stands beside rows and columns, by number: names or, where cells are small, some numbers."""
    if cell >= NAMED:
        cut = (name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..." for name in names)
        return dict(enumerate(cut))
    step = 10 ** math.floor(math.log10(len(names) / TICKS))
    return {number: str(number) for number in range(0, len(names), step)}


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.01 else "<1"


def _coloured(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """RGB (..., 3) of shares."""
    at = np.sqrt(shares) * (len(BLUES) - 1)
    channels = [np.interp(at, np.arange(len(BLUES)), channel) for channel in zip(*BLUES, strict=True)]
    return np.stack(channels, -1).round().astype(np.uint8)


def _write_upright(page: Image.Image, foot: tuple[int, int], text: str, font: Any) -> None:
    """Write from `foot` upwards."""
    width = round(font.getlength(text)) + 1
    strip = Image.new("RGB", (width, FONT + 4), "white")
    ImageDraw.Draw(strip).text((0, (FONT + 4) // 2), text, "black", font, anchor="lm")
    page.paste(strip.transpose(Image.Transpose.ROTATE_90), (foot[0] - (FONT + 4) // 2, foot[1] - width))


def _legend(pen: ImageDraw.ImageDraw, corner: tuple[int, int], font: Any, text: str) -> None:
    left, top = corner
    for number, share in enumerate(SCALE):
        red, green, blue = _coloured(np.array(share)).tolist()
        x = left + number * 3 * FONT
        pen.rectangle((x, top, x + FONT, top + FONT), fill=(red, green, blue), outline="black")
        pen.text((x + FONT // 2, top + FONT + 2), f"{share:.0%}", "black", font, anchor="mt")
    pen.text((left, top + 2 * FONT + GAP), text, "black", font, anchor="lt")


def _named_rows(names: Iterable[str], rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    return [[name, *row] for name, row in zip(names, rows, strict=True)]


def _write_rows(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
