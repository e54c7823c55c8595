"""The scaling law score(n) = c + a·n^(−b) of an arm over budgets n, with b > 0: c is what no budget exceeds.

The law is fitted to the means over seeds by least squares. Its intervals ask nothing of the noise but that seeds are
independent: it may differ between budgets, and runs of one seed may be correlated.

* Exponent. For a supposed b the law is linear in (c, a). Let w be the direction in which a change of b would move the
  curve, freed of what c and a can do. If the supposed b is true, each seed's w·scores has mean zero, so its t test over
  seeds is exact for normal noise; the interval holds every b that the test does not reject. That is the idea of
  Williams, "Exact fiducial limits in non-linear estimation", J. R. Statist. Soc. B 24 (1962), and of Hartley, "Exact
  confidence regions for the parameters in non-linear regression laws", Biometrika 51 (1964), over seeds in place of
  residuals.
* Limit c. The same, with w freed of what a and b can do at the fit given the supposed c (Neyman's C(α) test, 1959).
* Value at a budget. Linear approximation at the fit, Student's t over seeds.

Simulated: 36 settings of 400 studies each, 3, 5 and 10 seeds, 4 to 6 budgets, exponents 0.3 to 1.2, noise that is
equal, falls fourfold with the budget, is shared by a seed's runs, or is correlated along budgets. Of nominal 95 %, the
intervals of exponent, limit and values (inside, at the largest budget, at twice that) cover 91 to 98 % in each
setting, and 94.9 to 95.4 % over all; the bend is found in 5.1 % where there is none.
`tests/ablations/statistics/budgets` repeats it. At three seeds, intervals from a residual pooled over seeds and
budgets would be half as long, but cover 90 % where noise is correlated along budgets. An interval may have no end (the
exponent's in 17 % of these studies): then the scores do not say how large, or how small, the number is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy import special

from ablations.statistics.budgets.table import BudgetScores, BudgetTable
from ablations.statistics.intervals import check_level, t_test
from operators.errors import InputError

LEAST_BUDGETS = 4
"""Three parameters pass through any three points."""

_RATES = np.geomspace(0.02, 40.0, 161)
"""Exponents tried, times the logarithm of the largest budget over the smallest: at 0.02 the law is a logarithm, at 40 a
step after the first budget."""
_REACH = np.concatenate([np.linspace(-1.0, 0.0, 21)[:-1], [0.0], np.geomspace(1e-4, 300.0, 260)])
"""Limits tried, as distances beyond the last mean, in units of the difference between first and last."""


@dataclass(frozen=True)
class OpenInterval:
    """An estimate whose interval may have no end on either side; `estimate` is None where the fit has none."""

    estimate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PowerLaw:
    """The law fitted to a table: score(n) = limit + gain · (n / smallest budget)^(−exponent)."""

    table: BudgetTable
    level: float
    limit: OpenInterval
    exponent: OpenInterval
    rate: float

    def value(self, budget: float) -> float:
        """The law at `budget`."""
        return float(self.seed_values([budget]).mean())

    @property
    def asymptote(self) -> float:
        """The value that the fitted law approaches."""
        constant, factor = self._line @ self.table.values.mean(axis=0)
        return float(constant - factor * math.exp(-self.rate))

    def half(self, budget: float) -> float:
        """Half of the t interval of the law at `budget`."""
        return float(spreads(self.seed_values([budget]), self.level)[0])

    def band(self, budgets: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The law at each budget, and half of its t interval there."""
        values = self.seed_values(budgets)
        return values.mean(axis=1), spreads(values, self.level)

    def seed_values(self, budgets: Sequence[float] | np.ndarray) -> np.ndarray:
        """(budgets, seeds): their mean over seeds is the law at each budget, their spread its uncertainty."""
        means = self.table.values.mean(axis=0)
        places = self.table.place(np.asarray(budgets))
        decay = np.exp(-self.rate * places) - math.exp(-self.rate)
        law = self._line[0] @ means + decay * (self._line[1] @ means)
        moves = self._tangent(places) @ np.linalg.pinv(self._tangent(self.table.places))
        return law[:, None] + moves @ (self.table.values - means).T

    @cached_property
    def misfit(self) -> float:
        """p-value of a bend that the law does not have: Student's t over seeds of the next term of its expansion.

        Where the best law is a logarithm or a step, that is the exponent's own term: it may want to go beyond.
        """
        x, decay = self.table.places, np.exp(-self.rate * self.table.places)
        free = 2 if self.exponent.estimate is None else 3
        terms = np.stack([np.ones_like(x), decay, x * decay, x**2 * decay], axis=1)
        bend = _freed(terms[None, :, free], np.linalg.qr(terms[:, :free]).Q[None])[0]
        values = self.table.values @ bend
        return t_test(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)), len(values) - 1)

    @cached_property
    def _line(self) -> np.ndarray:
        """(2, budgets): the law's constant and factor as weights of the means, given its exponent."""
        decay = np.exp(-self.rate * self.table.places)
        return np.linalg.pinv(np.stack([np.ones_like(decay), decay - decay[-1]], axis=1))

    def _tangent(self, places: np.ndarray) -> np.ndarray:
        """(places, 3): how the law there moves with its value at the largest budget, its factor and its exponent."""
        factor, last = float(self._line[1] @ self.table.values.mean(axis=0)), math.exp(-self.rate)
        decay = np.exp(-self.rate * places)
        return np.stack([np.ones_like(places), decay - last, factor * (last - places * decay)], axis=1)


