"""A block over budgets: each arm's curve and law, where arms cross, what the best of m trials of tuning gives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ablations.analysis.outcomes import outcome
from ablations.analysis.study import BlockRecords, Record
from ablations.analysis.words import Scale, plural
from ablations.factors import BUDGET, Factor
from ablations.plan import Objective
from ablations.statistics import t_interval
from ablations.statistics.budgets import (
    BudgetScores,
    OpenInterval,
    crossing,
    differences,
    expected_curve,
    fit_power_law,
    over_seeds,
)
from operators.errors import InputError

STEPS = 60
"""Points of a law that are drawn."""
MISFIT = 0.01
"""Below this p-value of a bend that the law does not have, its numbers are not to be read."""


def analyse(block: BlockRecords, objective: Objective, level: float) -> dict[str, Any] | None:
    """Curves over the factor that is declared a budget; None if none is, or nothing has a score yet."""
    factor = block.plan.with_role(BUDGET)
    if factor is None:
        return None
    scores = {
        arm: {factor.amounts[label]: of_seed for label, of_seed in of_arm.items()}
        for arm, of_arm in grouped(block, factor, objective).items()
    }
    if not scores:
        return None
    first = without(block.plan.reference, factor)
    names = list(scores)
    reference = first if first in scores else names[0]
    return {
        "factor": factor.name,
        "counts": factor.counts,
        "amounts": sorted(factor.amounts.values()),
        "reference": reference,
        "arms": [_arm(name, of_arm, level) for name, of_arm in scores.items()],
        "differences": [_difference(name, reference, scores, objective, level) for name in names if name != reference],
    }


def grouped(block: BlockRecords, factor: Factor, objective: Objective) -> dict[str, dict[str, dict[int, float]]]:
    """Arm (by the levels of all factors but this one) -> level of `factor` -> seed -> score.

    A run that diverged counts as the worst score of any arm at its level; arms and levels without a score are left out.
    """
    placed = [(trial, cell) for trial in block.records if (cell := block.cell(trial)) is not None]
    worst: dict[str, float] = {}
    for trial, cell in placed:
        score, level = trial.score(objective.metric), cell[factor.name]
        if math.isfinite(score):
            worst[level] = min(worst.get(level, score), score, key=lambda value: objective.sign * value)
    scores: dict[str, dict[str, dict[int, float]]] = {}
    for trial, cell in placed:
        level = cell[factor.name]
        score = outcome(trial, objective, worst.get(level, math.nan))
        if math.isfinite(score):
            scores.setdefault(without(cell, factor), {}).setdefault(level, {})[trial.seed] = score
    return scores


def without(cell: Mapping[str, str], factor: Factor) -> str:
    """The arm's name without the level of `factor`."""
    others = {name: level for name, level in cell.items() if name != factor.name}
    if len(others) == 1:
        return next(iter(others.values()))
    return " ".join(f"{name}={level}" for name, level in others.items())


def notes(result: Mapping[str, Any] | None) -> list[str]:
    """Seeds that are in no curve, since they lack a score at some budget, and laws that do not fit."""
    if result is None:
        return []
    laws = [(row["arm"], row["law"]) for row in result["arms"] if row["law"]]
    lines = []
    left_out = [f"{arm} {', '.join(map(str, law['left_out']))}" for arm, law in laws if law["left_out"]]
    if left_out:
        lines.append(f"seeds without a score at every budget, left out of scaling laws: {'; '.join(left_out)}")
    bent = [arm for arm, law in laws if law["misfit"] < MISFIT]
    if bent:
        lines.append(
            f"no power law fits the curve of {', '.join(bent)} (p < {MISFIT:g}): do not read its limit, exponent and "
            "crossing points"
        )
    return lines


def effort(records: Sequence[Record], block: str, metric: str, direction: str, level: float) -> list[dict[str, Any]]:
    """Per arm that was tuned, the best score on validation to expect of 1, 2, … of its trials, in random order.

    Of several seeds it is their mean with a t interval; of one seed the levels are what they are, and there is none. A
    trial that diverged, or did not end well, counts as no better than the worst.
    """
    tried: dict[str, dict[int, list[float]]] = {}
    titles: dict[str, str] = {}
    for trial in records:
        if trial.block == block and trial.state not in ("skipped", "waiting", "running"):
            titles[trial.arm] = " ".join(trial.levels.values()) or trial.arm
            tried.setdefault(trial.arm, {}).setdefault(trial.seed, []).append(trial.score(metric))
    rows = []
    for arm, by_seed in tried.items():
        lists = [filled for values in by_seed.values() if (filled := _filled(values, direction))]
        if not lists:
            continue
        least = min(map(len, lists))
        curves = [[point.expected for point in expected_curve(values, direction)][:least] for values in lists]
        points = [vars(point) for point in over_seeds(curves, level)]
        rows.append({"arm": arm, "title": titles[arm], "seeds": len(curves), "points": points})
    return rows


