"""One checkpoint at several resolutions: `mode=test data.resolution=[28,56]`.

Positions are interpolated by the model, coefficients scale as their mixers say; images are resized from their native
size, so that a resolution above it shows nothing new.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

import models
from operators.command_line import console
from operators.errors import InputError, check_number
from operators.transfer import transferable
from tasks.config.bounds import MOST_SIDE

SCORES = ("accuracy", "accuracy_top5", "loss", "ece")
"""Of these, `accuracy_top5` is missing where there are five classes or fewer."""


def sides(given: Sequence[Any]) -> list[int]:
    """The resolutions asked for.

    Raises:
        InputError: none, one twice, or one that is no number of pixels.
    """
    for side in given:
        check_number("data.resolution", side, least=1, most=MOST_SIDE, integer=True)
    if not given or len(set(given)) < len(given):
        raise InputError(f"data.resolution={list(given)!r} must list one resolution or more, none of them twice")
    return list(given)


def check_size(model: models.Trunk, size: tuple[int, int]) -> None:
    """Raise `InputError` unless the model serves images of `size` pixels; says which part of it does not."""
    model.cost(*size)  # refuses what the patch does not divide
    pixels = "×".join(map(str, size))
    for mixer, grid in zip(model.mixers, model.mixed_grids(*size), strict=True):
        card, tokens = mixer.card, "×".join(map(str, grid))
        if card.fixed_grid and grid != mixer.grid:
            made = "×".join(map(str, mixer.grid or ()))
            raise InputError(
                f"{pixels} pixels make {tokens} tokens, but mixer {card.name} was made for {made} and serves no others"
            )
        if grid[0] < card.min_grid[0] or grid[1] < card.min_grid[1]:
            least = "×".join(map(str, card.min_grid))
            raise InputError(f"{pixels} pixels make {tokens} tokens, but mixer {card.name} needs {least} or more")


def check_transfer(way: str | None, model: models.Trunk, sizes: Sequence[tuple[int, int]]) -> None:
    """Raise `InputError` if a way to transfer is given, and changes no scan of the model on images of these sizes."""
    if way is None:
        return
    try:
        scans = transferable(model)
    except InputError as error:
        raise InputError(f"transfer={way}: {error}") from error
    for size in sizes:
        for mixer, grid in zip(model.mixers, model.mixed_grids(*size), strict=True):
            if mixer in scans and math.prod(grid) > math.prod(mixer.grid or ()):
                return
    height, width = model.image_size
    raise InputError(
        f"transfer={way} changes scans on grids larger than those of training: give a data.resolution above "
        f"{max(height, width)}"
    )


def row(model: models.Trunk, size: tuple[int, int], scores: Mapping[str, float]) -> dict[str, Any]:
    """What one resolution costs and scores; a row of `resolutions.csv`."""
    cost = model.cost(*size)
    facts: dict[str, Any] = {"resolution": size[0], "tokens": math.prod(model.token_grid(*size))}
    facts |= {"macs": cost.macs, "mixer_macs": cost.mixer_macs}
    return facts | {name: scores[f"test/{name}"] for name in SCORES if f"test/{name}" in scores}


def flat(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The rows for `metrics.json`: `test@56/accuracy`, `macs@56`."""
    flat: dict[str, Any] = {}
    for row in rows:
        side = row["resolution"]
        flat |= {f"test@{side}/{name}": row[name] for name in SCORES if name in row}
        flat |= {f"{name}@{side}": row[name] for name in ("macs", "mixer_macs")}
    return flat


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows as a table on standard output."""
    table = Table(title="resolutions")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else f"{value:,}" for value in row.values()))
    console().print(table)
