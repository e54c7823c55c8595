"""The scores that a block is judged by: those of runs that ended well, and for a run that diverged the worst of all."""

from __future__ import annotations

import math

from ablations.analysis.study import BlockRecords, Record
from ablations.analysis.words import is_share
from ablations.layout import DIVERGED
from ablations.plan import Objective

SINGLE = 2.0**-23
"""Relative spacing of float32, in which scores are computed: a smaller spread is rounding."""


def outcomes(block: BlockRecords, objective: Objective) -> dict[str, dict[int, float]]:
    """Arm -> seed -> score; arms without one have an empty mapping.

    A run that diverged would have been bad, so leaving it out would flatter its arm. It counts as the worst score of
    the block. A run that failed, for reasons of the machine, has none.
    """
    ended = [score for record in block.records if math.isfinite(score := record.score(objective.metric))]
    worst = min(ended, key=lambda score: objective.sign * score, default=math.nan)
    scores: dict[str, dict[int, float]] = {}
    for arm, records in block.arms.items():
        pairs = [(record.seed, outcome(record, objective, worst)) for record in records]
        scores[arm] = {seed: score for seed, score in pairs if math.isfinite(score)}
    return scores


def outcome(record: Record, objective: Objective, worst: float) -> float:
    """The score of a run; `worst` if it diverged, nan if it has none."""
    return worst if record.state == DIVERGED else record.score(objective.metric)


def resolution(block: BlockRecords, objective: Objective) -> float:
    """The smallest step of a score: one test image for a share of them, the rounding of float32 for anything else."""
    scores = [abs(score) for record in block.records if math.isfinite(score := record.score(objective.metric))]
    step = SINGLE * max(scores, default=0.0)
    split, _, name = objective.metric.partition("/")
    if is_share(name):
        counts = [count for record in block.records if (count := record.score(f"{split}/n")) >= 1]
        step = max([step, *(1 / count for count in counts)])
    return step
