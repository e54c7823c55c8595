"""What the factorial model says about a block: effects, terms, negative controls, interactions, power."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import Any

from scipy import special

from ablations.analysis import image_differences
from ablations.analysis.image_differences import Predictions
from ablations.analysis.outcomes import outcomes, resolution
from ablations.analysis.study import BlockRecords, Record
from ablations.analysis.words import subject
from ablations.layout import ENDED
from ablations.plan import Objective
from ablations.statistics import (
    Effect,
    FactorialFit,
    FTest,
    ModeratedEffect,
    Observation,
    Shown,
    equivalence,
    fit_factorial,
    moderate,
)
from ablations.statistics.chosen.largest import largest_interval
from ablations.statistics.families import widening
from ablations.statistics.intervals import half_width

MOST_SEEDS = 200
MOST_NAMED = 6
POWER = 0.8


@dataclass(frozen=True)
class _Tested:
    """An effect to be told: of a factor or an interaction, or of one level against the reference's.

    `asked`: of how many effects the study's question is, if this is one of them; else 0.
    """

    effect: Effect
    kind: str
    subject: str
    control: bool
    error: ModeratedEffect | None = None
    asked: int = 0

    @property
    def moderated(self) -> ModeratedEffect:
        assert self.error is not None
        return self.error


def analyse(block: BlockRecords, objective: Objective, level: float, predictions: Predictions) -> dict[str, Any]:
    """The factorial part of a block's summary; its lists are empty where there is nothing to fit yet.

    Args:
        block: with its trials, those that have not ended left out of the fit.
        objective: what is analysed.
        level: of the intervals.
        predictions: of the runs, for what other test images would do to the effects.
    """
    observations = _observations(block, objective)
    fit, tested = _fit(block, objective, observations, level)
    if fit is None:
        return nothing()
    sizes = [_findable(fit, each, level) for each in tested]
    runs = _runs(block, objective)
    effects = []
    for each, size in zip(tested, sizes, strict=True):
        weights = fit.model.run_weights(each.effect.contrast[None])[0]
        error = predictions.error(dict(zip(runs, map(float, weights), strict=True)))
        row, needed = _effect_row(each, size, level), None if each.asked else each.moderated.needed
        effects.append(row | image_differences.effect_ends(row, error, level, each.asked or len(tested), needed))
    return {
        "fit": {
            "mean": fit.mean,
            "runs": fit.model.runs,
            "seeds": len({observation.seed for observation in observations}),
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
        "controls": [_control(each, level, block.plan.margin) for each in tested if each.control],
        "interactions": _interactions(fit, observations, level),
        "power": _power(fit, tested, level),
        "family": len(tested),
        "dropped": list(fit.dropped),
        "missing": list(fit.missing),
        "notes": [*_notes(fit, effects), *_unseen_controls(block, tested)],
    }


def effect_rows(block: BlockRecords, objective: Objective, level: float) -> list[dict[str, Any]]:
    """The effects that `analyse` tells, without what would be findable, which takes most of its time."""
    _, tested = _fit(block, objective, _observations(block, objective), level)
    return [_effect_row(each, None, level) for each in tested]


def _fit(
    block: BlockRecords, objective: Objective, observations: Sequence[Observation], level: float
) -> tuple[FactorialFit | None, list[_Tested]]:
    """The model and the effects that are told, with their errors; None where there is no score yet."""
    if not any(math.isfinite(observation.value) for observation in observations):
        return None, []
    step = resolution(block, objective)
    factors = {factor.name: factor.labels for factor in block.plan.factors}
    # One at a time shows no interaction; what would be aliased is not asked for.
    order = 1 if block.plan.design == "one_at_a_time" else None
    fit = fit_factorial(observations, factors, order=order, level=level)
    candidates = _effects(fit, block)
    errors = moderate(fit, [candidate.effect for candidate in candidates], step)
    asked = [candidate for candidate in candidates if candidate.effect.name.partition(": ")[0] in block.plan.asks]
    answers = moderate(fit, [candidate.effect for candidate in asked], step)
    tested = [replace(candidate, error=error) for candidate, error in zip(candidates, errors, strict=True)]
    for candidate, error in zip(asked, answers, strict=True):
        place = candidates.index(candidate)
        tested[place] = replace(tested[place], error=error, asked=len(asked))
    return fit, tested


def nothing() -> dict[str, Any]:
    """The factorial part of a block that has no factors, or no scores yet."""
    lists = ("effects", "terms", "controls", "interactions", "dropped", "missing", "notes")
    return {"fit": None, "power": None, "family": 0, **{name: [] for name in lists}}


def _observations(block: BlockRecords, objective: Objective) -> list[Observation]:
    scores = outcomes(block, objective)
    return [
        Observation(cell, trial.seed, scores[trial.arm].get(trial.seed, math.nan))
        for trial, cell in _ended_cells(block)
    ]


def _ended_cells(block: BlockRecords) -> list[tuple[Record, dict[str, str]]]:
    cells = [(trial, block.cell(trial)) for trial in block.records if trial.state in ENDED]
    return [(trial, cell) for trial, cell in cells if cell is not None]


def _runs(block: BlockRecords, objective: Objective) -> list[tuple[str, int]]:
    """Arm and seed of each run of the model, in its order."""
    scores = outcomes(block, objective)
    return [(trial.arm, trial.seed) for trial, _ in _ended_cells(block) if trial.seed in scores[trial.arm]]


def _effects(fit: FactorialFit, block: BlockRecords) -> list[_Tested]:
    """Two-level effects and interactions as the model has them; more levels as differences to the reference's."""
    candidates, controls = [], block.plan.negative_controls
    base = next((cell for trial in block.records if trial.arm == block.reference and (cell := block.cell(trial))), {})
    for term in fit.terms:
        names = term.factors
        if len(term.effects) == 1:
            kind = "main" if len(names) == 1 else "interaction"
            levels = fit.model.factors[names[0]]
            what = subject(names[0], str(levels[1]), str(levels[0])) if kind == "main" else " × ".join(names)
            candidates.append(_Tested(term.effects[0], kind, what, kind == "main" and names[0] in controls))
        elif len(names) == 1 and term.effects:
            first = str(base.get(names[0], fit.model.factors[names[0]][0]))
            for other in (level for level in fit.model.factors[names[0]] if level != first):
                effect = fit.difference(names[0], other, first)
                candidates.append(_Tested(effect, "level", subject(names[0], other, first), names[0] in controls))
    return candidates


