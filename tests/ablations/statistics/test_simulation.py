"""What the intervals and tests promise, kept in simulated studies whose truth is known."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from ablations.statistics import (
    FactorialFit,
    FactorialModel,
    image_difference_over_seeds,
    paired_differences,
    t_interval,
)

TERMS = {"convection": (False, True), "diffusion": (False, True), "reaction": (False, True)}
CELLS = [dict(zip(TERMS, levels, strict=True)) for levels in product(*TERMS.values())]


def studies(seeds: int, count: int, sd: np.ndarray, rng: np.random.Generator) -> list[FactorialFit]:
    """Fits of `count` studies of pde_terms: 8 arms, no effects, seeds that differ, noise `sd` (8,) in each arm."""
    model = FactorialModel(TERMS, CELLS * seeds, [seed for seed in range(seeds) for _ in CELLS], order=3)
    block = rng.normal(scale=2.0, size=(count, seeds, 1))
    scores = 70 + block + rng.normal(size=(count, seeds, 8)) * sd
    return [model.fit(one) for one in scores.reshape(count, -1)]


def test_false_alarms_of_studies_without_effects() -> None:
    """2,000 A/A studies over three seeds: the family's Holm test, the overall F test, and each effect's own t test."""
    fits = studies(3, 2000, np.ones(8), np.random.default_rng(2024))
    family = np.mean([min(term.p_holm for term in fit.terms) < 0.05 for fit in fits])
    overall = np.mean([fit.overall.p < 0.05 for fit in fits])
    single = np.mean([[term.effects[0].p < 0.05 for term in fit.terms] for fit in fits])
    for name, rate in {"family": family, "overall": overall, "single": single}.items():
        assert 0.04 <= rate <= 0.06, f"{name}: {rate:.4f}"


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("spread", ["equal", "unequal"])
def test_coverage_of_the_headline_interval(seeds: int, spread: str) -> None:
    """Nominal 95 %; unequal: the noisiest arm has three times the standard deviation of the quietest."""
    sd = np.ones(8) if spread == "equal" else np.linspace(1, 3, 8)
    fits = studies(seeds, 400, sd, np.random.default_rng(seeds))
    inside = [
        [abs(term.effects[0].interval.mean) <= term.effects[0].interval.half for term in fit.terms] for fit in fits
    ]
    assert 0.93 <= np.mean(inside) <= 0.97, f"{np.mean(inside):.4f}"


def test_an_effect_that_changes_with_the_seed_needs_its_own_residual() -> None:
    """Over single seeds' estimates Student's interval keeps its promise, where the pooled one cannot."""
    rng = np.random.default_rng(7)
    whole = FactorialModel(TERMS, CELLS * 3, [seed for seed in range(3) for _ in CELLS], order=3)
    single = FactorialModel(TERMS, CELLS, [0] * 8, order=3)
    convection = np.array([0.5 if cell["convection"] else -0.5 for cell in CELLS])
    pooled, own = [], []
    for scores in rng.normal(size=(400, 3, 8)) + rng.normal(size=(400, 3, 1)) * convection:
        effect = whole.fit(scores.ravel()).term("convection").effects[0]
        by_seed = t_interval([single.fit(one).term("convection").effects[0].interval.mean for one in scores])
        assert by_seed.mean == pytest.approx(effect.interval.mean)
        pooled.append(abs(effect.interval.mean) <= effect.interval.half)
        own.append(abs(by_seed.mean) <= by_seed.half)
    assert 0.92 <= np.mean(own) <= 0.98, f"{np.mean(own):.4f}"
    assert np.mean(pooled) < 0.88, f"{np.mean(pooled):.4f}"


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_coverage_of_paired_differences(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    inside, together = [], []
    for _ in range(500):
        table = rng.normal(size=(4, seeds)) + rng.normal(scale=2.0, size=seeds)
        found = paired_differences({str(arm): dict(enumerate(row)) for arm, row in enumerate(table)}, "0")
        inside.append([abs(one.interval.mean) <= one.interval.half for one in found])
        together.append(all(abs(one.simultaneous.mean) <= one.simultaneous.half for one in found))
    assert 0.93 <= np.mean(inside) <= 0.97, f"{np.mean(inside):.4f}"
    assert np.mean(together) >= 0.94


@pytest.mark.parametrize("seeds", [1, 3])
def test_coverage_over_test_images(seeds: int) -> None:
    """Models given, images drawn: an image is hard for all seeds alike, and 3 % of images are an arm's own mistakes."""
    rng = np.random.default_rng(seeds)
    inside = []
    for _ in range(500):
        hard = rng.random(300) < 0.15
        own = rng.random((2, seeds, 300)) < np.array([0.02, 0.05])[:, None, None]
        found = image_difference_over_seeds(~(hard | own[0]), ~(hard | own[1]))
        inside.append(found.low <= 0.03 * 0.85 <= found.high)
    assert 0.93 <= np.mean(inside) <= 0.98, f"{np.mean(inside):.4f}"