def fit_power_law(scores: BudgetScores, level: float = 0.95) -> PowerLaw:
    """The law of one arm with its intervals; a seed without a score at some budget is left out.

    Raises:
        InputError: fewer than four budgets, or fewer than two seeds with a score at each of them; scores that are the
            same at every seed, or whose change with the budget is not shown.
    """
    check_level("level", level)
    (table,) = BudgetTable.of(scores)
    return fit_table(table, level)


def fit_table(table: BudgetTable, level: float = 0.95) -> PowerLaw:
    """The law of a table; it refuses what `fit_power_law` refuses."""
    if len(table.budgets) < LEAST_BUDGETS:
        raise InputError(
            f"{len(table.budgets)} budgets: a scaling law has three parameters, so it needs {LEAST_BUDGETS} or more"
        )
    if len(table.seeds) < 2:
        raise InputError(
            f"{len(table.seeds)} seed(s) with a score at every budget: the uncertainty of a law needs 2 or more"
        )
    means, places = table.values.mean(axis=0), tuple(table.places)
    noise = table.values - means
    if np.abs(noise).max() <= 1e-12 * np.abs(table.values).max():
        raise InputError("the scores are the same at every seed: nothing says how uncertain a law would be")
    trend = table.values @ (table.places.mean() - table.places)
    if abs(trend.mean()) <= spreads(trend, level):
        raise InputError("the scores are not shown to change with the budget: there is nothing that a law could follow")
    bases, directions = _exponent_geometry(places)
    left = np.square(means).sum() - np.square(np.einsum("gkp,k->gp", bases, means)).sum(axis=1)
    best = int(left.argmin())
    inside = 0 < best < len(_RATES) - 1
    rate = _refined(left, best) if inside else float(_RATES[best])
    law = PowerLaw(table, level, OpenInterval(None, None, None), OpenInterval(None, None, None), rate)
    limit = _limit(table, level)
    return PowerLaw(
        table,
        level,
        OpenInterval(law.asymptote if inside else None, *limit),
        _exponent(table, level, directions, rate if inside else None),
        rate,
    )


def spreads(values: np.ndarray, level: float) -> np.ndarray:
    """(…) half of the t intervals of means, from values (…, seeds)."""
    n = values.shape[-1]
    quantile = float(special.stdtrit(n - 1, (1 + level) / 2))
    half: np.ndarray = quantile * values.std(axis=-1, ddof=1) / math.sqrt(n)
    return half


def _exponent(table: BudgetTable, level: float, directions: np.ndarray, rate: float | None) -> OpenInterval:
    """All exponents that the seeds do not reject."""
    excess = _excess(directions @ table.values.T, level)
    low, high = _ends(np.log(_RATES), excess)
    span = table.span
    return OpenInterval(
        None if rate is None else rate / span,
        None if low is None else math.exp(low) / span,
        None if high is None else math.exp(high) / span,
    )


