"""Uncertainty from the test images: paired predictions of every arm and the reference."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ablations.analysis.study import BlockRecords, Record
from ablations.layout import COMPLETE
from ablations.statistics import image_difference_over_seeds
from tasks.system.reading import check_file

Right = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]
"""Indices of the test images, and which of them the model gets right."""
DAMAGE = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged archive of arrays raises."""


def differences(block: BlockRecords, level: float) -> tuple[list[dict[str, Any]], list[str]]:
    """Accuracy of each arm less the reference's on the same images, over the seeds both have; and what was left out."""
    reference = block.reference
    if reference is None:
        return [], []
    notes: list[str] = []
    base, rows = _right(block.arms[reference], notes), []
    for name, trials in block.arms.items():
        if name == reference:
            continue
        own = _right(trials, notes)
        shared = sorted(base.keys() & own.keys())
        if any(not np.array_equal(base[seed][0], own[seed][0]) for seed in shared):
            notes.append(f"{name} and {reference} were tested on different images: not compared image by image")
        elif shared and len({len(own[seed][0]) for seed in shared}) == 1:
            ours, theirs = (np.stack([right[seed][1] for seed in shared]) for right in (own, base))
            difference = image_difference_over_seeds(ours, theirs, level)
            rows.append(
                {
                    "arm": name,
                    "reference": reference,
                    "difference": difference.difference,
                    "low": difference.low,
                    "high": difference.high,
                    "p": difference.p,
                    "images": difference.images,
                    "seeds": difference.seeds,
                }
            )
    return rows, notes


def _right(trials: Sequence[Record], notes: list[str]) -> dict[int, Right]:
    """Seed -> what the run got right, of the trials that ended well and kept their predictions; and notes on others."""
    by_run = {}
    for trial in trials:
        if trial.state == COMPLETE and trial.run_dir is not None:
            path = trial.run_dir / "predictions.npz"
            try:
                if path.exists():
                    index, _, right = read_predictions(path)
                    by_run[trial.seed] = index, right
            except DAMAGE:
                notes.append(f"{path.parent.name}/{path.name} cannot be read: not compared image by image")
    return by_run


def read_predictions(path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Index and label of each test image, and whether the model gets it right; raises one of `DAMAGE`."""
    check_file(path)
    with path.open("rb") as file, np.load(file) as saved:
        index, label, logits = (saved[name] for name in ("index", "label", "logits"))
    if logits.ndim != 2 or label.shape != logits.shape[:1] or index.shape != label.shape:
        raise ValueError("the arrays do not fit each other")
    return index, label, logits.argmax(axis=1) == label
