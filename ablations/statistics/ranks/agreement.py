"""Spearman's rank correlation of measured scores with known ones, inside groups whose scores must not be mixed.

Scores of two recipes of training do not compare, so ranks are made inside each group r of nᵣ members. The pooled
correlation is the mean of the groups' own, ρ = Σ (nᵣ - 1) ρᵣ / Σ (nᵣ - 1): where nothing agrees, ρᵣ has the variance
1/(nᵣ - 1) (Hotelling and Pabst, Ann. Math. Statist. 7, 1936), so these weights give the mean its smallest one.

Three uncertainties are kept apart. `p` asks whether chance alone agrees as much: it is exact, over all permutations
inside the groups. The interval over seeds is of the correlation that these members would have without the noise of
their runs: the means are drawn from Student's t about the measured ones, with errors of `variances.py`. The interval
over members is for other members like these, measured as these were. It inverts the test of each correlation in a
normal copula (`copula.py`), which has few members and discrete correlations in it, so that three members have an
interval, and a wide one. Bonett and Wright's (Psychometrika 65, 2000) on Fisher's scale has none for three members and
none for a correlation of one. docs/results/statistics.md has the coverage of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy import stats

from ablations.statistics.chosen.allpairs import Scores
from ablations.statistics.coding import Array
from ablations.statistics.effects import Observation
from ablations.statistics.factorial import fit_factorial
from ablations.statistics.intervals import check_level
from ablations.statistics.ranks.copula import interval
from ablations.statistics.variances import PRIOR, errors
from operators.errors import InputError

LEAST, MOST = 3, 8
"""Members of a group: two have no ranking to speak of, and more than eight have too many permutations to go through."""
DRAWS = 10_000
CLOSE = 1e-9
"""Correlations that differ by less differ by rounding."""


@dataclass(frozen=True)
class Compared:
    """A group: `known` and `measured` scores of n members, more is better, and (draws, n) means that seeds may give.

    `drawn` is None where one seed leaves no degree of freedom.
    """

    known: Sequence[float]
    measured: Sequence[float]
    drawn: Array | None = None


@dataclass(frozen=True)
class Agreement:
    """A rank correlation. `weights` are those of its groups.

    Attributes:
        p: two-sided, exact: how probably chance agrees, or disagrees, as much.
        seeds: ends of the interval for other seeds of the same members; None where there is one seed.
        members: ends of the interval for other members.
    """

    correlation: float
    weights: tuple[float, ...]
    p: float
    seeds: tuple[float, float] | None
    members: tuple[float, float]


def agreement(groups: Sequence[Compared], level: float = 0.95) -> Agreement | None:
    """The rank correlation inside the groups, pooled; None where all known, or all measured, scores of one are equal.

    Raises:
        InputError: no group, a group of fewer than three or more than eight members, scores that are not as many as
            members, or a level that is not between 0 and 1.
    """
    check_level("level", level)
    _check(groups)
    known = [_standard(group.known) for group in groups]
    measured = [_standard(group.measured) for group in groups]
    if not all(map(np.any, (*known, *measured))):
        return None
    weights = _weights(groups)
    correlation = float(sum(w * (a @ b) for w, a, b in zip(weights, known, measured, strict=True)))
    return Agreement(
        correlation=correlation,
        weights=tuple(map(float, weights)),
        p=_chance(correlation, weights, known, measured),
        seeds=over_seeds(groups, level),
        members=interval(correlation, weights, known, level),
    )


def over_seeds(groups: Sequence[Compared], level: float = 0.95) -> tuple[float, float] | None:
    """Ends of the interval for the correlation without the noise of runs; None where a group has no drawn means.

    Noise hides agreement, and drawn means have it twice. So the interval holds the quantiles of the draws, and their
    mirror images about the measured correlation too.
    """
    drawn = [group.drawn for group in groups if group.drawn is not None]
    if len(drawn) < len(groups):
        return None
    weights, known = _weights(groups), [_standard(group.known) for group in groups]
    measured = sum(w * (_standard(group.measured) @ a) for w, a, group in zip(weights, known, groups, strict=True))
    values = sum(w * (_standard(means) @ a) for w, a, means in zip(weights, known, drawn, strict=True))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return max(-1.0, float(min(low, 2 * measured - high))), min(1.0, float(max(high, 2 * measured - low)))


def seed_draws(scores: Scores, resolution: float = 0.0) -> dict[str, Array] | None:
    """Arm -> (draws,) means that other seeds may give it; None where seeds leave no degree of freedom.

    A mean is drawn from Student's t about the measured one. Its error comes from the residual of arms and seeds:
    the arm's own, moderated by that of all arms.

    Args:
        scores: arm -> seed -> score; every arm has at least one.
        resolution: smallest step of a score; two runs vary by at least that much.
    """
    rows = [Observation({"arm": arm}, seed, value) for arm, of_arm in scores.items() for seed, value in of_arm.items()]
    fit = fit_factorial(rows, {"arm": list(scores)})
    if fit.residual.df == 0:
        return None
    own = np.array([[row.levels["arm"] == arm for row in rows] for arm in scores])
    weights = own / own.sum(axis=1, keepdims=True)
    floor = resolution**2 / 2 * np.square(weights).sum(axis=1)
    error, df = errors(fit.model, weights, fit.rest[None], PRIOR, floor)
    means = weights @ np.array([row.value for row in rows])
    noise = np.random.default_rng(0).standard_t(df[0], size=(DRAWS, len(scores)))
    return dict(zip(scores, (means + error[0] * noise).T, strict=True))


def _check(groups: Sequence[Compared]) -> None:
    if not groups:
        raise InputError("no scores to compare: give one group or more")
    for group in groups:
        if not LEAST <= len(group.known) <= MOST or len(group.known) != len(group.measured):
            raise InputError(
                f"{len(group.known)} known and {len(group.measured)} measured scores are compared: give as many of "
                f"both, {LEAST} to {MOST}"
            )


def _weights(groups: Sequence[Compared]) -> Array:
    freedom = np.array([len(group.known) - 1.0 for group in groups])
    return np.asarray(freedom / freedom.sum())


def _standard(scores: Sequence[float] | Array) -> Array:
    """Ranks of (…, n) scores, ties sharing their mean, centred and of length 1: the products of two are correlations.

    Zeros where all scores are equal.
    """
    ranks = stats.rankdata(scores, axis=-1)
    centred = ranks - ranks.mean(axis=-1, keepdims=True)
    length = np.sqrt(np.square(centred).sum(axis=-1, keepdims=True))
    return np.asarray(np.divide(centred, length, out=np.zeros_like(centred), where=length > 0))


def _chance(correlation: float, weights: Array, known: Sequence[Array], measured: Sequence[Array]) -> float:
    """The share of all permutations inside the groups with a correlation at least as far from zero."""
    values, shares = np.zeros(1), np.ones(1)
    for weight, a, b in zip(weights, known, measured, strict=True):
        orders = np.array([*permutations(range(len(a)))])
        own, counts = np.unique((weight * (b[orders] @ a)).round(12), return_counts=True)
        sums = (values[:, None] + own).round(12).ravel()
        products = (shares[:, None] * (counts / counts.sum())).ravel()
        values, places = np.unique(sums, return_inverse=True)
        shares = np.asarray(np.bincount(places.ravel(), products), dtype=np.float64)
    return round(float(shares[np.abs(values) >= abs(correlation) - CLOSE].sum()), 12)
