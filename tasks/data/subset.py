"""A share of a training split."""

from __future__ import annotations

import math

import numpy as np

from operators.errors import InputError
from tasks.data import keyed
from tasks.data.splits import Split


def take(train: Split, share: float | None, seed: int) -> Split:
    """That share of the images of `train`, in their order; `train` itself if the share is None or 1.

    Every class keeps its share, rounded so that the sizes add up, and at least one image (so that the whole may be
    larger, by less than the number of classes). Which images are chosen depends on (seed, position) alone.

    Raises:
        InputError: the share has fewer images than there are classes.
    """
    if share is None or share == 1:
        return train
    labels = train.labels
    classes, members, counts = np.unique(labels, return_inverse=True, return_counts=True)
    size = round(share * len(labels))
    if size < len(classes):
        least = math.ceil(1e4 * len(classes) / len(labels)) / 1e4
        raise InputError(
            f"data.subset={share:g} of {len(labels)} train images are {size}, but there are {len(classes)} classes: "
            f"give at least {least:g}, so that each can keep an image"
        )
    exact = counts * (size / len(labels))
    kept = np.maximum(np.floor(exact).astype(np.int64), 1)
    missing = max(0, size - int(kept.sum()))
    kept[np.argsort(kept - exact, kind="stable")[:missing]] += 1
    order = keyed.bits(seed, 0, np.arange(len(labels)), "subset")[:, 0]
    ranked = np.lexsort((order, members))  # class by class, each in the order of its keys
    rank = np.empty(len(labels), np.int64)
    rank[ranked] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return train.take(np.flatnonzero(rank < kept[members]))
