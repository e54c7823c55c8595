"""The interval of an effect, or of an arm, that is told because it is the largest.

An estimate that was chosen for its size is more likely too large than too small. Given the estimates of the others, it
could only have been chosen where it is above the runner-up's, v. So it is not compared with all estimates that a true
value t could have given, but with those above v. With the estimate x, its error s and ν degrees of freedom, the sum
(x - t)² + ν s² says all that the scores say of the noise if t is the truth; given this sum, (x - t) / s is Student's t
beyond where x would be v:

    P(an estimate beyond x) = P(T > (x - t) / s) / P(T > (v - t) / s_v),   s_v² = s² + ((x - t)² - (v - t)²) / ν

The ends of the interval are the t at which this is (1 - level) / 2 and (1 + level) / 2. Where the runner-up is far
below, they are those of the plain t interval. The nearer it is, the nearer to zero are both ends. Two bounds keep the
interval finite and the estimate within: the lower end is no lower than that of the interval that holds for all members
together, and the upper end no lower than the estimate. Where the interval for all together holds zero, the lower end is
that of this interval, so that an effect that is not shown has zero inside. The law is exact for one common error; with
moderated errors it is as good as their degrees of freedom. docs/results/statistics.md has its coverage.

Sources: Andrews, Kitagawa and McCloskey, "Inference on Winners", Q. J. Econ. 139 (2024), for the conditional interval,
and for a simultaneous one as its bound; Lee, Sun, Sun and Taylor, Ann. Stat. 44 (2016), for conditioning on the other
estimates; Fithian, Sun and Taylor, arXiv:1410.2597, for unknown variances.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import special

from ablations.statistics.coding import Array

_HALVINGS = 32
_SAME = 1e-9


def runner_up(estimates: Array, covariance: Array) -> tuple[npt.NDArray[np.intp], Array]:
    """(tables,) place of the largest of (tables, effects) estimates, and the size that it had to reach to be that.

    The size is that of the runner-up, where estimates are independent. Otherwise the others move with the largest, and
    what does not move with it stays as it is.

    Args:
        estimates: (tables, effects), compared by their absolute values.
        covariance: (effects, effects) of the estimates, up to a factor.
    """
    rows, place = np.arange(len(estimates)), np.abs(estimates).argmax(axis=1)
    estimates = estimates * np.where(estimates[rows, place] < 0, -1.0, 1.0)[:, None]
    slope = covariance[place] / covariance[place, place][:, None]
    still = estimates - slope * estimates[rows, place][:, None]
    slope, bounded = np.clip(slope, _SAME - 1, 1 - _SAME), np.abs(slope) < 1 - _SAME
    bounds = np.maximum(still / (1 - slope), -still / (1 + slope))
    return place, np.where(bounded, bounds, 0.0).max(axis=1)


def lower_end(estimate: Array, needed: Array, error: Array, df: Array, level: float, together: Array) -> Array:
    """Of the interval of an estimate above zero that was told because it is at least `needed`.

    Args:
        estimate: (tables,).
        needed: (tables,) what `runner_up` says.
        error: (tables,) standard errors.
        df: (tables,) degrees of freedom of the errors.
        level: of the interval.
        together: (tables,) half widths of intervals that hold for all estimates together: the farthest that it reaches.
    """
    return _root(lambda truth: _beyond(truth, estimate, needed, error, df) > (1 - level) / 2, estimate - together,
                 estimate)  # fmt: skip


def upper_end(estimate: Array, needed: Array, error: Array, df: Array, level: float) -> Array:
    """Of the same interval: at least the estimate, at most the end of the plain t interval."""
    plain = special.stdtrit(df, (1 + level) / 2) * error
    return _root(lambda truth: _beyond(truth, estimate, needed, error, df) > (1 + level) / 2, estimate,
                 estimate + plain)  # fmt: skip


def largest_interval(
    estimate: float, needed: float, error: float, df: float, level: float, together: float
) -> tuple[float, float]:
    """Both ends of the interval of one effect; of either sign, with zero inside where `together` holds it."""
    if not np.isfinite(together) or error == 0:
        return estimate - together, estimate + together
    size = np.abs(np.array([estimate]))
    one = (size, np.array([needed]), np.array([error]), np.array([df]))
    low = float(lower_end(*one, level, np.array([together]))[0]) if size[0] > together else float(size[0] - together)
    high = float(upper_end(*one, level)[0])
    return (low, high) if estimate >= 0 else (-high, -low)


def _beyond(truth: Array, estimate: Array, needed: Array, error: Array, df: Array) -> Array:
    """Probability of an estimate beyond this one, given that it is beyond `needed`."""
    distance, bound = estimate - truth, needed - truth
    squares = error**2 + (distance**2 - bound**2) / df
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(squares > 0, bound / np.sqrt(np.maximum(squares, 0.0)), -np.inf)
    return np.asarray(special.stdtr(df, -distance / error) / special.stdtr(df, -ratio))


def _root(above: Callable[[Array], npt.NDArray[np.bool_]], low: Array, high: Array) -> Array:
    """(tables,) places between `low` and `high` beyond which `above` is true; an end where it is so, or nowhere."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        beyond = above(middle)
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    return np.asarray((low + high) / 2)
