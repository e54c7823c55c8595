"""Errors of effects where seeds need not move all effects alike, and intervals that hold for a family of effects.

The textbook error of an effect comes from the residual of the whole block (`factorial.py`). It is too short for an
effect whose size changes with the seed, and for an arm that is noisier than the others. The error of the effect's own
estimates, seed by seed, is right for both, but with three seeds it has two degrees of freedom. The variance here is a
compromise between both with fixed weights: own variance d / (d + `PRIOR`), pooled variance `PRIOR` / (d + `PRIOR`),
with d = seeds - 1. Its degrees of freedom are Welch and Satterthwaite's. The simulations that the weights were chosen
by are in docs/results/statistics.md, with what other choices do.

The own variance of an estimate Σ aᵣ yᵣ is n/(n - 1) Σₛ (Σ_{r of seed s} aᵣ eᵣ)², with residuals e: of a complete design
the variance of the mean of n estimates, one of each seed; with missing runs the cluster-robust variance CR1.

Several effects are told apart from zero, or have intervals, together: the largest of their ratios |estimate| / half
width is compared with its distribution over tables of equal arms, drawn with the same runs missing. So a leading
effect, or a best arm, that the scores have chosen is allowed for.

Sources: Satterthwaite, Biometrics Bull. 2 (1946); Smyth, Stat. Appl. Genet. Mol. Biol. 3 (2004), for variances that are
moderated by a pooled one; Liang and Zeger, Biometrika 73 (1986); Westfall and Young, Resampling-Based Multiple Testing
(1993), for the largest ratio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from ablations.statistics.coding import Array
from ablations.statistics.effects import Effect
from ablations.statistics.factorial import FactorialFit, FactorialModel
from ablations.statistics.intervals import Interval, t_test

PRIOR = 1.0
"""Degrees of freedom that the pooled variance counts for."""
DRAWS = 20_000
"""Tables of equal arms that a family's distribution is made of: a level of 5 % is met within 0.3 points."""
_CHUNK = 1_000


@dataclass(frozen=True)
class ModeratedEffect:
    """An effect with its moderated error. `interval` and `p` are for it alone, `together` and `p_together` for all."""

    effect: Effect
    error: float
    df: float
    interval: Interval
    p: float
    together: Interval
    p_together: float


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
    drawn = family(model, contrasts, fit.level, prior) if len(effects) > 1 else None
    wider = 1.0 if drawn is None else float(np.quantile(drawn, fit.level))
    moderated = []
    for effect, one_error, one_df, half in zip(effects, error[0], df[0], spans, strict=True):
        mean = effect.interval.mean
        p = t_test(mean, float(one_error), float(one_df))
        moderated.append(
            ModeratedEffect(
                effect=effect,
                error=float(one_error),
                df=float(one_df),
                interval=Interval(mean, float(half), model.runs),
                p=p,
                together=Interval(mean, wider * float(half), model.runs),
                p_together=p if drawn is None else _share_beyond(drawn, mean, float(half)),
            )
        )
    return tuple(moderated)


def _share_beyond(drawn: Array, mean: float, half: float) -> float:
    """Share of equal tables whose largest ratio is as large; with the table itself counted, it is never zero."""
    if half == 0:
        return 1 / (1 + len(drawn)) if mean else 1.0
    beyond = len(drawn) - np.searchsorted(drawn, abs(mean) / half, side="left")
    return float(1 + beyond) / (1 + len(drawn))


def expected_df(own_df: int, pooled_df: int, prior: float = PRIOR) -> float:
    """Degrees of freedom of a moderated variance where seeds move all effects alike."""
    share = own_df / (own_df + prior) if own_df else 0.0
    inner = min(own_df, pooled_df)
    own, outer = share + (1 - share) * inner / pooled_df, pooled_df - inner
    return 1 / ((own**2 / inner if inner else 0.0) + ((1 - own) ** 2 / outer if outer else 0.0))


def _unknown(effect: Effect, runs: int) -> ModeratedEffect:
    interval = Interval(effect.interval.mean, math.inf, runs)
    return ModeratedEffect(effect, math.nan, 0.0, interval, 1.0, interval, 1.0)