def _effect_row(tested: _Tested, findable: float | None, level: float) -> dict[str, Any]:
    effect, moderated = tested.effect, tested.moderated
    largest: tuple[float | None, float | None] = None, None
    if moderated.needed is not None and not tested.asked:
        half = moderated.together.half
        largest = largest_interval(effect.interval.mean, moderated.needed, moderated.error, moderated.df, level, half)
    return {
        "name": effect.name,
        "kind": tested.kind,
        "subject": tested.subject,
        "control": tested.control,
        "asked": bool(tested.asked),
        "estimate": effect.interval.mean,
        "low": moderated.interval.low,
        "high": moderated.interval.high,
        "half": moderated.interval.half,
        "error": moderated.error,
        "df": moderated.df,
        "p": moderated.p,
        "low_together": moderated.together.low,
        "high_together": moderated.together.high,
        "p_together": moderated.p_together,
        "low_largest": largest[0],
        "high_largest": largest[1],
        "pooled_error": effect.error,
        "findable": findable,
        "standardised": effect.standardised,
        "aliases": dict(effect.aliases),
    }


def _test(test: FTest | None) -> dict[str, Any]:
    if test is None:
        return {"df": None, "f": None, "p": None}
    return {"df": test.df, "f": test.f, "p": test.p}


def _control(tested: _Tested, level: float, margin: float | None) -> dict[str, Any]:
    """Whether zero lies within the interval, and below what size the effect is shown to be."""
    effect, moderated = tested.effect, tested.moderated
    verdict = equivalence(effect.interval.mean, moderated.error, moderated.df, margin or math.inf, level)
    return {
        "name": effect.name,
        "subject": tested.subject,
        "estimate": effect.interval.mean,
        "low": verdict.low,
        "high": verdict.high,
        "zero_inside": verdict.zero_inside,
        "margin": margin,
        "equivalent": verdict.equivalent if margin else None,
        "p": verdict.p if margin else None,
        "smallest_margin": verdict.smallest_margin,
    }


