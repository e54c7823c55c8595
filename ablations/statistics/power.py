"""How many seeds a difference needs, and what difference a number of seeds can show: exact, by the noncentral t."""

from __future__ import annotations

import math

from scipy import optimize, special, stats

from ablations.statistics.intervals import check_level
from operators.errors import InputError, check_number

MOST_SEEDS = 100_000


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
