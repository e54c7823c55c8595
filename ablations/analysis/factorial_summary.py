"""What the factorial model says about a block: effects, terms, negative controls, interactions, power."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from ablations.analysis.study import BlockRecords
from ablations.analysis.words import subject
from ablations.layout import ENDED
from ablations.plan import Objective
from ablations.statistics import (
    Effect,
    FactorialFit,
    FTest,
    Observation,
    equivalence,
    fit_factorial,
    holm,
    smallest_difference,
    t_power,
)
from ablations.statistics.intervals import half_width

MOST_SEEDS = 200
MOST_NAMED = 6
POWER = 0.8


@dataclass(frozen=True)
class _Found:
    """An effect to be told: of a factor or an interaction, or of one level against the reference's."""

    effect: Effect
    kind: str
    subject: str
    control: bool


def analyse(block: BlockRecords, objective: Objective, level: float) -> dict[str, Any]:
    """The factorial part of a block's summary; its lists are empty where there is nothing to fit yet.

    Args:
        block: with its trials, those that have not ended left out of the fit.
        objective: what is analysed.
        level: of the intervals.
    """
    observations = _observations(block, objective)
    factors = {factor.name: factor.labels for factor in block.plan.factors}
    if not any(math.isfinite(one.value) for one in observations):
        return nothing()
    # One at a time shows no interaction; what would be aliased is not asked for.
    order = 1 if block.plan.design == "one_at_a_time" else None
    fit = fit_factorial(observations, factors, order=order, level=level)
    found = _effects(fit, block)
    adjusted = holm([one.effect.p for one in found]) if found else []
    effects = [_effect_row(one, p) for one, p in zip(found, adjusted, strict=True)]
    return {
        "fit": {
            "mean": fit.mean,
            "runs": fit.model.runs,
            "seeds": len({one.seed for one in observations}),
            "residual_sd": fit.residual.sd,
            "residual_df": fit.residual.df,
            "order": fit.model.order,
            "overall": _test(fit.overall),
            "seed_blocks": _test(fit.block),
            "lack_of_fit": _test(fit.lack_of_fit),
            "level": level,
        },
        "effects": effects,
        "terms": [
            {
                "term": term.name,
                **_test(term.test),
                "p_holm": term.p_holm,
                "partial_eta_squared": term.partial_eta_squared,
                "aliased": list(term.aliased),
            }
            for term in fit.terms
        ],
        "controls": [_control(one, level, block.plan.margin) for one in found if one.control],
        "interactions": _interactions(fit, observations, level),
        "power": _power(fit, found, level),
        "dropped": list(fit.dropped),
        "missing": list(fit.missing),
        "notes": [*_notes(fit, effects), *_unseen_controls(block, found)],
    }


def nothing() -> dict[str, Any]:
    """The factorial part of a block that has no factors, or no scores yet."""
    lists = ("effects", "terms", "controls", "interactions", "dropped", "missing", "notes")
    return {"fit": None, "power": None, **{name: [] for name in lists}}


def _observations(block: BlockRecords, objective: Objective) -> list[Observation]:
    found = []
    for trial in block.records:
        cell = block.cell(trial)
        if cell is not None and trial.state in ENDED:
            found.append(Observation(cell, trial.seed, trial.score(objective.metric)))
    return found


def _effects(fit: FactorialFit, block: BlockRecords) -> list[_Found]:
    """Two-level effects and interactions as the model has them; more levels as differences to the reference's."""
    found, controls = [], block.plan.negative_controls
    base = next((cell for trial in block.records if trial.arm == block.reference and (cell := block.cell(trial))), {})
    for term in fit.terms:
        names = term.factors
        if len(term.effects) == 1:
            kind = "main" if len(names) == 1 else "interaction"
            levels = fit.model.factors[names[0]]
            what = subject(names[0], str(levels[1]), str(levels[0])) if kind == "main" else " × ".join(names)
            found.append(_Found(term.effects[0], kind, what, kind == "main" and names[0] in controls))
        elif len(names) == 1 and term.effects:
            first = str(base.get(names[0], fit.model.factors[names[0]][0]))
            for other in (level for level in fit.model.factors[names[0]] if level != first):
                effect = fit.difference(names[0], other, first)
                found.append(_Found(effect, "level", subject(names[0], other, first), names[0] in controls))
    return found


def _effect_row(one: _Found, p_holm: float) -> dict[str, Any]:
    effect = one.effect
    return {
        "name": effect.name,
        "kind": one.kind,
        "subject": one.subject,
        "control": one.control,
        "estimate": effect.interval.mean,
        "low": effect.interval.low,
        "high": effect.interval.high,
        "half": effect.interval.half,
        "error": effect.error,
        "df": effect.df,
        "p": effect.p,
        "p_holm": p_holm,
        "standardised": effect.standardised,
        "aliases": dict(effect.aliases),
    }


