"""Paired accuracies on the same images against published tables and against the likelihood itself."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from scipy import optimize, stats

from ablations.statistics import (
    allow_for_images,
    error_of_images,
    image_difference,
    image_difference_over_seeds,
    mcnemar,
    tango_interval,
)
from ablations.statistics.images import sign_flip_p
from operators import InputError
from tests.ablations.statistics import simulate_tables

Correct = npt.NDArray[np.bool_]


def answers(both: int, first: int, second: int, neither: int) -> tuple[Correct, Correct]:
    counts = [both, first, second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def test_approval_of_the_prime_minister() -> None:
    """Agresti, Categorical Data Analysis, table 10.1: 794, 150, 86, 570; difference 0.04 with Wald's interval 0.02 to
    0.06."""
    found = image_difference(*answers(794, 150, 86, 570))
    assert found.difference == pytest.approx(0.04)
    assert (round(found.low, 2), round(found.high, 2)) == (0.02, 0.06)
    assert found.p == pytest.approx(2 * stats.binom.cdf(86, 236, 0.5))
    averaged = image_difference_over_seeds(*(one[None] for one in answers(794, 150, 86, 570)))
    assert averaged.p == pytest.approx(found.p)
    assert (averaged.low, averaged.high) == pytest.approx((found.low, found.high), abs=4e-4)
    assert (found.images, found.seeds, averaged.images, averaged.seeds) == (1600, 1, 1600, 1)


def test_airway_hyper_responsiveness() -> None:
    """Fagerland, Lydersen and Laake, BMC Med. Res. Methodol. 13:91 (2013), table 1 (1, 1, 7, 12): exact McNemar
    p = 0.070; and Stat. Med. 33 (2014): Tango's interval -0.517 to -0.026."""
    found = image_difference(*answers(1, 1, 7, 12))
    assert round(found.p, 3) == 0.070
    assert (round(found.low, 3), round(found.high, 3)) == (-0.517, -0.026)


@pytest.mark.parametrize(("b", "c", "n"), [(1, 7, 21), (0, 3, 40), (12, 5, 60), (30, 2, 33)])
def test_score_interval_solves_the_score_equation(b: int, c: int, n: int) -> None:
    """At either limit the standardised difference is ± z, its variance taken where the likelihood is largest."""

    def statistic(difference: float) -> float:
        def minus_log_likelihood(second: float) -> float:
            first, rest = second + difference, 1 - 2 * second - difference
            parts = zip((b, c, n - b - c), (first, second, rest), strict=True)
            return -sum(count * math.log(max(p, 1e-300)) for count, p in parts if count)

        bounds = (max(0.0, -difference), (1 - difference) / 2)
        second = optimize.minimize_scalar(minus_log_likelihood, bounds=bounds, options={"xatol": 1e-12}).x
        return (b - c - n * difference) / math.sqrt(n * (2 * second + difference * (1 - difference)))

    low, high = tango_interval(b, c, n)
    z = stats.norm.ppf(0.975)
    assert (statistic(low), statistic(high)) == pytest.approx((z, -z), abs=1e-4)


def test_score_interval_at_the_edges() -> None:
    z2 = stats.norm.ppf(0.975) ** 2
    assert tango_interval(0, 0, 50) == pytest.approx((-z2 / (50 + z2), z2 / (50 + z2)))
    low, high = tango_interval(50, 0, 50)
    assert high == 1
    assert tango_interval(0, 50, 50) == pytest.approx((-1, -low))
    assert tango_interval(9, 4, 30) == pytest.approx([-limit for limit in reversed(tango_interval(4, 9, 30))])


def test_mcnemar_is_a_sign_test() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == pytest.approx(1)
    assert mcnemar(0, 6) == pytest.approx(2 / 64)


def test_seeds_on_one_image_are_not_independent() -> None:
    """Seeds that agree on every image carry no more information than one of them."""
    first, second = answers(700, 60, 40, 200)
    one = image_difference_over_seeds(first[None], second[None])
    five = image_difference_over_seeds(np.tile(first, (5, 1)), np.tile(second, (5, 1)))
    assert (five.difference, five.low, five.high, five.p) == (one.difference, one.low, one.high, one.p)
    assert five.seeds == 5


def test_arms_that_never_differ_still_have_an_interval() -> None:
    right = np.ones((3, 100), dtype=bool)
    found = image_difference_over_seeds(right, right)
    assert (found.difference, found.p) == (0, 1)
    assert -0.05 < found.low < 0 < found.high < 0.05


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.ones(3), np.ones(3), "float64 of shape"),
        (np.ones(3, dtype=bool), np.ones(4, dtype=bool), "differ"),
        (np.ones(0, dtype=bool), np.ones(0, dtype=bool), "is not right-or-wrong"),
        (np.ones((2, 3), dtype=bool), np.ones((2, 3), dtype=bool), "is not right-or-wrong"),
    ],
)
def test_refusals(first: Correct, second: Correct, message: str) -> None:
    with pytest.raises(InputError, match=message):
        image_difference(first, second)


def test_counts_are_refused() -> None:
    with pytest.raises(InputError, match="counts"):
        tango_interval(5, 6, 10)
    with pytest.raises(InputError, match="counts"):
        mcnemar(-1, 3)


def test_few_differing_images_are_tested_exactly() -> None:
    """Five images that one arm alone gets right: 2 / 2^5, where the normal approximation says 0.025."""
    first, second = np.zeros((1, 500), dtype=bool), np.zeros((1, 500), dtype=bool)
    first[0, :5] = True
    assert image_difference_over_seeds(first, second).p == pytest.approx(2 / 2**5)


