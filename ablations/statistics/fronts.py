"""Pareto fronts of quality against a cost, from scores that are noise in part.

An arm is off the front if another one is better and cheaper. Here it is *shown* to be off it if, for one other arm,
both are shown: the difference in quality and the difference in the logarithm of the cost, each within the family of all
pairs of arms (`moderated.py`) at half of the level's error. An arm that truly is on the front is then called off it
with that error at most, for all arms together: for whichever other arm, one of the two differences is not there, and
each of the two families finds one that is not there with half of the error at most (intersection-union test: Berger,
Technometrics 24, 1982). What is left holds the whole true front with the level's certainty.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from ablations.statistics.chosen.allpairs import Scores
from ablations.statistics.effects import Observation
from ablations.statistics.factorial import fit_factorial
from ablations.statistics.moderated import moderate

ALIKE = 1e-9
"""Costs that differ by a smaller share than this differ by rounding."""


@dataclass(frozen=True)
class Member:
    """An arm and where it stands.

    Attributes:
        arm: its name.
        quality, cost: means over seeds, of the cost the geometric one.
        measured: no other arm has as good a quality at as low a cost.
        beaten_by: an arm that is shown to be better and cheaper, or None.
    """

    arm: str
    quality: float
    cost: float
    measured: bool
    beaten_by: str | None


def pareto_front(
    scores: Scores, costs: Scores, sign: int, level: float = 0.95, resolution: float = 0.0
) -> list[Member]:
    """Where each arm stands that has a score and a cost, in the order of `scores`.

    Args:
        scores: of quality.
        costs: of what is to be small; all above 0.
        sign: +1 where more quality is better, else -1.
        level: of the certainty that the true front is among what is not shown to be beaten.
        resolution: smallest step of a score.
    """
    known = {arm: (_finite(scores[arm]), _finite(costs.get(arm, {}))) for arm in scores}
    known = {arm: both for arm, both in known.items() if all(both)}
    quality = {arm: fmean(values.values()) for arm, (values, _) in known.items()}
    logs = {arm: {seed: math.log(cost) for seed, cost in of_arm.items()} for arm, (_, of_arm) in known.items()}
    cost = {arm: fmean(values.values()) for arm, values in logs.items()}

    def dominates(other: str, arm: str) -> bool:
        gain = sign * (quality[other] - quality[arm])
        saving = cost[arm] - cost[other]
        return gain >= 0 and saving >= -ALIKE and (gain > 0 or saving > ALIKE)

    better = _shown({arm: values for arm, (values, _) in known.items()}, sign, level, resolution)
    cheaper = _shown(logs, -1, level, ALIKE)
    rows = []
    for arm in known:
        others = [arm_beside for arm_beside in known if arm_beside != arm]
        beating = [other for other in others if (other, arm) in better and (other, arm) in cheaper]
        rows.append(
            Member(
                arm=arm,
                quality=quality[arm],
                cost=math.exp(cost[arm]),
                measured=not any(dominates(other, arm) for other in others),
                beaten_by=max(beating, key=lambda other: sign * quality[other], default=None),
            )
        )
    return rows


def _finite(scores: Mapping[int, float]) -> dict[int, float]:
    return {seed: value for seed, value in scores.items() if math.isfinite(value)}


def _shown(scores: Scores, sign: int, level: float, resolution: float) -> set[tuple[str, str]]:
    """Pairs of which the first is shown to be above the second, or below where `sign` is -1."""
    if len(scores) < 2:
        return set()
    rows = [Observation({"arm": arm}, seed, value) for arm, of_arm in scores.items() for seed, value in of_arm.items()]
    fit = fit_factorial(rows, {"arm": list(scores)}, level=(1 + level) / 2)
    if "arm" in fit.model.matrix.dropped_terms:
        return set()
    effects = moderate(fit, [fit.difference("arm", *pair) for pair in combinations(scores, 2)], resolution)
    positions = set()
    for pair, effect in zip(combinations(scores, 2), effects, strict=True):
        if abs(effect.together.mean) > effect.together.half:
            positions.add(pair if sign * effect.together.mean > 0 else pair[::-1])
    return positions
