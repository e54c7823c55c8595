"""Moderated errors against the plain variance of estimates seed by seed, and by simulation where seeds move effects."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from ablations.statistics import FactorialModel, moderate
from ablations.statistics.coding import Array
from ablations.statistics.effects import Effect
from ablations.statistics.factorial import FactorialFit
from ablations.statistics.families import family, widening
from ablations.statistics.variances import PRIOR, errors, quantiles

FACTORS = {"a": (0, 1), "b": (0, 1), "c": (0, 1)}
CELLS = [dict(zip(FACTORS, levels, strict=True)) for levels in product((0, 1), repeat=3)]


def model(seeds: int, gone: tuple[int, ...] = ()) -> FactorialModel:
    runs = [(cell, seed) for seed in range(seeds) for cell in CELLS]
    runs = [run for place, run in enumerate(runs) if place not in gone]
    return FactorialModel(FACTORS, [cell for cell, _ in runs], [seed for _, seed in runs], 3)


def effects(fit: FactorialFit) -> list[Effect]:
    return [term.effects[0] for term in fit.terms]


def test_the_own_variance_is_that_of_the_estimates_of_each_seed() -> None:
    table = np.random.default_rng(0).normal(size=(4, 8))
    fit = model(4).fit(table.ravel().tolist())
    high = np.array([cell["a"] for cell in CELLS], dtype=bool)
    by_seed = table[:, high].mean(axis=1) - table[:, ~high].mean(axis=1)
    own = moderate(fit, effects(fit)[:1], prior=1e-12)[0]
    assert own.error == pytest.approx(by_seed.std(ddof=1) / 2)
    assert own.df == pytest.approx(3)
    assert own.p == pytest.approx(stats.ttest_1samp(by_seed, 0).pvalue)
    pooled = moderate(fit, effects(fit)[:1], prior=math.inf)[0]
    assert (pooled.error, pooled.df) == (pytest.approx(own.effect.error), 21)
    one = moderate(fit, effects(fit)[:1])[0]
    longer = widening(fit.model)
    assert (one.error / longer) ** 2 == pytest.approx(0.75 * own.error**2 + 0.25 * pooled.error**2)
    assert 1 < longer < 1.2
    assert 3 < one.df < 21
    assert (one.together, one.p_together) == (one.interval, one.p)  # a family of one


def test_degrees_of_freedom_are_those_of_both_parts_once() -> None:
    """Of two arms the pooled variance is the own one: n - 1 degrees of freedom, and not more for having it twice."""
    two = FactorialModel(
        {"a": (0, 1)}, [{"a": level} for level in (0, 1)] * 5, [s for s in range(5) for _ in (0, 1)], 1
    )
    fit = two.fit(np.random.default_rng(1).normal(size=10).tolist())
    (one,) = moderate(fit, effects(fit))
    assert one.df == pytest.approx(4)
    assert one.error == pytest.approx(one.effect.error)


def test_a_missing_run_makes_errors_larger_and_families_of_their_own() -> None:
    values = np.random.default_rng(2).normal(size=24)
    fit = model(3).fit(values.tolist())
    less = model(3, gone=(5,)).fit(np.delete(values, 5).tolist())
    complete, without = (moderate(one, effects(one), prior=math.inf) for one in (fit, less))
    assert without[0].error / less.residual.sd > complete[0].error / fit.residual.sd
    # The clustered error of what is left: its weights, and its residuals, are no longer those of a mean over seeds.
    weights, rest = less.model.run_weights(np.array([effects(less)[0].contrast]))[0], less.rest
    clustered = sum((weights[members] @ rest[members]) ** 2 for members in less.model.runs_of_seeds) * 3 / 2
    assert moderate(less, effects(less)[:1], prior=1e-12)[0].error == pytest.approx(math.sqrt(clustered))


def test_without_freedom_and_without_spread() -> None:
    single = model(1).fit(np.random.default_rng(3).normal(size=8).tolist())
    assert all(
        (one.p, one.p_together, one.together.half) == (1, 1, math.inf) for one in moderate(single, effects(single))
    )
    flat = model(3).fit([0.5] * 24)
    assert all((one.p, one.p_together) == (1, 1) for one in moderate(flat, effects(flat)))
    step = model(3).fit([0.5 + 0.002 * cell["a"] for _ in range(3) for cell in CELLS])
    sure, floored = moderate(step, effects(step)), moderate(step, effects(step), resolution=0.002)
    assert sure[0].p_together < 0.001
    smallest = 0.002 / math.sqrt(2) * math.sqrt(4 / 24)
    assert floored[0].error == pytest.approx(widening(step.model) * smallest)
    assert floored[0].p_together > sure[0].p_together
    assert moderate(step, []) == ()


def of_arms(arms: int, seeds: int) -> tuple[FactorialModel, Array, Array]:
    """The model of so many arms, and the contrasts of all pairs and of all arms less the first."""
    cells = [{"arm": arm} for arm in range(arms)] * seeds
    one_factor = FactorialModel({"arm": range(arms)}, cells, [seed for seed in range(seeds) for _ in range(arms)], 1)
    fit = one_factor.fit([0.0] * one_factor.runs)
    pairs = np.array([fit.difference("arm", *pair).contrast for pair in combinations(range(arms), 2)])
    return one_factor, pairs, np.array([fit.difference("arm", arm, 0).contrast for arm in range(1, arms)])


def ratios(design: FactorialModel, contrasts: Array, tables: Array) -> Array:
    """|estimate| / half width of (tables, runs) scores, as `moderate` has them before it allows for the family."""
    weights, basis = design.run_weights(contrasts), design.matrix.basis
    error, df = errors(design, weights, tables - (tables @ basis) @ basis.T, PRIOR)
    return np.asarray(np.abs(tables @ weights.T) / (quantiles(df, 0.95) * error))


def test_the_own_variance_of_a_pair_of_arms_is_welch_s() -> None:
    """Residuals of nine arms and four seeds, of which one arm is louder: its part of the variance, and of the df."""
    table = np.random.default_rng(0).normal(size=(4, 9)) * np.where(np.arange(9) == 2, 5, 1)
    design, _, _ = of_arms(9, 4)
    fit = design.fit(table.ravel().tolist())
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    variances = np.square(rest).sum(axis=0) * 36 / 24 / 4**2
    (own,) = moderate(fit, [fit.difference("arm", 2, 5)], prior=1e-9)
    assert own.error**2 == pytest.approx(variances[2] + variances[5], rel=1e-6)
    assert own.df == pytest.approx(own.error**4 / ((variances[2] ** 2 + variances[5] ** 2) / 3), rel=1e-6)
    (quiet,) = moderate(fit, [fit.difference("arm", 4, 5)])
    assert quiet.error < 0.8 * quiet.effect.error


@pytest.mark.parametrize("reference", [False, True])
def test_an_arm_that_is_louder_does_not_alarm(reference: bool) -> None:
    """Three seeds of nine arms, one three times as noisy; with errors seed by seed 7 %, 10 % if it is the reference."""
    design, pairs, against_first = of_arms(9, 3)
    contrasts = against_first if reference else pairs
    tables = np.random.default_rng(5).normal(size=(2000, 3, 9))
    together = family(design, contrasts, 0.95, PRIOR)
    alike = ratios(design, contrasts, tables.reshape(2000, -1)).max(axis=1)
    tables[:, :, 0] *= 3
    louder = ratios(design, contrasts, tables.reshape(2000, -1)).max(axis=1)
    for largest in (alike, louder):
        assert 0.025 <= np.mean(largest > together.quantile(0.95)) <= 0.065
        assert np.mean([together.p(ratio) < 0.05 for ratio in largest]) == pytest.approx(
            np.mean(largest > together.quantile(0.95)), abs=1e-3
        )


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_of_an_effect_alone_holds_where_it_changes_with_the_seed(seeds: int) -> None:
    """The promise of 95 % is kept within 2 points, whether or not the effect changes; unwidened, 91 % at 3 seeds."""
    design, draw = model(seeds), np.random.default_rng(seeds)
    sign = np.array([1 if cell["a"] else -1 for cell in CELLS])
    contrast = np.array([effects(design.fit([0.0] * design.runs))[0].contrast])
    for size in (0.0, 0.5, 1.0):
        tables = draw.normal(size=(4000, seeds, 8)) + size * draw.normal(size=(4000, seeds, 1)) * sign / 2
        inside = ratios(design, contrast, tables.reshape(4000, -1)) <= widening(design)
        assert 0.925 <= inside.mean() <= 0.972, size


@pytest.mark.parametrize("seeds", [3, 10])
def test_intervals_hold_where_an_effect_changes_with_the_seed(seeds: int) -> None:
    """The pooled error covers 81 % here, at any number of seeds; the moderated one 93 to 96 %, and together 95 %."""
    rng = np.random.default_rng(seeds)
    design = model(seeds)
    sign = np.array([1 if cell["a"] else -1 for cell in CELLS])
    alone, leading, pooled = [], [], []
    for _ in range(400):
        effect = 1 + rng.normal(size=(seeds, 1))
        fit = design.fit((rng.normal(size=(seeds, 8)) + effect * sign / 2).ravel().tolist())
        found = moderate(fit, effects(fit))
        alone.append(found[0].interval.low <= 1 <= found[0].interval.high)
        pooled.append(found[0].effect.interval.low <= 1 <= found[0].effect.interval.high)
        first = max(found, key=lambda one: abs(one.interval.mean))
        truth = 1.0 if first is found[0] else 0.0
        leading.append(first.together.low <= truth <= first.together.high)
    assert np.mean(pooled) < 0.87
    assert np.mean(alone) > 0.9
    assert np.mean(leading) > 0.93
