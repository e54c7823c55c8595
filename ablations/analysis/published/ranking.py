"""How far a study ranks mixers as published scores do, recipe by recipe and over all recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np
from scipy import stats

from ablations.analysis.outcomes import resolution
from ablations.analysis.published.recipes import PublishedRecipe, RecipeEntry, beside, published_recipes, settings
from ablations.analysis.study import Study
from ablations.analysis.words import DASH, minus, p_said, plural
from ablations.statistics.ranks import LEAST, Agreement, Compared, agreement, seed_draws
from ablations.trials import expand


@dataclass(frozen=True)
class RankedArm:
    """An arm with a score that is an entry of a recipe; `row` is the arm's in the summary (`arm_summary.rows`)."""

    entry: RecipeEntry
    block: str
    row: Mapping[str, Any]

    @property
    def scores(self) -> dict[int, float]:
        """Seed -> score; a run that diverged has the worst of its block."""
        return {int(seed): score for seed, score in self.row["outcomes"].items()}

    @property
    def mean(self) -> float:
        return fmean(self.scores.values())


Comparable = dict[PublishedRecipe, list[RankedArm]]
"""Arms that differ in nothing but what their entries name."""


def of_study(study: Study, blocks: Sequence[Mapping[str, Any]], level: float) -> list[dict[str, Any]]:
    """The comparisons that a study allows: one for each setting in which a recipe has three arms or more with scores.

    Args:
        study: its plan says what the arms are.
        blocks: those of the summary; the first objective counts.
        level: of the intervals.

    Returns:
        for each setting its name (what it does not share with the others); `recipes` with their arms and, for each of
        their models, the rank correlation; and `together`, where there are several of these. See
        `ablations.statistics.ranks`.
    """
    found = _comparable(study, blocks)
    objective = study.objectives[0]
    step = max((resolution(block, objective) for block in study.blocks), default=0.0)
    names = _names([dict(key) for key in found])
    return [
        {"setting": name, **_compare(arms, objective.sign, step, level)}
        for name, arms in zip(names, found.values(), strict=True)
    ]


def sentence(settings: Sequence[Mapping[str, Any]], arms: int, level: float) -> str | None:
    """Of a study all of whose `arms` are compared in one setting, and which so asks for it, what is found."""
    if len(settings) != 1 or sum(len(recipe["arms"]) for recipe in settings[0]["recipes"]) != arms:
        return None
    recipes = settings[0]["recipes"]
    row = settings[0]["together"] or recipes[0]["models"][0]
    if row["correlation"] is None:
        return "equal scores leave no ranks to compare with the published ones"
    shown = row["p"] < 1 - level
    verdict = "no agreement" if not shown else "agreement" if row["correlation"] > 0 else "disagreement"
    ends = [f"{rho(row['low_members'])} to {rho(row['high_members'])} for other mixers"]
    if row["low_seeds"] is not None:
        ends.append(f"{rho(row['low_seeds'])} to {rho(row['high_seeds'])} for other seeds")
    return (
        f"{verdict} with the published ranks is shown: rank correlation {rho(row['correlation'])} "
        f"({100 * level:g} % intervals {', '.join(ends)}; {p_said(row['p'])}, {arms} mixers of "
        f"{plural(len(recipes), 'recipe')})"
    )


def rho(value: float | None) -> str:
    """A correlation in print."""
    return DASH if value is None else minus(f"{value + 0.0:.2f}")


def _comparable(study: Study, blocks: Sequence[Mapping[str, Any]]) -> dict[tuple[tuple[str, str], ...], Comparable]:
    """Settings beside those of the recipes' entries -> recipe -> its arms, where they are enough to be ranked."""
    rows = {(block["name"], row["arm"]): row for block in blocks for row in block["objectives"][0]["arms"]}
    found: dict[tuple[tuple[str, str], ...], Comparable] = {}
    planned = expand(replace(study.plan, tuning=None, until=None), study.content.get("given") or (), 1) if rows else []
    for arm in planned:
        row, own = rows.get((arm.block, arm.arm)), settings(arm.overrides)
        if row is None or not row["outcomes"]:
            continue
        for recipe in published_recipes():
            for entry in recipe.entries:
                rest = beside(entry, own)
                if rest is None:
                    continue
                key = tuple(sorted((name, str(value)) for name, value in rest.items()))
                arms = found.setdefault(key, {}).setdefault(recipe, [])
                if all(other.entry is not entry for other in arms):  # the same arm in another block says nothing new
                    arms.append(RankedArm(entry, arm.block, row))
    enough = {
        key: {recipe: arms for recipe, arms in of_key.items() if len(arms) >= LEAST} for key, of_key in found.items()
    }
    return {key: of_key for key, of_key in enough.items() if of_key}


def _names(keys: Sequence[Mapping[str, str]]) -> list[str]:
    """What each of some settings does not share with all others."""
    shared = set.intersection(*(set(key.items()) for key in keys)) if len(keys) > 1 else set()
    return [
        ", ".join(f"{name}={value}" for name, value in key.items() if len(keys) > 1 and (name, value) not in shared)
        for key in keys
    ]


def _compare(found: Comparable, sign: int, step: float, level: float) -> dict[str, Any]:
    """Recipes and what they say together, of arms whose scores are better where `sign` times them is more."""
    every = {f"{arm.block}/{arm.row['arm']}": arm.scores for arms in found.values() for arm in arms}
    draws = seed_draws(every, step)

    def compared(arms: Sequence[RankedArm], known: Sequence[float]) -> Compared:
        names = [f"{arm.block}/{arm.row['arm']}" for arm in arms]
        drawn = None if draws is None else sign * np.stack([draws[name] for name in names], axis=1)
        return Compared(known, [sign * arm.mean for arm in arms], drawn)

    recipes, groups = [], []
    for recipe, arms in found.items():
        columns = [[arm.entry.scores[place] for arm in arms] for place in range(len(recipe.models))]
        models = [
            {"model": model, **_written(agreement([compared(arms, column)], level))}
            for model, column in zip(recipe.models, columns, strict=True)
        ]
        # Models share the arms, so a recipe enters once: by the mean ranks of its models.
        groups.append(compared(arms, stats.rankdata(columns, axis=1).mean(axis=0).tolist()))
        recipes.append(
            {
                "name": recipe.name,
                "source": recipe.source,
                "measure": recipe.measure,
                "models": models,
                "arms": [_arm(arm) for arm in arms],
            }
        )
    several = sum(len(recipe.models) for recipe in found) > 1
    together = agreement(groups, level) if several else None
    weights = [] if together is None else list(together.weights)
    return {"recipes": recipes, "together": {**_written(together), "weights": weights} if several else None}


def _arm(arm: RankedArm) -> dict[str, Any]:
    return {
        "name": arm.entry.name,
        "block": arm.block,
        "arm": arm.row["arm"],
        "published": list(arm.entry.scores),
        "score": arm.mean,
        "low": arm.row["low"],
        "high": arm.row["high"],
        "n": len(arm.scores),
        "diverged": arm.row["diverged"],
    }


def _written(result: Agreement | None) -> dict[str, Any]:
    """The numbers of a correlation; all None where equal scores leave no ranking."""
    names = ("correlation", "p", "low_seeds", "high_seeds", "low_members", "high_members")
    if result is None:
        return dict.fromkeys(names)
    values = (result.correlation, result.p, *(result.seeds or (None, None)), *result.members)
    return dict(zip(names, values, strict=True))