def _limit(table: BudgetTable, level: float) -> tuple[float | None, float | None]:
    """All limits on the side to which the scores move that the seeds do not reject; None where there is no end."""
    bases, directions = _limit_geometry(tuple(table.places))
    means = table.values.mean(axis=0)
    change = float(means[0] - means[-1])
    supposed = means[-1] - change * _REACH
    rest = means - supposed[:, None]
    fitted = rest @ bases.T
    rates = np.square(fitted).argmax(axis=1)
    chosen = directions[rates]
    values = chosen @ table.values.T - (chosen.sum(axis=1) * supposed)[:, None]
    # A limit that the scores would move away from is none.
    away = np.take_along_axis(fitted, rates[:, None], axis=1)[:, 0] * change < 0
    near, far = _ends(_REACH, np.where(away, np.inf, _excess(values, level)))
    ends = [None if end is None else float(means[-1] - change * end) for end in (near, far)]
    # The limit lies below the scores where they fall, above where they rise.
    return (ends[1], ends[0]) if change > 0 else (ends[0], ends[1])


def _excess(values: np.ndarray, level: float) -> np.ndarray:
    """|t| of each row (of one value per seed), less its quantile: up to zero, the row's hypothesis is not rejected."""
    seeds = values.shape[1]
    error = values.std(axis=1, ddof=1) / math.sqrt(seeds)
    return np.abs(values.mean(axis=1)) / np.maximum(error, 1e-300) - special.stdtrit(seeds - 1, (1 + level) / 2)


def _ends(places: np.ndarray, excess: np.ndarray) -> tuple[float | None, float | None]:
    """The hull of the places whose excess is not positive, ends interpolated; None where it reaches the last place."""
    kept = np.flatnonzero(excess <= 0)
    if not len(kept):
        nearest = int(excess.argmin())
        only = float(places[nearest])
        return (None if nearest == 0 else only, None if nearest == len(places) - 1 else only)
    first, last = int(kept[0]), int(kept[-1])
    return (
        None if first == 0 else _zero(places, excess, first - 1),
        None if last == len(places) - 1 else _zero(places, excess, last),
    )


def _zero(places: np.ndarray, excess: np.ndarray, at: int) -> float:
    """Where the excess passes through zero between `at` and the next place."""
    if not np.isfinite(excess[at : at + 2]).all():
        return float(places[at] if np.isfinite(excess[at]) else places[at + 1])
    share = excess[at] / (excess[at] - excess[at + 1])
    return float(places[at] + share * (places[at + 1] - places[at]))


def _refined(left: np.ndarray, best: int) -> float:
    """The vertex of the parabola through the smallest of `left` and its neighbours, over the logarithm of the rate."""
    before, here, after = left[best - 1 : best + 2]
    bend = before - 2 * here + after
    shift = 0.5 * (before - after) / bend if bend > 0 else 0.0
    return float(_RATES[best] * (_RATES[best + 1] / _RATES[best]) ** shift)


@lru_cache(maxsize=64)
def _exponent_geometry(places: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Of each rate: (rates, budgets, 2) what constant and factor can do, (rates, budgets) what it alone does."""
    x = np.array(places)
    decay = np.exp(-_RATES[:, None] * x)
    constant = np.ones_like(decay)
    bases = np.linalg.qr(np.stack([constant, decay - decay[:, -1:]], axis=2)).Q
    return bases, _freed(-x * decay, bases)


@lru_cache(maxsize=64)
def _limit_geometry(places: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Of each rate: (rates, budgets) the decay at norm 1, and the constant freed of decay and rate."""
    x = np.array(places)
    decay = np.exp(-_RATES[:, None] * x)
    bases = np.linalg.qr(np.stack([decay, -x * decay], axis=2)).Q
    return decay / np.linalg.norm(decay, axis=1, keepdims=True), _freed(np.ones_like(decay), bases)


def _freed(vectors: np.ndarray, bases: np.ndarray) -> np.ndarray:
    """The rows of `vectors` less their parts in the columns of their bases."""
    return vectors - np.einsum("gkp,gjp,gj->gk", bases, bases, vectors)