def _notes(fit: FactorialFit, effects: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fit's own notes, aliases (which the report lists) and missing runs in short."""
    notes = []
    if fit.missing:
        more = f" and {len(fit.missing) - MOST_NAMED} more" if len(fit.missing) > MOST_NAMED else ""
        named = "; ".join(fit.missing[:MOST_NAMED])
        notes.append(f"no score (the effects are those among runs that ended): {named}{more}")
    aliased = sum(bool(effect["aliases"]) for effect in effects)
    if aliased:
        notes.append(
            f"{aliased} of {len(effects)} effects cannot be told apart from others, which are listed with them"
        )
    if fit.residual.df == 0:
        notes.append("no degree of freedom is left for the residual: every interval is infinite")
    if fit.lack_of_fit is not None and fit.lack_of_fit.p < 1 - fit.level:
        notes.append(f"interactions above the model's order are not nothing (p = {fit.lack_of_fit.p:.2g})")
    return notes


def _unseen_controls(block: BlockRecords, tested: Sequence[_Tested]) -> list[str]:
    shown = {each.effect.name.partition(":")[0] for each in tested if each.control}
    return [f"the negative control {name} has no effect that can be estimated" for name in block.plan.negative_controls
            if name not in shown]  # fmt: skip


def _interactions(fit: FactorialFit, observations: Sequence[Observation], level: float) -> list[dict[str, Any]]:
    """Means of every pair of factors' combinations, the pair with the smallest p first.

    Bars are t·s/√n from the pooled residual: for comparing the points of one plot, seeds being paired.
    """
    p_values = {term.name: term.test.p for term in fit.terms}
    rows = []
    for first, second in combinations(fit.model.factors, 2):
        points = []
        for a in fit.model.factors[first]:
            for b in fit.model.factors[second]:
                values = [
                    observation.value
                    for observation in observations
                    if observation.levels[first] == a
                    and observation.levels[second] == b
                    and math.isfinite(observation.value)
                ]
                if values:
                    half = half_width(fit.residual.sd / math.sqrt(len(values)), fit.residual.df, level)
                    points.append({first: a, second: b, "mean": fmean(values), "half": half, "n": len(values)})
        rows.append({"factors": [first, second], "p": p_values.get(f"{first}:{second}"), "points": points})
    return sorted(rows, key=lambda row: 2.0 if row["p"] is None else row["p"])


def _power(fit: FactorialFit, tested: Sequence[_Tested], level: float) -> dict[str, Any] | None:
    """What the study could show, and the seeds that effects of some sizes need to be shown, all effects together.

    The standard deviation of a run is known as well as the residual's degrees of freedom allow: `seeds` goes by the
    estimate, `fewest` and `most` by the ends of its 80 % interval. None of them means more than 200.
    """
    mains = [each for each in tested if each.kind in ("main", "level")]
    mains = [each for each in mains if not each.asked] or mains
    df = fit.residual.df
    if not mains or df == 0 or fit.residual.sum_of_squares == 0:
        return None
    worst = max(mains, key=lambda each: each.effect.error)
    shown = _shown(fit, worst, level)
    per_seed = worst.effect.error * math.sqrt(fit.model.seeds)
    low, high = (math.sqrt(df / special.chdtri(df, tail)) for tail in (0.1, 0.9))
    return {
        "power": POWER,
        "smallest_effect": shown.smallest_shift(POWER) * worst.effect.error,
        "seeds_for": [
            {
                "difference": share * fit.residual.sd,
                "share_of_sd": share,
                **{
                    name: shown.seeds_needed(share * fit.residual.sd / (factor * per_seed), POWER, MOST_SEEDS)
                    for name, factor in (("seeds", 1.0), ("fewest", low), ("most", high))
                },
            }
            for share in (2.0, 1.0, 0.5, 0.25)
        ],
    }


def _findable(fit: FactorialFit, tested: _Tested, level: float) -> float | None:
    """The effect that would be shown with power 0.8 where all arms are equally noisy; None where nothing varies."""
    if fit.residual.df == 0 or not tested.effect.error > 0:
        return None
    return _shown(fit, tested, level).smallest_shift(POWER) * tested.effect.error


def _shown(fit: FactorialFit, tested: _Tested, level: float) -> Shown:
    alone, together = tested.moderated.interval, tested.moderated.together
    return Shown.of(fit.model, level, round(widening(fit.model) * together.half / alone.half, 9))