def _test(test: FTest | None) -> dict[str, Any]:
    if test is None:
        return {"df": None, "f": None, "p": None}
    return {"df": test.df, "f": test.f, "p": test.p}


def _control(one: _Found, level: float, margin: float | None) -> dict[str, Any]:
    """Whether zero lies within the interval, and below what size the effect is shown to be."""
    effect = one.effect
    said = equivalence(effect.interval.mean, effect.error, effect.df, margin or math.inf, level)
    return {
        "name": effect.name,
        "subject": one.subject,
        "estimate": effect.interval.mean,
        "low": said.low,
        "high": said.high,
        "zero_inside": said.zero_inside,
        "margin": margin,
        "equivalent": said.equivalent if margin else None,
        "p": said.p if margin else None,
        "smallest_margin": said.smallest_margin,
    }


def _notes(fit: FactorialFit, effects: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fit's own notes, aliases (which the report lists) and missing runs in short."""
    said = []
    if fit.missing:
        more = f" and {len(fit.missing) - MOST_NAMED} more" if len(fit.missing) > MOST_NAMED else ""
        named = "; ".join(fit.missing[:MOST_NAMED])
        said.append(f"no score (the effects are those among runs that ended): {named}{more}")
    aliased = sum(bool(one["aliases"]) for one in effects)
    if aliased:
        said.append(f"{aliased} of {len(effects)} effects cannot be told apart from others, which are listed with them")
    if fit.residual.df == 0:
        said.append("no degree of freedom is left for the residual: every interval is infinite")
    if fit.lack_of_fit is not None and fit.lack_of_fit.p < 1 - fit.level:
        said.append(f"interactions above the model's order are not nothing (p = {fit.lack_of_fit.p:.2g})")
    return said


def _unseen_controls(block: BlockRecords, found: Sequence[_Found]) -> list[str]:
    told = {one.effect.name.partition(":")[0] for one in found if one.control}
    return [f"the negative control {name} has no effect that can be estimated" for name in block.plan.negative_controls
            if name not in told]  # fmt: skip


def _interactions(fit: FactorialFit, observations: Sequence[Observation], level: float) -> list[dict[str, Any]]:
    """Means of every pair of factors' combinations, the pair with the smallest p first.

    Bars are t·s/√n from the pooled residual: for comparing the points of one plot, seeds being paired.
    """
    p_values = {term.name: term.test.p for term in fit.terms}
    found = []
    for first, second in combinations(fit.model.factors, 2):
        points = []
        for a in fit.model.factors[first]:
            for b in fit.model.factors[second]:
                values = [
                    one.value
                    for one in observations
                    if one.levels[first] == a and one.levels[second] == b and math.isfinite(one.value)
                ]
                if values:
                    half = half_width(fit.residual.sd / math.sqrt(len(values)), fit.residual.df, level)
                    points.append({first: a, second: b, "mean": fmean(values), "half": half, "n": len(values)})
        found.append({"factors": [first, second], "p": p_values.get(f"{first}:{second}"), "points": points})
    return sorted(found, key=lambda one: 2.0 if one["p"] is None else one["p"])


def _power(fit: FactorialFit, found: Sequence[_Found], level: float) -> dict[str, Any] | None:
    """What the study could show: its smallest findable effect, and the seeds that each observed effect needs."""
    mains = [one for one in found if one.kind in ("main", "level")]
    if not mains or fit.residual.df == 0 or fit.residual.sum_of_squares == 0:
        return None
    worst = max(mains, key=lambda one: one.effect.error)
    return {
        "power": POWER,
        "smallest_effect": smallest_difference(worst.effect.error, fit.residual.df, level, POWER),
        "seeds_needed": {one.effect.name: effect_seeds(fit, one.effect, one.effect.interval.mean) for one in mains},
        "seeds_for": [
            {"difference": share * fit.residual.sd, "share_of_sd": share,
             "seeds": effect_seeds(fit, worst.effect, share * fit.residual.sd)}
            for share in (2.0, 1.0, 0.5, 0.25)
        ],
    }  # fmt: skip


def effect_seeds(fit: FactorialFit, effect: Effect, difference: float) -> int | None:
    """Fewest seeds at which this effect, if truly `difference`, is found with power 0.8; None beyond 200.

    The same cells are run at every further seed, so the error falls with 1/√seeds, and every seed brings one block
    and as many runs as there are cells.
    """
    if difference == 0:
        return None
    seeds = 1 + len(fit.model.places.get("seed", []))
    per_seed = round(fit.model.runs / seeds)
    terms = len(fit.coefficients) - (seeds - 1)
    for n in range(2, MOST_SEEDS + 1):
        df = n * per_seed - terms - (n - 1)
        error = effect.error * math.sqrt(seeds / n)
        if df > 0 and t_power(difference, error, df, level=fit.level) >= POWER:
            return n
    return None
