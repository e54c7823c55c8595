"""Numbers that a data set can be given, checked without torch, and before anything is read."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from operators.errors import InputError, check_number

if TYPE_CHECKING:
    from tasks.data.augment import Augment
    from tasks.data.splits import Source

MOST_WORKERS = max(32, 4 * (os.cpu_count() or 1))
"""Most workers of a process: beyond a few for each core they only wait for one another."""

MOST_PIXELS = 178_956_970
"""Most pixels that are ever held in memory: the bound at which Pillow itself refuses. JPEGs are scaled before."""

MOST_SIDE = math.isqrt(MOST_PIXELS)
"""Largest resolution in pixels."""


def check_numbers(
    *, batch_size: Any = 1, num_workers: Any = 0, resolution: Any = None, val_size: Any = None, subset: Any = None
) -> None:
    """Raise `InputError` for a number that `tasks.data.ImageData` cannot use, whatever the data set is."""
    check_number("data.batch_size", batch_size, least=1, integer=True)
    check_number("data.num_workers", num_workers, least=0, most=MOST_WORKERS, integer=True)
    if resolution is not None:
        check_number("data.resolution", resolution, least=1, most=MOST_SIDE, integer=True)
    if val_size is not None:
        check_number("data.val_size", val_size, least=1, integer=True)
    if subset is not None:
        check_number("data.subset", subset, most=1)
        if subset <= 0:
            raise InputError(f"data.subset={subset:g} must be above 0, the share of the train images to learn from")


def check_source(source: Source, augment: Augment, val_size: int | None) -> None:
    """Raise `InputError` for what does not go with the data set: its splits, its crop, its size."""
    if val_size is not None and source.val_size is None:
        raise InputError(f"data.val_size={val_size} is refused: {source.name} has a validation split")
    other = "crop_pad" if source.crop == "crop_scale" else "crop_scale"
    if getattr(augment, other):
        raise InputError(f"data.augment.{other} is refused: data={source.name} is cropped by {source.crop}")
    check_number("data.augment.crop_pad", augment.crop_pad, most=min(source.shape[1:]))