@pytest.mark.parametrize("images", [1, 6, 9])
def test_sign_flips_are_all_enumerated(images: int) -> None:
    scores = np.random.default_rng(images).integers(-3, 4, size=images)
    sums = [np.dot(scores, signs) for signs in product((-1, 1), repeat=images)]
    exact = np.mean([abs(one) >= abs(scores.sum()) for one in sums])
    assert sign_flip_p(scores) == pytest.approx(exact)
    if images > 1:
        result = stats.permutation_test((scores,), np.sum, permutation_type="samples", n_resamples=np.inf)
        assert sign_flip_p(scores) == pytest.approx(result.pvalue)


def test_sign_flips_of_many_images_are_near_the_normal_distribution() -> None:
    scores = np.random.default_rng(0).integers(-3, 4, size=10_000) + (np.arange(10_000) % 50 == 0)
    normal = 2 * stats.norm.sf(abs(scores.sum()) / np.sqrt(np.square(scores).sum()))
    assert sign_flip_p(scores) == pytest.approx(normal, rel=0.02)


def test_seeds_and_images_make_up_the_variance_of_a_crossed_mean() -> None:
    """That over 3 seeds, and what 40 images add to it, are together the variance of the mean, without bias."""
    draw, n, images, spread = np.random.default_rng(0), 3, 40, (0.3, 2.0, 3.0)
    of_seed, of_image, of_both = (
        sd * draw.normal(size=(3000, *shape))
        for sd, shape in zip(spread, ((n, 1), (1, images), (n, images)), strict=True)
    )
    tables = of_seed + of_image + of_both
    over_seeds = tables.mean(axis=2).var(axis=1, ddof=1) / n
    added = np.array([error_of_images(table) ** 2 for table in tables])
    truth = spread[0] ** 2 / n + spread[1] ** 2 / images + spread[2] ** 2 / (n * images)
    assert np.mean(over_seeds + added) == pytest.approx(truth, rel=0.03)
    assert np.mean(added) == pytest.approx(spread[1] ** 2 / images, rel=0.03)
    twice = over_seeds + tables.mean(axis=1).var(axis=1, ddof=1) / images  # the chance on each image counted twice
    assert np.mean(twice) > 1.15 * truth


def test_images_without_a_part_of_their_own_add_nothing() -> None:
    alike = np.tile(np.arange(3.0)[:, None], (1, 50))
    assert error_of_images(alike) == 0
    assert math.isnan(error_of_images(alike[:1]))
    assert allow_for_images(0.3, 0.0, 0.95) == pytest.approx(0.3)
    assert allow_for_images(0.0, 1.0, 0.95) == pytest.approx(stats.norm.ppf(0.975))
    assert allow_for_images(3.0, 1.0, 0.95, 5) == pytest.approx(math.hypot(3, stats.norm.ppf(1 - 0.05 / 10)))


def test_intervals_hold_for_other_test_images_too() -> None:
    """Two arms that are equal on all images, tested on 500 of them, 5 seeds; over seeds alone 88 % hold."""
    draw, studies = np.random.default_rng(1), 600
    inside = []
    for _ in range(studies):
        first, second = simulate_tables.answers(draw, 2, 5).astype(float)
        by_seed = first.mean(axis=1) - second.mean(axis=1)
        half = stats.t.ppf(0.975, 4) * by_seed.std(ddof=1) / math.sqrt(5)
        both = allow_for_images(half, error_of_images(first - second), 0.95)
        inside.append((abs(by_seed.mean()) <= half, abs(by_seed.mean()) <= both))
    over_seeds, over_both = np.mean(inside, axis=0)
    assert over_seeds < 0.91
    assert 0.93 <= over_both <= 0.975


def test_an_interval_for_other_images_has_the_degrees_of_freedom_of_both_errors() -> None:
    """Six degrees of freedom over seeds, images half of the variance: 5 % miss; 3.6 % if half widths are added up."""
    draw, tables, df = np.random.default_rng(1), 4000, 6
    halves = stats.t.ppf(0.975, df) * np.sqrt(draw.chisquare(df, tables) / df / 2)
    estimates, error = np.abs(draw.normal(size=tables)), math.sqrt(0.5)
    both = np.array([allow_for_images(half, error, 0.95, df=df) for half in halves])
    added = np.array([allow_for_images(half, error, 0.95) for half in halves])
    assert added == pytest.approx(np.hypot(halves, stats.norm.ppf(0.975) * error))
    assert 0.043 <= np.mean(estimates > both) <= 0.06
    assert np.mean(estimates > added) < 0.042


@pytest.mark.parametrize("df", [2.5, 5.0, 40.0])
def test_an_interval_for_other_images_between_its_ends(df: float) -> None:
    normal = float(stats.norm.ppf(1 - 0.025 / 7))
    assert allow_for_images(3.0, 0.0, 0.95, 7, df) == pytest.approx(3)
    assert allow_for_images(0.0, 0.5, 0.95, 7, df) == pytest.approx(0.5 * normal)
    assert allow_for_images(3.0, 50.0, 0.95, 7, df) == pytest.approx(50 * normal, rel=0.02)
    assert math.hypot(3, 0.5 * normal) * 0.8 < allow_for_images(3.0, 0.5, 0.95, 7, df) <= math.hypot(3, 0.5 * normal)
    assert allow_for_images(math.inf, 0.5, 0.95, 7, df) == math.inf