def _filled(values: Sequence[float], direction: str) -> list[float]:
    """The scores with the worst in place of those that are not there; empty where none is."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return []
    worst = min(finite) if direction == "maximize" else max(finite)
    return [value if math.isfinite(value) else worst for value in values]


def _arm(name: str, scores: BudgetScores, level: float) -> dict[str, Any]:
    points = []
    for budget in sorted(scores):
        interval = t_interval(list(scores[budget].values()), level)
        points.append(
            {"budget": budget, "mean": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}
        )
    row: dict[str, Any] = {"arm": name, "points": points, "law": None, "line": [], "refused": ""}
    try:
        law = fit_power_law(scores, level)
    except InputError as error:
        return {**row, "refused": str(error)}
    row["law"] = {
        "limit": vars(law.limit),
        "exponent": vars(law.exponent),
        "misfit": law.misfit,
        "seeds": len(law.table.seeds),
        "left_out": list(law.table.left_out),
    }
    budgets = np.geomspace(law.table.budgets[0], law.table.budgets[-1], STEPS)
    row["line"] = [
        {"budget": budget, "value": value, "low": value - half, "high": value + half}
        for budget, value, half in zip(budgets.tolist(), *(part.tolist() for part in law.band(budgets)), strict=True)
    ]
    return row


def _difference(
    arm: str, reference: str, scores: Mapping[str, BudgetScores], objective: Objective, level: float
) -> dict[str, Any]:
    row: dict[str, Any] = {"arm": arm, "reference": reference, "at": [], "mean": None, "per_doubling": None}
    row |= {"better": [], "worse": [], "seeds": 0, "left_out": [], "crossing": None, "refused": ""}
    try:
        compared = differences(scores[arm], scores[reference], level)
    except InputError as error:
        return {**row, "refused": str(error)}
    ahead, behind = list(compared.ahead), list(compared.behind)
    row |= {
        "at": [
            {
                "budget": row.budget,
                "difference": row.interval.mean,
                "low": row.interval.low,
                "high": row.interval.high,
                "simultaneous_low": row.simultaneous.low,
                "simultaneous_high": row.simultaneous.high,
            }
            for row in compared.at
        ],
        "mean": _ends(compared.mean.mean, compared.mean.low, compared.mean.high),
        "per_doubling": _ends(compared.per_doubling.mean, compared.per_doubling.low, compared.per_doubling.high),
        "better": ahead if objective.sign > 0 else behind,
        "worse": behind if objective.sign > 0 else ahead,
        "seeds": len(compared.seeds),
        "left_out": list(compared.left_out),
    }
    try:
        point = crossing(scores[arm], scores[reference], level)
    except InputError as error:
        return {**row, "refused": str(error)}
    row["crossing"] = {
        "kind": point.kind,
        "estimates": list(point.estimates),
        "pieces": [list(piece) for piece in point.pieces],
        "lowest": point.lowest,
        "highest": point.highest,
    }
    return row


def _ends(value: float, low: float, high: float) -> dict[str, float]:
    return {"difference": value, "low": low, "high": high}


def amount(number: float) -> str:
    """A budget in print: 1,600; 0.25; 5e+06 as 5,000,000."""
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:.3g}"


def open_interval(interval: Mapping[str, Any] | OpenInterval, write: Any) -> str:
    """`2.0 to 3.1`, `2.0 or more`, `3.1 or less`, `not known`."""
    values = interval if isinstance(interval, Mapping) else vars(interval)
    low, high = values["low"], values["high"]
    if low is None and high is None:
        return "not known"
    if high is None:
        return f"{write(low)} or more"
    return f"{write(high)} or less" if low is None else f"{write(low)} to {write(high)}"


def crossing_point(crossing: Mapping[str, Any] | None) -> str:
    """The budget at which two laws cross, and the set that holds it: `218 (188 to 255)`, `none`, `not known`."""
    if crossing is None:
        return "no law"
    if crossing["kind"] in ("none", "unknown"):
        return {"none": "none", "unknown": "not known"}[crossing["kind"]]
    pieces = [open_interval({"low": low, "high": high}, amount) for low, high in crossing["pieces"]]
    near = ", ".join(map(amount, crossing["estimates"]))
    return f"{near} ({' or '.join(pieces)})" if near else " or ".join(pieces)


def where(interval: Mapping[str, Any] | None, counts: str) -> str:
    """Where two arms cross, in words."""
    if interval is None:
        return "their crossing is not known, since one has no law"
    if interval["kind"] == "none":
        return f"they do not cross between {amount(interval['lowest'])} and {amount(interval['highest'])} {counts}"
    if interval["kind"] == "unknown":
        return "whether they cross is not known"
    # Both ends inside, and an odd number of crossings: the laws are told apart on both sides, with unlike signs.
    shown = interval["kind"] == "interval" and len(interval["estimates"]) % 2
    return f"{'they cross at' if shown else 'if they cross, then at'} {crossing_point(interval)} {counts}"


def sentence(result: Mapping[str, Any], objective: Objective, scale: Scale) -> str:
    """The curves in a sentence: who is ahead on average over budgets, how that changes, where they cross."""
    amounts = result["amounts"]
    span = f"over {amount(amounts[0])} to {amount(amounts[-1])} {result['counts']}"
    known = [row for row in result["differences"] if row["mean"] is not None]
    if not known:
        return f"no two arms share a seed at every budget yet ({span})"
    known.sort(key=lambda row: -objective.sign * row["mean"]["difference"])
    parts = []
    for row in known[:3]:
        mean, slope = row["mean"], row["per_doubling"]
        text = (
            f"{row['arm']} less {row['reference']} is {scale.signed(mean['difference'])}{scale.points} on average "
            f"({_interval(scale, mean)})"
        )
        text += f" and changes by {scale.signed(slope['difference'])} per doubling ({_interval(scale, slope)})"
        parts.append(f"{text}; {where(row['crossing'], result['counts'])}")
    more = f"; {plural(len(known) - 3, 'further arm')} in the table" if len(known) > 3 else ""
    return f"{span}, {plural(max(row['seeds'] for row in known), 'seed')}: {'; '.join(parts)}{more}"


def _interval(scale: Scale, ends: Mapping[str, Any]) -> str:
    return scale.interval(ends["low"], ends["high"])
