"""Errors of effects where seeds need not move all effects alike, nor all arms be equally noisy.

The textbook error of an effect comes from the residual of the whole block (`factorial.py`). It is too short for an
effect whose size changes with the seed, and for an arm that is noisier than the others. The variance here is a
compromise, with fixed weights, between that pooled variance and the effect's own: own variance d / (d + `PRIOR`),
pooled variance `PRIOR` / (d + `PRIOR`), with d degrees of freedom of the own one. The degrees of freedom of the
compromise are Welch and Satterthwaite's. The simulations that the weights were chosen by are in
docs/results/statistics.md, with what other choices do.

Where there are several factors, the own variance of an estimate Σ aᵣ yᵣ is n/(n - 1) Σₛ (Σ_{r of seed s} aᵣ eᵣ)², with
residuals e: of a complete design the variance of the mean of n estimates, one of each seed; with missing runs the
cluster-robust variance CR1. It has n - 1 degrees of freedom. Where there is one factor, an effect that changes with the
seed is an arm that is noisier than others, and the own variance adds up that of each arm, Σ aᵣ² eᵣ² over its runs: of a
pair of arms it has 2 (n - 1) degrees of freedom, by Welch's rule fewer if one of both is the noisier.

With three seeds Welch and Satterthwaite's degrees of freedom promise too much. So the error that is for an effect alone
is longer by what keeps the promise where the effect changes with the seed (`widening` in `families.py`). Several
effects are told apart from zero, or have intervals, together: the largest of their ratios |estimate| / half width is
compared with its distribution over drawn tables (`families.py`). So a leading effect, or a best arm, that the scores
have chosen is allowed for. The largest effect has an interval of its own besides (`largest.py`).

Sources: Satterthwaite, Biometrics Bull. 2 (1946); Welch, Biometrika 34 (1947); Smyth, Stat. Appl. Genet. Mol. Biol. 3
(2004), for variances that are moderated by a pooled one; Liang and Zeger, Biometrika 73 (1986); MacKinnon and White,
J. Econometrics 29 (1985), for the sum over runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ablations.statistics.chosen.largest import runner_up
from ablations.statistics.effects import Effect
from ablations.statistics.factorial import FactorialFit
from ablations.statistics.families import family, widening
from ablations.statistics.intervals import Interval, t_test
from ablations.statistics.variances import PRIOR, errors


@dataclass(frozen=True)
class ModeratedEffect:
    """An effect with its moderated error. `interval` and `p` are for it alone, `together` and `p_together` for all.

    `needed` is what the largest of several effects had to reach to be that (`largest.py`), None of the others.
    """

    effect: Effect
    error: float
    df: float
    interval: Interval
    p: float
    together: Interval
    p_together: float
    needed: float | None = None


def moderate(
    fit: FactorialFit, effects: Sequence[Effect], resolution: float = 0.0, prior: float = PRIOR
) -> tuple[ModeratedEffect, ...]:
    """The effects of a fit, with errors that seeds may move differently.

    Args:
        fit: of the model that the effects are from.
        effects: of the fit; together they are the family.
        resolution: smallest step of a score, such as one test image. Two runs vary by at least that much.
        prior: degrees of freedom that the pooled variance counts for; infinite for the textbook's error.
    """
    if not effects:
        return ()
    model = fit.model
    contrasts = np.array([effect.contrast for effect in effects])
    if fit.residual.df == 0:
        return tuple(_unknown(effect, model.runs) for effect in effects)
    weights = model.run_weights(contrasts)
    floor = resolution**2 / 2 * np.square(weights).sum(axis=1)
    error, df = errors(model, weights, fit.rest[None], prior, floor)
    spans = special.stdtrit(df[0], (1 + fit.level) / 2) * error[0]
    wider = widening(model, prior)
    drawn = family(model, contrasts, fit.level, prior) if len(effects) > 1 else None
    factor = wider if drawn is None else drawn.quantile(fit.level)
    estimates = np.array([[effect.interval.mean for effect in effects]])
    (first,), (needed,) = runner_up(estimates, weights @ weights.T)
    moderated = []
    for place, (effect, own_error, own_df, span) in enumerate(
        zip(effects, wider * error[0], df[0], spans, strict=True)
    ):
        mean = effect.interval.mean
        p = t_test(mean, float(own_error), float(own_df))
        moderated.append(
            ModeratedEffect(
                effect=effect,
                error=float(own_error),
                df=float(own_df),
                interval=Interval(mean, wider * float(span), model.runs),
                p=p,
                together=Interval(mean, factor * float(span), model.runs),
                p_together=p if drawn is None else drawn.p(_ratio(mean, float(span))),
                needed=float(needed) if drawn is not None and place == first else None,
            )
        )
    return tuple(moderated)


def _ratio(mean: float, half: float) -> float:
    if half:
        return abs(mean) / half
    return math.inf if mean else 0.0


def _unknown(effect: Effect, runs: int) -> ModeratedEffect:
    interval = Interval(effect.interval.mean, math.inf, runs)
    return ModeratedEffect(effect, math.nan, 0.0, interval, 1.0, interval, 1.0)
