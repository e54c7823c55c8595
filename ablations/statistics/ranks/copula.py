"""An interval for a rank correlation of few members: the correlations of a normal copula that the ranks do not refute.

Known and measured scores are taken to be increasing functions of two normal variables with the correlation r, the same
in all groups. Given the known ranks, the measured ones then have a distribution that r alone decides. The interval
holds every r under which a rank correlation as high as the one seen, and one as low, each have a probability above half
of the error. Its ends are on Spearman's scale, (6/π) asin(r/2) (Kruskal, J. Am. Stat. Assoc. 53, 1958, sec. 6).

Ranks of few members take few values, so the interval holds more often than promised, the more so the fewer they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ablations.statistics.coding import Array

DRAWS = 10_000
STEPS = 12
"""Bisections of the range of r, -1 to 1: more would be finer than the draws are."""
CLOSE = 1e-9


def interval(correlation: float, weights: Array, known: Sequence[Array], level: float) -> tuple[float, float]:
    """Ends of the interval on Spearman's scale.

    Args:
        correlation: Σ weights · rank correlations of the groups.
        weights: of the groups.
        known: of each group the ranks of its known scores, centred and of length 1.
        level: of the interval.
    """
    rng = np.random.default_rng(0)
    pairs = [_normals(rng, ranks) for ranks in known]

    def drawn(r: float) -> Array:
        total = np.zeros(DRAWS)
        for weight, ranks, (x, noise) in zip(weights, known, pairs, strict=True):
            places = (r * x + math.sqrt(1 - r * r) * noise).argsort(axis=1)
            total += weight * (ranks[places] @ _plain(len(ranks)))
        return total

    error = (1 - level) / 2
    low = _first(lambda r: bool((drawn(r) >= correlation - CLOSE).mean() > error))
    high = -_first(lambda r: bool((drawn(-r) <= correlation + CLOSE).mean() > error))
    return _spearman(low), _spearman(high)


def _normals(rng: np.random.Generator, ranks: Array) -> tuple[Array, Array]:
    """(draws, n) normal variables in the order of the ranks, ties in any order, and as many that are independent."""
    x, noise = rng.normal(size=(2, DRAWS, len(ranks)))
    order = np.lexsort((rng.random(x.shape), np.broadcast_to(ranks, x.shape)), axis=1)
    np.put_along_axis(x, order, np.sort(x, axis=1), axis=1)
    return x, noise


def _plain(members: int) -> Array:
    """The ranks 1 to n, centred and of length 1."""
    ranks = np.arange(members) - (members - 1) / 2
    return np.asarray(ranks / np.linalg.norm(ranks))


def _first(holds: Callable[[float], bool]) -> float:
    """The smallest r in [-1, 1] from which on `holds`, which it does at 1."""
    low, high = -1.0, 1.0
    if holds(low):
        return low
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _spearman(r: float) -> float:
    return 6 / math.pi * math.asin(r / 2)
