"""Quality against each measured cost: which arms nothing else is better and cheaper than."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ablations.analysis import arm_summary
from ablations.analysis.study import BlockRecords
from ablations.plan import Objective
from ablations.statistics import t_interval
from ablations.statistics.fronts import pareto_front

COSTS = ("train/step_ms", "inference/image_ms", "train/memory_mb", "inference/memory_mb")
"""Keys of `metrics.json`; less is better."""
MEASURED, OPEN, BEATEN = "measured", "open", "beaten"
"""On the front by the means; beaten by them, though not shown to be; shown to be beaten."""


def of_block(
    block: BlockRecords, objective: Objective, rows: Sequence[Mapping[str, Any]], level: float, step: float
) -> list[dict[str, Any]]:
    """For each cost that two arms or more have, where every arm stands, the cheapest first.

    Args:
        block: whose runs have costs.
        objective: the quality.
        rows: its arms, see `arm_summary.rows`; a run that diverged counts with its outcome.
        level: of the intervals and of the front.
        step: smallest step of a score.
    """
    if objective.metric in COSTS:
        return []
    arms = block.arms
    scores = {row["arm"]: {int(seed): value for seed, value in row["outcomes"].items()} for row in rows}
    titles = {row["arm"]: row["title"] for row in rows}
    fronts = []
    for cost in COSTS:
        costs = {name: _positive(arm_summary.scores(trials, cost)) for name, trials in arms.items()}
        members = pareto_front(scores, costs, objective.sign, level, step)
        if len(members) < 2:
            continue
        points: list[dict[str, Any]] = [
            {
                "arm": member.arm,
                "title": titles[member.arm],
                **_ends("quality", [*scores[member.arm].values()], level),
                **_ends("cost", [*costs[member.arm].values()], level, logarithmic=True),
                "n": len(scores[member.arm]),
                "stands": MEASURED
                if member.measured and member.beaten_by is None
                else BEATEN
                if member.beaten_by
                else OPEN,
                "beaten_by": None if member.beaten_by is None else titles[member.beaten_by],
            }
            for member in members
        ]
        points.sort(key=lambda point: point["cost"])
        seeds = min(point["n"] for point in points)
        fronts.append(
            {"metric": objective.metric, "sign": objective.sign, "cost": cost, "seeds": seeds, "points": points}
        )
    return fronts


def of_pair(
    candidates: Sequence[Mapping[str, Any]], quality: Objective, other: Objective, members: Sequence[bool]
) -> dict[str, Any]:
    """The same of a search's candidates and two of its objectives; `members` are on the front of these two."""
    points = [
        {
            "arm": row["arm"],
            "title": row["arm"],
            **_given("quality", row, quality.metric),
            **_given("cost", row, other.metric),
            "n": row["n"],
            "stands": MEASURED if member else OPEN,
            "beaten_by": None,
        }
        for row, member in zip(candidates, members, strict=True)
    ]
    points.sort(key=lambda point: -other.sign * float(point["cost"]))
    return {"metric": quality.metric, "sign": quality.sign, "cost": other.metric, "seeds": 1, "points": points}


def _positive(values: Mapping[int, float]) -> dict[int, float]:
    return {seed: value for seed, value in values.items() if value > 0}


def _ends(name: str, values: Sequence[float], level: float, *, logarithmic: bool = False) -> dict[str, float | None]:
    """Mean and interval over seeds; of a cost those of its logarithm."""
    interval = t_interval([math.log(value) for value in values] if logarithmic else values, level)
    half = interval.half
    ends = [interval.mean, *((None, None) if not math.isfinite(half) else (interval.low, interval.high))]
    turned = [None if end is None else math.exp(end) if logarithmic else end for end in ends]
    return dict(zip((name, f"{name}_low", f"{name}_high"), turned, strict=True))


def _given(name: str, row: Mapping[str, Any], metric: str) -> dict[str, float | None]:
    value, half = row["values"][metric], row["halves"][metric]
    known = half is not None and math.isfinite(half)
    return {
        name: value,
        f"{name}_low": value - half if known else None,
        f"{name}_high": value + half if known else None,
    }
