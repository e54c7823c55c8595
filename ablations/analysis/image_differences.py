"""Uncertainty from the test images: paired predictions of every arm and the reference."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ablations.analysis.study import BlockRecords, Record
from ablations.analysis.words import plural, title
from ablations.layout import COMPLETE
from ablations.plan import Objective
from ablations.statistics import allow_for_images, error_of_images, image_difference_over_seeds
from ablations.statistics.chosen.largest import largest_interval
from ablations.statistics.images import both_df
from tasks.system.reading import check_file

METRIC = "test/accuracy"
"""What predictions are kept of."""
NOTICED = 1.08
"""Factor by which the error of the test images has to widen an interval to be told in the answer: below it a 95 %
interval over seeds still holds for 93 % of other test sets (1.96 / 1.08 standard errors)."""
ROUNDING = 1e-9
"""Relative to the largest weight of a contrast: a run with a smaller one has no part in it."""
Right = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]
"""Indices of the test images, and which of them the model gets right."""
DAMAGE = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged archive of arrays raises."""


@dataclass(frozen=True)
class Predictions:
    """What the runs of a block got right, (arm, seed) -> image by image, and what could not be read.

    Runs that were tested on the same images share one array of their indices.
    """

    right: Mapping[tuple[str, int], Right] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def of_arm(self, arm: str) -> dict[int, Right]:
        """Seed -> what the arm's run got right."""
        return {seed: right for (name, seed), right in self.right.items() if name == arm}

    def error(self, weights: Mapping[tuple[str, int], float]) -> float:
        """Standard error that test images add to Σ weight · accuracy over (arm, seed).

        It is nan where a run of these has no predictions, or they were tested on different images.
        """
        largest = max(map(abs, weights.values()), default=0.0)
        runs = [run for run, weight in weights.items() if abs(weight) > ROUNDING * largest]
        if not runs or any(run not in self.right for run in runs):
            return math.nan
        index = self.right[runs[0]][0]
        if any(self.right[run][0] is not index for run in runs):
            return math.nan
        seeds = sorted({seed for _, seed in runs})
        scores = np.zeros((len(seeds), len(index)))
        for arm, seed in runs:
            scores[seeds.index(seed)] += len(seeds) * weights[arm, seed] * self.right[arm, seed][1]
        return error_of_images(scores)

    def error_of_mean(self, seeds: Sequence[int], arm: str, other: str | None = None) -> float:
        """As `error`, of the arm's mean over seeds, less that of another arm."""
        weights = {(arm, seed): 1 / len(seeds) for seed in seeds}
        if other is not None:
            weights |= {(other, seed): -1 / len(seeds) for seed in seeds}
        return self.error(weights)


def read(block: BlockRecords, objective: Objective) -> Predictions:
    """Predictions of the block's runs; none where the objective is not the accuracy that they are of."""
    if objective.metric != METRIC:
        return Predictions()
    notes: list[str] = []
    right: dict[tuple[str, int], Right] = {}
    for arm, trials in block.arms.items():
        for seed, (index, of_run) in _right(trials, notes).items():
            known = (other for other, _ in right.values() if np.array_equal(other, index))
            right[arm, seed] = next(known, index), of_run
    return Predictions(right, tuple(notes))


def ends(
    estimate: float | None,
    low: float | None,
    high: float | None,
    error: float,
    level: float,
    family: int = 1,
    df: float = math.inf,
) -> dict[str, float | None]:
    """`low_images` and `high_images` of an interval over seeds, made to hold for other test images too.

    They are None where there is no interval, or where the `error` that images add is not known. `df`: of the interval.
    """
    if estimate is None or low is None or high is None or math.isnan(error):
        return {"low_images": None, "high_images": None}
    below, above = (allow_for_images(half, error, level, family, df) for half in (estimate - low, high - estimate))
    return {"low_images": estimate - below, "high_images": estimate + above}


def effect_ends(
    effect: Mapping[str, Any], error: float, level: float, family: int, needed: float | None
) -> dict[str, float | None]:
    """Of an effect, as the summary has it: the `error` that images add, and its ends for it alone and together.

    The largest has ends as the largest besides; `needed` is what it had to reach to be that.
    """
    alone, together = (
        ends(effect["estimate"], effect[f"low{which}"], effect[f"high{which}"], error, level, members, effect["df"])
        for which, members in (("", 1), ("_together", family))
    )
    largest: tuple[float | None, float | None] = None, None
    if needed is not None and together["high_images"] is not None:
        both, df = math.hypot(effect["error"], error), both_df(effect["error"], effect["df"], error)
        half = together["high_images"] - effect["estimate"]
        largest = largest_interval(effect["estimate"], needed, both, df, level, half)
    return {
        "image_error": None if math.isnan(error) else error,
        **alone,
        "low_together_images": together["low_images"],
        "high_together_images": together["high_images"],
        "low_largest_images": largest[0],
        "high_largest_images": largest[1],
    }


def noticed(rows: Sequence[Mapping[str, Any]], low: str = "low", high: str = "high") -> bool:
    """Whether test images widen an interval of the rows, as the summary has them, by enough to be told."""
    pairs = [(row[high] - row[low], row["high_images"] - row["low_images"]) for row in rows
             if row["low_images"] is not None and row[low] is not None]  # fmt: skip
    return any(both > NOTICED * over_seeds for over_seeds, both in pairs)


def missing(block: BlockRecords, objective: Objective, predictions: Predictions) -> list[str]:
    """Why intervals cannot be told to hold for other test images, where they cannot."""
    if not objective.metric.startswith("test/"):
        return []
    runs = [record for record in block.records if math.isfinite(record.score(objective.metric))]
    if objective.metric != METRIC:
        why = f"{title(objective.metric)} is not kept image by image"
        return [f"intervals are for these test images, not for others: {why}"] if runs else []
    absent = sum((record.arm, record.seed) not in predictions.right for record in runs)
    if not absent:
        return []
    return [
        f"where predictions are missing ({absent} of {plural(len(runs), 'run')}), intervals are for these test images, "
        "not for others"
    ]


def differences(block: BlockRecords, predictions: Predictions, level: float) -> tuple[list[dict[str, Any]], list[str]]:
    """Accuracy of each arm less the reference's on the same images, over the seeds both have; and what was left out."""
    reference = block.reference
    if reference is None:
        return [], []
    notes = list(predictions.notes)
    base, rows = predictions.of_arm(reference), []
    for name in block.arms:
        if name == reference:
            continue
        own = predictions.of_arm(name)
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
