"""What a study's directory holds, for those who write it and those who read it: files, columns, states of trials."""

from __future__ import annotations

PLAN, TABLE, LOOKS = "study.yaml", "trials.csv", "looks.json"

COMPLETE, DIVERGED, PRUNED, SKIPPED, FAILED = "complete", "diverged", "pruned", "skipped", "failed"
RESULTS = (COMPLETE, DIVERGED, PRUNED, SKIPPED)
"""States of trials that have ended as they should; `skipped`: the results of others made the trial needless."""
ENDED = (COMPLETE, DIVERGED, FAILED, PRUNED, SKIPPED)
STATES = (*ENDED, "running", "waiting")

LEVEL = 0.95
"""Probability with which every interval of a study is to hold what it is about."""

SHARES = ("accuracy", "accuracy_top5", "accuracy_top1", "ece", "class_accuracy")
"""Last parts of metrics between 0 and 1, which people read in percent."""

REQUIRED = ("number", "block", "arm", "seed", "state")
PLANNED = (*REQUIRED, "run_dir", "attempts", "seconds", "begun")
"""Columns of the table that say what a trial is; those after them are levels and the keys of its metrics.json."""
CHOSEN = ("tuned", "learning_rate", "reason")
"""Columns that the study adds to the metrics."""
FACTOR, PARAMETER = "factor/", "param/"
"""What the columns of levels begin with: of a factorial, and of a search."""

DESIGN = ("statement", "cells", "aliases")
"""Keys of a block in the plan's file that follow from the others."""


def run_directory(number: int) -> str:
    """The run directory of a trial, in that of the study."""
    return f"trials/{number:05d}"


def tuning_block(block: str) -> str:
    """The block of the trials that tune the arms of `block`."""
    return f"{_TUNING}{block}"


def tuned_block(block: str) -> str:
    """The block whose arms the trials of `block` tune; any other block itself."""
    return block.removeprefix(_TUNING)


_TUNING = "tuning of "
