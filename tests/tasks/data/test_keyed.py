"""The keyed generator: reproducible, uniform, independent between keys."""

import numpy as np
import pytest
from scipy import stats

from tasks.data import keyed
from tasks.data.mix import symmetric_beta

INDEX = np.arange(20_000)
GOLDEN = [
    [8456214312763754180, 13115842298064956751],
    [6182377461090025310, 7039892390555396664],
    [4762191095602553497, 2890649450265153071],
]
GOLDEN_ORDER = [3, 6, 1, 7, 2, 5, 0, 4]


def test_golden_values_never_change():
    words = keyed.bits(7, 3, np.array([0, 1, 59_999]), "flip", 2)
    assert words.dtype == np.uint64
    assert words.tolist() == GOLDEN
    assert keyed.permutation(0, 0, 8, "order").tolist() == GOLDEN_ORDER


def test_a_draw_depends_on_its_key_alone():
    whole = keyed.uniform(1, 2, INDEX, "crop", 3)
    some = np.array([17, 3, 19_999])
    assert np.array_equal(keyed.uniform(1, 2, some, "crop", 3), whole[some])
    assert np.array_equal(keyed.uniform(1, 2, INDEX, "crop", 5)[:, :3], whole)
    epochs = np.array([2, 5, 2])
    mixed = keyed.uniform(1, epochs, some, "crop", 3)
    assert np.array_equal(mixed[[0, 2]], whole[some[[0, 2]]])
    assert np.array_equal(mixed[1], keyed.uniform(1, 5, some[1:2], "crop", 3)[0])


@pytest.mark.parametrize("n", [1, 4])
def test_uniform(n):
    draws = keyed.uniform(0, 0, INDEX, "u", n)
    assert 0 < draws.min() < draws.max() < 1
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 1e-3
    # low bits too: a weak mixer shows there first
    low = keyed.bits(0, 0, INDEX, "u", n).ravel() & np.uint64(255)
    assert stats.chisquare(np.bincount(low.astype(int), minlength=256)).pvalue > 1e-3


@pytest.mark.parametrize(
    "other",
    [(0, 0, INDEX, "b"), (1, 0, INDEX, "a"), (0, 1, INDEX, "a"), (0, 0, INDEX + 1, "a"), (-1, 0, INDEX, "a")],
    ids=["purpose", "seed", "epoch", "index", "negative seed"],
)
def test_neighbouring_keys_are_independent(other):
    one, two = keyed.uniform(0, 0, INDEX, "a")[:, 0], keyed.uniform(*other)[:, 0]
    assert abs(np.corrcoef(one, two)[0, 1]) < 4 / np.sqrt(len(INDEX))
    cells = np.histogram2d(one, two, bins=16, range=[[0, 1], [0, 1]])[0].ravel()
    assert stats.chisquare(cells).pvalue > 1e-3


def test_columns_are_independent():
    one, two = keyed.uniform(0, 0, INDEX, "a", 2).T
    assert abs(np.corrcoef(one, two)[0, 1]) < 4 / np.sqrt(len(INDEX))


def test_integers_permutation_and_normal():
    draws = keyed.integers(0, 0, INDEX, "i", 5)
    assert stats.chisquare(np.bincount(draws[:, 0], minlength=5)).pvalue > 1e-3
    order = keyed.permutation(0, 1, 1000, "order")
    assert np.array_equal(np.sort(order), np.arange(1000))
    assert not np.array_equal(order, keyed.permutation(0, 2, 1000, "order"))
    assert stats.kstest(keyed.normal(0, 0, INDEX, "n")[:, 0], "norm").pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.1, 0.8, 1.0, 4.0])
def test_symmetric_beta(alpha):
    first, second = keyed.uniform(0, 0, INDEX, "beta", 2).T
    draws = symmetric_beta(alpha, first, second)
    assert stats.kstest(draws, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_symmetric_beta_survives_tiny_alpha():
    draws = symmetric_beta(1e-3, np.array([1e-12, 0.5, 1 - 1e-12]), np.array([0.1, 0.6, 0.9]))
    assert np.isfinite(draws).all()
    assert ((draws >= 0) & (draws <= 1)).all()