def errors(
    model: FactorialModel, weights: Array, rest: Array, prior: float, floor: Array | float = 0.0
) -> tuple[Array, Array]:
    """(tables, effects) standard errors and degrees of freedom of `weights` @ scores.

    Args:
        model: of the runs.
        weights: (effects, runs).
        rest: (tables, runs) residuals.
        prior: as of `moderate`.
        floor: (effects,) smallest variances.
    """
    pooled_df = model.runs - len(model.matrix.names)
    own_df = model.seeds - 1
    pooled = np.square(rest).sum(axis=1)[:, None] / pooled_df * np.square(weights).sum(axis=1)
    own = np.zeros_like(pooled)
    for members in model.runs_of_seeds:
        own += np.square(rest[:, members] @ weights[:, members].T)
    if own_df:
        own *= model.seeds / own_df
    return combine(np.maximum(own, floor), np.maximum(pooled, floor), own_df, pooled_df, prior)


def combine(own: Array, pooled: Array, own_df: int, pooled_df: int, prior: float = PRIOR) -> tuple[Array, Array]:
    """Standard errors and degrees of freedom of the compromise between own and pooled variances of estimates."""
    share = own_df / (own_df + prior) if own_df else 0.0
    if not share:
        return np.sqrt(pooled), np.full_like(pooled, float(pooled_df))
    variance = share * own + (1 - share) * pooled
    # The pooled variance holds the own one: its degrees of freedom are counted once.
    inner = min(own_df, pooled_df)
    outer = pooled_df - inner
    others = np.maximum(pooled_df * pooled - inner * own, 0.0) / outer if outer else np.zeros_like(own)
    of_own, of_others = share + (1 - share) * inner / pooled_df, (1 - share) * outer / pooled_df
    spread = (of_own * own) ** 2 / max(inner, 1) + (of_others * others) ** 2 / max(outer, 1)
    sure = (of_own * own + of_others * others) ** 2
    df = np.divide(sure, spread, out=np.full_like(spread, float(pooled_df)), where=spread > 0)
    return np.sqrt(variance), np.clip(df, 1.0, pooled_df)


def family(model: FactorialModel, contrasts: Array, level: float, prior: float) -> Array:
    """Sorted, the largest ratio |estimate| / half width of each drawn table of equal arms."""
    runs = tuple(tuple(members.tolist()) for members in model.runs_of_seeds)
    key = _Design(model, contrasts, (model.matrix.basis.tobytes(), contrasts.tobytes(), runs))
    return _drawn(key, level, prior)


def quantiles(df: Array, level: float) -> Array:
    """Quantiles of t for two-sided intervals, by interpolation in 1/df: exactly they would take most of the time."""
    inverse_df, exact = _grid(level)
    return np.asarray(np.interp(1 / df, inverse_df, exact))


@lru_cache(maxsize=8)
def _grid(level: float) -> tuple[Array, Array]:
    inverse_df = np.linspace(0, 1, 4001)[1:]
    return inverse_df, special.stdtrit(1 / inverse_df, (1 + level) / 2)


@dataclass(frozen=True)
class _Design:
    """A model and a family of effects; two with the same `key` have the same distribution."""

    model: FactorialModel
    contrasts: Array
    key: tuple[object, ...]

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Design) and self.key == other.key


@lru_cache(maxsize=64)
def _drawn(design: _Design, level: float, prior: float) -> Array:
    model = design.model
    weights = model.run_weights(design.contrasts)
    rng = np.random.default_rng(0)
    largest = []
    for _ in range(DRAWS // _CHUNK):
        tables = rng.standard_normal((_CHUNK, model.runs))
        rest = tables - (tables @ model.matrix.basis) @ model.matrix.basis.T
        error, df = errors(model, weights, rest, prior)
        ratios = np.abs(tables @ weights.T) / (quantiles(df, level) * error)
        largest.append(ratios.max(axis=1))
    return np.sort(np.concatenate(largest))
