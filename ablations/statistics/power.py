"""How many seeds a difference needs, and what difference a number of seeds can show.

Of paired comparisons it is exact, by the noncentral t. Of effects with moderated errors (`moderated.py`) half widths
are drawn: given one, an effect is shown with a probability of the normal distribution; `Shown` takes its mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize, special, stats

from ablations.statistics.coding import Array
from ablations.statistics.factorial import FactorialModel
from ablations.statistics.intervals import check_level
from ablations.statistics.variances import Parts, combine, quantiles
from operators.errors import InputError, check_number

MOST_SEEDS = 100_000
_DRAWS = 20_000
_POINTS = 200
"""Quantiles of the drawn half widths that means are taken over."""


def t_power(difference: float, error: float, df: float, level: float = 0.95) -> float:
    """Chance that a two-sided t test at 1 - `level` rejects zero when the truth is `difference`.

    Args:
        difference: what is to be found, in the units of the score.
        error: true standard error of its estimate: sd/√n for paired differences; for an effect of a two-level
            factorial over N runs 2σ/√N.
        df: degrees of freedom of the estimated error; n - 1, or the model's residual ones.
        level: of the interval; the test has size 1 - level.

    Source: T = (estimate / estimated error) is noncentral t with noncentrality difference/error.

    Raises:
        InputError: `error` or `df` not above zero, or a level that is not between 0 and 1.
    """
    check_level("level", level)
    if not (error > 0 and df > 0):
        raise InputError(f"error={error!r} and df={df!r} must both be above 0")
    bound = float(special.stdtrit(df, (1 + level) / 2))
    shift = abs(difference) / error
    # The lower tail, mirrored: scipy's nct.cdf is nan at some shifts.
    return float(stats.nct.sf(bound, df, shift) + stats.nct.sf(bound, df, -shift))


def paired_power(difference: float, sd: float, n: int, level: float = 0.95) -> float:
    """Power of a paired comparison over `n` seeds; `sd` is that of the paired differences. Raises as `t_power` does."""
    check_number("n", n, least=2, integer=True)
    return t_power(difference, sd / math.sqrt(n), n - 1, level)


def seeds_needed(difference: float, sd: float, level: float = 0.95, power: float = 0.8) -> int:
    """Fewest seeds at which a paired comparison finds `difference` with at least this power.

    Raises:
        InputError: a difference of zero, an sd not above zero, a power not between 1 - level and 1, or more than
            100,000 seeds.
    """
    _check_power(power, level)
    if difference == 0:
        raise InputError("difference=0 is never found: give the smallest difference that matters")
    if paired_power(difference, sd, MOST_SEEDS, level) < power:
        raise InputError(f"difference={difference!r} with sd={sd!r} needs more than {MOST_SEEDS:,} seeds")
    low, high = 1, 2
    while paired_power(difference, sd, high, level) < power:
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        if paired_power(difference, sd, middle, level) < power:
            low = middle
        else:
            high = middle
    return high


def smallest_difference(error: float, df: float, level: float = 0.95, power: float = 0.8) -> float:
    """Smallest true difference found with this power, given the standard error and its degrees of freedom.

    Raises:
        InputError: as `t_power`, and a power not between 1 - level and 1.
    """
    _check_power(power, level)
    most = 2.0
    while t_power(most, 1.0, df, level) < power:
        most *= 2
    shift = optimize.brentq(lambda shift: t_power(shift, 1.0, df, level) - power, 0.0, most, xtol=1e-10)
    # Checked here so that a wrong error is refused, though the search is in units of it.
    t_power(shift, error, df, level)
    return float(shift) * error


def smallest_paired_difference(n: int, sd: float, level: float = 0.95, power: float = 0.8) -> float:
    """Smallest difference that a paired comparison over `n` seeds finds with this power; `sd` of the differences.

    Raises as `smallest_difference` does.
    """
    check_number("n", n, least=2, integer=True)
    return smallest_difference(sd / math.sqrt(n), n - 1, level, power)


def _check_power(power: float, level: float) -> None:
    check_level("level", level)
    check_level("power", power)
    if power <= 1 - level:
        raise InputError(f"power={power!r} must be above the test's size 1 - level = {1 - level:g}; 0.8 is usual")


@dataclass(frozen=True)
class Shown:
    """The chance that an effect of a design is shown where all arms are equally noisy, now and with other seeds.

    An effect is shown where its estimate is more than `ratio` half widths, of the interval before any family is allowed
    for, from zero. The share of the family's error that a single effect has is taken to be the same at any number of
    seeds. Shifts are effects over their true standard error.

    Attributes:
        seeds: of the design as it is.
        per_seed: runs of each seed.
        coefficients: of the model, but for those of seeds.
        by_arm: whether the design has one factor.
        level: of the intervals.
        ratio: critical value of the family.
    """

    seeds: int
    per_seed: int
    coefficients: int
    by_arm: bool
    level: float
    ratio: float

    @classmethod
    def of(cls, model: FactorialModel, level: float, ratio: float) -> Shown:
        """That of the effects of a model; missing runs are shared out over the seeds."""
        coefficients = len(model.matrix.names) - (model.seeds - 1)
        return cls(model.seeds, round(model.runs / model.seeds), coefficients, len(model.factors) == 1, level, ratio)

    def chance(self, shift: float, seeds: int) -> float:
        """Of an effect with `seeds` seeds; 0 where they leave no degree of freedom."""
        halves = self._halves(seeds)
        if halves is None:
            return 0.0
        return _beyond(shift, self._ratio(seeds) * halves)

    def smallest_shift(self, power: float) -> float:
        """The shift that is shown with this power by the design as it is.

        Raises:
            InputError: a power not between 1 - level and 1.
        """
        _check_power(power, self.level)
        return _smallest_shift(self, power)

    def seeds_needed(self, shift: float, power: float, most: int) -> int | None:
        """Fewest seeds for an effect whose shift is `shift` with one seed; None beyond `most`."""
        if self.chance(shift * math.sqrt(most), most) < power:
            return None
        low, high = 1, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.chance(shift * math.sqrt(middle), middle) >= power else (middle, high)
        return high

    def _halves(self, seeds: int) -> Array | None:
        pooled_df = seeds * self.per_seed - self.coefficients - (seeds - 1)
        return _halves(seeds - 1, pooled_df, self.by_arm, self.level) if pooled_df > 0 else None

    def _ratio(self, seeds: int) -> float:
        if seeds == self.seeds:
            return self.ratio
        now, then = self._halves(self.seeds), self._halves(seeds)
        if now is None or then is None:
            return math.inf
        return _same_error(now.tobytes(), self.ratio, then.tobytes())


@lru_cache(maxsize=256)
def _smallest_shift(shown: Shown, power: float) -> float:
    most = 2.0
    while shown.chance(most, shown.seeds) < power:
        most *= 2
    return float(optimize.brentq(lambda shift: shown.chance(shift, shown.seeds) - power, 0.0, most, xtol=1e-6))


def _beyond(shift: float, bounds: Array) -> float:
    """Chance that a normal estimate lies beyond one of the `bounds` on either side, each as likely."""
    return float((special.ndtr(shift - bounds) + special.ndtr(-shift - bounds)).mean())


@lru_cache(maxsize=1024)
def _same_error(now: bytes, ratio: float, then: bytes) -> float:
    """The ratio that gives other half widths the error that `ratio` gives those of now."""
    bounds, others = np.frombuffer(now), np.frombuffer(then)
    error = _beyond(0.0, ratio * bounds)
    return float(optimize.brentq(lambda factor: _beyond(0.0, factor * others) - error, 1e-3, 1e3, xtol=1e-4))


@lru_cache(maxsize=1024)
def _halves(own_df: int, pooled_df: int, by_arm: bool, level: float) -> Array:
    """Drawn half widths of an effect's interval, in units of its true standard error."""
    rng = np.random.default_rng(0)
    arms = min(2, pooled_df // own_df) if by_arm and own_df else 1
    spent = min(arms * own_df, pooled_df)
    of_arms = rng.chisquare(own_df, (arms, _DRAWS)) / own_df if own_df else np.ones((1, _DRAWS))
    own = of_arms.mean(axis=0)[:, None]
    others = rng.chisquare(pooled_df - spent, _DRAWS)[:, None] if pooled_df > spent else np.zeros_like(own)
    pooled = (spent * own + others) / pooled_df
    freedom = own**2 * arms**2 * own_df / np.square(of_arms).sum(axis=0)[:, None]
    error, df = combine(Parts(own, pooled, arms * own_df, freedom, pooled_df))
    return np.quantile((quantiles(df, level) * error)[:, 0], (np.arange(_POINTS) + 0.5) / _POINTS)
