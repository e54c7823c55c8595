"""Arms put together over several data sets: gains with the data set at random, probability of improvement, profiles."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import numpy as np

from ablations.analysis.axes.budgets import grouped, without
from ablations.analysis.study import BlockRecords
from ablations.analysis.words import Scale, p_said, plural
from ablations.factors import DATASETS
from ablations.layout import SHARES
from ablations.plan import Objective
from ablations.statistics import holm
from ablations.statistics.datasets import (
    DataScores,
    gain_over_data,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)
from operators.errors import InputError, check_choice

STEPS = 81
"""Thresholds of a performance profile."""


def of_block(block: BlockRecords, objective: Objective, level: float) -> dict[str, Any] | None:
    """The arms over the factor that is declared to be data sets; None if none is, or fewer than two have scores."""
    factor = block.plan.with_role(DATASETS)
    if factor is None:
        return None
    scores = grouped(block, factor, objective)
    if len({data for by_data in scores.values() for data in by_data}) < 2:
        return None
    reference = without(block.plan.reference, factor)
    return analyse(scores, objective, reference if reference in scores else next(iter(scores)), level)


def analyse(scores: Mapping[str, DataScores], objective: Objective, reference: str, level: float) -> dict[str, Any]:
    """Arms over their data sets, given arm -> data set -> seed -> score.

    Scores of different data sets share a scale where the metric is a share of images, such as accuracy. Others are
    divided by the reference's mean on each data set first, for what puts scores side by side: the interquartile mean
    and the profile. Gains and the probability of improvement are taken as the scores are.

    Raises:
        InputError: a reference that is no arm.
    """
    check_choice("reference", reference, scores)
    relative = objective.metric.rpartition("/")[2] not in SHARES
    common = _relative(scores, reference) if relative else scores
    thresholds = _thresholds(common)
    rows = [
        {"arm": arm, "reference": arm == reference, "runs": sum(map(len, of_arm.values())),
         "data": {data: fmean(values.values()) for data, values in of_arm.items() if values},
         **_middle(common.get(arm), level), **_against(of_arm, scores[reference], objective, level, arm == reference)}
        for arm, of_arm in scores.items()
    ]  # fmt: skip
    tested = [row for row in rows if row["p"] is not None]
    for row, p in zip(tested, holm([row["p"] for row in tested]) if tested else (), strict=True):
        row["p_holm"] = p
    return {
        "reference": reference,
        "data": sorted({data for of_arm in scores.values() for data in of_arm}),
        "relative": relative,
        "arms": sorted(rows, key=lambda row: -objective.sign * (row["gain"] if row["gain"] is not None else 0.0)),
        "profiles": [
            {
                "arm": arm,
                "points": [
                    {"threshold": point.threshold, **vars(point.share)}
                    for point in performance_profile(of_arm, thresholds, objective.direction, level)
                ],
            }
            for arm, of_arm in common.items()
        ],
    }


def sentence(result: Mapping[str, Any], objective: Objective, scale: Scale, level: float) -> str:
    """The gains over data sets in a sentence, the largest first, with what they hold for."""
    number = plural(len(result["data"]), "data set")
    rows = [row for row in result["arms"] if row["gain"] is not None]
    if not rows:
        return f"no arm shares a data set and a seed with {result['reference']} yet"
    parts = []
    for row in rows[:3]:
        shown = "" if row["p_holm"] is None or row["low"] is None else f", Holm {p_said(row['p_holm'])}"
        parts.append(
            f"{row['arm']} less {result['reference']} is {scale.signed(row['gain'])}{scale.points} on data sets like "
            f"these ({scale.interval(row['low'], row['high'])}{shown}), {scale.signed(row['these'])}{scale.points} on "
            f"these ({scale.interval(row['these_low'], row['these_high'])})"
        )
    more = f"; {plural(len(rows) - 3, 'further arm')} in the table" if len(rows) > 3 else ""
    return f"over {number} ({100 * level:g} % intervals): {'; '.join(parts)}{more}"


def _relative(scores: Mapping[str, DataScores], reference: str) -> dict[str, DataScores]:
    """The scores over the reference's mean on their data set; data sets without one are left out."""
    means = {data: fmean(values.values()) for data, values in scores[reference].items() if values}
    result = {
        arm: {
            data: {seed: value / means[data] for seed, value in values.items()}
            for data, values in of_arm.items()
            if means.get(data)
        }
        for arm, of_arm in scores.items()
    }
    return {arm: of_arm for arm, of_arm in result.items() if any(of_arm.values())}


def _thresholds(scores: Mapping[str, DataScores]) -> list[float]:
    values = [value for of_arm in scores.values() for of_seed in of_arm.values() for value in of_seed.values()]
    return [float(each) for each in np.linspace(min(values), max(values), STEPS)] if values else []


def _middle(scores: DataScores | None, level: float) -> dict[str, Any]:
    if scores is None:
        return {"middle": None, "middle_low": None, "middle_high": None}
    interval = interquartile_mean(scores, level)
    return {"middle": interval.mean, "middle_low": interval.low, "middle_high": interval.high}


def _against(
    scores: DataScores, reference: DataScores, objective: Objective, level: float, itself: bool
) -> dict[str, Any]:
    """The gain on data sets like these and on these, and the probability to beat the reference."""
    names = ("gain", "low", "high", "p", "p_holm", "these", "these_low", "these_high", "p_these", "data_sd", "run_sd")
    row: dict[str, Any] = dict.fromkeys((*names, "improvement", "improvement_low", "improvement_high"))
    row |= {"data_sets": 0, "by_data": {}}
    if itself:
        return row
    try:
        gain = gain_over_data(scores, reference, level)
    except InputError:
        return row  # no seed in common with the reference, which the empty row says
    better = probability_of_improvement(scores, reference, objective.direction, level)
    return row | {
        "gain": gain.alike.mean,
        "low": gain.alike.low,
        "high": gain.alike.high,
        "p": gain.p,
        "these": gain.these.mean,
        "these_low": gain.these.low,
        "these_high": gain.these.high,
        "p_these": gain.p_these,
        "data_sd": gain.data_sd,
        "run_sd": gain.run_sd,
        "improvement": better.share.value,
        "improvement_low": better.share.low,
        "improvement_high": better.share.high,
        "data_sets": gain.alike.n,
        "by_data": {data: {"difference": each.mean, "low": each.low, "high": each.high}
                    for data, each in gain.by_data.items()},
    }  # fmt: skip
