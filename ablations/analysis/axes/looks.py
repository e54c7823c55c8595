"""A study that adds seeds until they are enough: what a look finds, and levels and p-values that hold at all looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ablations.analysis import answer, arm_summary, factorial_summary
from ablations.analysis.outcomes import resolution
from ablations.analysis.study import BlockRecords, Study
from ablations.layout import LEVEL
from ablations.plan import Objective
from ablations.registration import analysis_plan
from ablations.statistics.looks import level_at, p_at_all
from ablations.until import Ends, Look

P_VALUES = ("p", "p_holm", "p_together")
"""Keys of a block's results."""


def level(study: Study) -> float:
    """Of a single look at the study's scores, for its intervals to hold with `LEVEL` at all planned looks."""
    until = study.plan.until
    return LEVEL if until is None else level_at(until.looks, study.looked, LEVEL)


def held(study: Study, tree: Any) -> Any:
    """The same results of a block, with p-values that hold at all planned looks."""
    until = study.plan.until
    if until is None:
        return tree
    if isinstance(tree, Mapping):
        return {key: _held(study, until.looks, key, value) for key, value in tree.items()}
    return [held(study, value) for value in tree] if isinstance(tree, list | tuple) else tree


def _held(study: Study, looks: tuple[int, ...], key: str, value: Any) -> Any:
    if key in P_VALUES and isinstance(value, float):
        return p_at_all(looks, study.looked, value)
    return held(study, value)


def look(study: Study, seeds: int) -> Look:
    """What the study's rule says of its first `seeds` seeds; whatever there is of further ones plays no part."""
    until = study.plan.until
    assert until is not None
    records = tuple(record for record in study.records if record.seed < seeds)
    part = replace(study, records=records)
    nominal = level_at(until.looks, seeds, LEVEL)
    objective = study.objectives[0]
    intervals = [ends for block in part.blocks for ends in _intervals(block, objective, nominal)]
    return until.look(seeds, intervals, analysis_plan.code())


def _intervals(block: BlockRecords, objective: Objective, nominal: float) -> list[Ends]:
    """The intervals that the block's answer is about, with the margin of the block."""
    rows = arm_summary.rows(block, objective, nominal)
    against = arm_summary.against_best(rows, nominal, resolution(block, objective))
    effects = factorial_summary.effect_rows(block, objective, nominal)
    ends = answer.intervals({"effects": effects, "against_best": against}, len(block.plan.factors))
    return [(low, high, block.plan.margin) for low, high in ends]
