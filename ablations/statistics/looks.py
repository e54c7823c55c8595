"""Intervals and p-values of a study that looks at its scores several times and may stop at each look.

Whoever looks at 95 % intervals after 3, 6, …, 20 seeds and stops when one of them shows something is wrong more often
than in 5 % of the studies: each look is another chance. The looks are planned here, and each is held to a stricter
level, such that an interval misses the truth at *any* look with the promised probability. Then it does not matter by
which rule the study stops, and an interval may be read at whichever look it stopped at.

The error of a look is in proportion to the cube of its number of seeds. So little is spent on early looks, at which few
seeds show little, and a study that goes on to its last look ends with intervals hardly wider than those of a study that
looked once. How much there is to spend is found by drawing: scores of eight arms without any effect, the p of the
largest of their seven effects at each look with the errors of `moderated.py`, and the smallest p of all looks, each
over the cube. The largest of a family changes from look to look, so that its p at different looks hang together less
than those of a mean or of a pair of arms, which need levels that are no stricter. docs/results/statistics.md has what
each of them does.

Sources: Jennison and Turnbull, "Interim analyses: the repeated confidence interval approach", J. R. Stat. Soc. B 51
(1989); Kim and DeMets, "Design and analysis of group sequential tests based on the type I error spending rate
function", Biometrika 74 (1987), for powers of the share of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ablations.statistics.coding import Array
from ablations.statistics.families import DRAWS
from ablations.statistics.intervals import check_level
from ablations.statistics.variances import Parts, combine, quantiles

SPENDING = 3
"""Power of the share of seeds that the error of a look is in proportion to."""
_EFFECTS = 7
_LEVEL = 0.95
_CHUNK = 1_000


def level_at(looks: Sequence[int], seeds: int, level: float = 0.95) -> float:
    """The level of the look at so many seeds, for intervals to hold with the probability `level` at all `looks`.

    Args:
        looks: numbers of seeds, two or more, ascending; with fewer than two looks there is nothing to allow for.
        seeds: of this look.
        level: as of the intervals of a study that looks once.

    Raises:
        InputError: a level that is not between 0 and 1.
    """
    check_level("level", level)
    if len(looks) < 2:
        return level
    return 1 - _share(looks, seeds) * float(np.quantile(_smallest(tuple(looks)), 1 - level))


def p_at_all(looks: Sequence[int], seeds: int, p: float) -> float:
    """The probability that at some of the `looks` the scores say as much against nothing as a `p` at this one does."""
    if len(looks) < 2:
        return p
    smallest = _smallest(tuple(looks))
    below = np.searchsorted(smallest, p / _share(looks, seeds), side="right")
    return float(1 + below) / (1 + len(smallest))


def _share(looks: Sequence[int], seeds: int) -> float:
    return float(min(1.0, seeds / looks[-1]) ** SPENDING)


@lru_cache(maxsize=16)
def _smallest(looks: tuple[int, ...]) -> Array:
    """Sorted, the smallest of the p-values at the looks, each over its share, of each drawn study."""
    rng = np.random.default_rng(0)
    largest = np.empty((len(looks), DRAWS))
    for start in range(0, DRAWS, _CHUNK):
        scores = rng.standard_normal((looks[-1], _EFFECTS, _CHUNK))
        sums, squares = scores.cumsum(axis=0), np.square(scores).cumsum(axis=0)
        for place, n in enumerate(looks):
            variances = (squares[n - 1] - np.square(sums[n - 1]) / n) / (n - 1) / n
            pooled = np.broadcast_to(variances.mean(axis=0), variances.shape)
            error, df = combine(Parts(variances, pooled, n - 1, n - 1, _EFFECTS * (n - 1)))
            ratios = np.abs(sums[n - 1] / n) / (quantiles(df, _LEVEL) * error)
            largest[place, start : start + _CHUNK] = ratios.max(axis=0)
    ranks = largest.argsort(axis=1).argsort(axis=1)
    shares = np.array([_share(looks, n) for n in looks])
    return np.asarray(np.sort((((DRAWS - ranks) / DRAWS) / shares[:, None]).min(axis=0)))
