"""Distributions that are drawn: of the largest effect of a family, and of an effect that changes with the seed.

The largest ratio |estimate| / half width of a family is drawn for tables of arms that are all alike, with the same runs
missing. With three seeds an arm that is noisier than the others, above all one that all others are compared with,
alarms more often than arms that are alike do. So it is drawn as well for tables in which the arm with the largest part
in the family is `LOUDER`, and a family's quantile is the larger of two: that of arms alike, and that of a mixture of
both kinds, `LOUD` parts of the second to one of the first.

Source: Westfall and Young, Resampling-Based Multiple Testing (1993), for the largest ratio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ablations.statistics.coding import Array
from ablations.statistics.factorial import FactorialModel
from ablations.statistics.variances import PRIOR, Parts, combine, errors, quantiles

DRAWS = 20_000
"""Tables of equal arms that a family's distribution is made of: a level of 5 % is met within 0.3 points."""
LOUDER = 3.0
"""How many times as much as the others an arm varies that is planned for."""
LOUD = 2
CHANGED = 3.0
"""Variance, in multiples of that of other effects, of an effect that is planned for. In a 2^3 factorial it is this
large where the effect's standard deviation over seeds is that of a run."""
HELD = 0.937
"""Share of its 95 % intervals that then hold."""
_LEVEL = 0.95
_CHUNK = 1_000


@dataclass(frozen=True)
class Family:
    """Sorted, the largest ratio |estimate| / half width of each drawn table: of arms alike, and of both kinds."""

    equal: Array
    mixed: Array

    def quantile(self, level: float) -> float:
        """Of the largest ratio."""
        return max(float(np.quantile(drawn, level)) for drawn in (self.equal, self.mixed))

    def p(self, ratio: float) -> float:
        """Share of tables whose largest ratio is as large; with the table itself counted, it is never zero."""
        return max(_share_beyond(drawn, ratio) for drawn in (self.equal, self.mixed))


def _share_beyond(drawn: Array, ratio: float) -> float:
    beyond = len(drawn) - np.searchsorted(drawn, ratio, side="left")
    return float(1 + beyond) / (1 + len(drawn))


def family(model: FactorialModel, contrasts: Array, level: float, prior: float) -> Family:
    """The family of the effects that the (effects, coefficients) `contrasts` make, with intervals at `level`.

    An infinite `prior` is for the textbook's errors, and its families of arms alike.
    """
    runs = tuple(tuple(members.tolist()) for members in model.runs_of_seeds)
    shape = (len(model.factors), model.matrix.basis.tobytes(), contrasts.tobytes(), runs)
    return _drawn(_Design(model, contrasts, shape), level, prior)


@dataclass(frozen=True)
class _Design:
    """A model and a family of effects; two with the same `key` have the same distribution."""

    model: FactorialModel
    contrasts: Array
    key: tuple[object, ...]

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Design) and self.key == other.key


@lru_cache(maxsize=64)
def _drawn(design: _Design, level: float, prior: float) -> Family:
    model = design.model
    weights = model.run_weights(design.contrasts)
    spreads = [np.ones(model.runs)]
    if math.isfinite(prior):
        spreads.append(_louder(model, weights))
    rng = np.random.default_rng(0)
    largest: list[list[Array]] = [[] for _ in spreads]
    for _ in range(DRAWS // _CHUNK):
        noise = rng.standard_normal((_CHUNK, model.runs))
        for drawn, spread in zip(largest, spreads, strict=True):
            drawn.append(_ratios(model, weights, noise * spread, level, prior).max(axis=1))
    equal, *loud = (np.concatenate(drawn) for drawn in largest)
    return Family(np.sort(equal), np.sort(np.concatenate([equal, *(loud * LOUD)])))


def _louder(model: FactorialModel, weights: Array) -> Array:
    """(runs,) standard deviations: `LOUDER` in the arm with the largest part in the family."""
    parts = np.square(weights).sum(axis=0)
    loudest = max(model.runs_of_arms, key=lambda members: round(float(parts[members].sum() / parts.sum()), 9))
    spread = np.ones(model.runs)
    spread[loudest] = LOUDER
    return spread


def _ratios(model: FactorialModel, weights: Array, tables: Array, level: float, prior: float) -> Array:
    """(tables, effects) |estimate| / half width of (tables, runs) scores."""
    rest = tables - (tables @ model.matrix.basis) @ model.matrix.basis.T
    error, df = errors(model, weights, rest, prior)
    return np.asarray(np.abs(tables @ weights.T) / (quantiles(df, level) * error))


def widening(model: FactorialModel, prior: float = PRIOR) -> float:
    """By what the error of an effect alone is longer than its variance says, for `HELD` to hold; 1 or more.

    The effect changes with the seed (one factor: an arm is louder), and the design is complete.
    """
    pooled_df = model.runs - len(model.matrix.names)
    if math.isinf(prior) or model.seeds < 2:
        return 1.0
    return _widening(model.seeds, pooled_df, len(model.factors) == 1, prior)


@lru_cache(maxsize=256)
def _widening(seeds: int, pooled_df: int, by_arm: bool, prior: float) -> float:
    own_df = seeds - 1
    if pooled_df <= own_df:
        return 1.0  # nothing but the effect's own variance: Student's interval
    rng = np.random.default_rng(0)
    if by_arm:
        ratios = _ratios_of_a_louder_arm(rng, seeds, round(pooled_df / own_df) + 1, prior)
    else:
        own = CHANGED * rng.chisquare(own_df, DRAWS) / own_df
        others = rng.chisquare(pooled_df - own_df, DRAWS)
        pooled = (own_df * own + others) / pooled_df
        parts = Parts(own[:, None], pooled[:, None], own_df, own_df, pooled_df)
        error, df = combine(parts, prior)
        ratios = np.abs(math.sqrt(CHANGED) * rng.standard_normal(DRAWS)) / (quantiles(df, _LEVEL) * error)[:, 0]
    return max(1.0, float(np.quantile(ratios, HELD)))


def _ratios_of_a_louder_arm(rng: np.random.Generator, seeds: int, arms: int, prior: float) -> Array:
    """|estimate| / half width of the difference of two arms, one of them louder."""
    cells = [{"arm": arm} for arm in range(arms)] * seeds
    model = FactorialModel({"arm": range(arms)}, cells, [seed for seed in range(seeds) for _ in range(arms)], 1)
    weights = np.array([cell["arm"] == 0 for cell in cells]) - 1.0 * np.array([cell["arm"] == 1 for cell in cells])
    weights = weights[None] / seeds
    spread = np.where(weights[0] > 0, LOUDER, 1.0)
    drawn = [
        _ratios(model, weights, rng.standard_normal((_CHUNK, model.runs)) * spread, _LEVEL, prior)[:, 0]
        for _ in range(DRAWS // _CHUNK)
    ]
    return np.concatenate(drawn)
