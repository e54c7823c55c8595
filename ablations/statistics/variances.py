"""Variances of effects: the effect's own, the pooled one, and the compromise between both (`moderated.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import special

from ablations.statistics.coding import Array
from ablations.statistics.factorial import FactorialModel

PRIOR = 1.0
"""Degrees of freedom that the pooled variance counts for."""


@dataclass(frozen=True)
class Parts:
    """The two variances of estimates, (tables, effects) each.

    Attributes:
        own: of each effect by itself.
        pooled: from the residual of all runs.
        own_df: degrees of freedom of `own` where all arms are alike, a number or (effects,).
        freedom: those that the residuals leave it, a number or (tables, effects).
        pooled_df: degrees of freedom of `pooled`.
    """

    own: Array
    pooled: Array
    own_df: float | Array
    freedom: float | Array
    pooled_df: int


def errors(
    model: FactorialModel, weights: Array, rest: Array, prior: float, floor: Array | float = 0.0
) -> tuple[Array, Array]:
    """(tables, effects) standard errors and degrees of freedom of `weights` @ scores.

    Args:
        model: of the runs.
        weights: (effects, runs).
        rest: (tables, runs) residuals.
        prior: degrees of freedom that the pooled variance counts for; infinite for the pooled variance alone.
        floor: (effects,) smallest variances.
    """
    parts = (_by_arm if len(model.factors) == 1 else _by_seed)(model, weights, rest)
    own, pooled = np.maximum(parts.own, floor), np.maximum(parts.pooled, floor)
    return combine(Parts(own, pooled, parts.own_df, parts.freedom, parts.pooled_df), prior)


def _by_seed(model: FactorialModel, weights: Array, rest: Array) -> Parts:
    """Own variances from the estimates of single seeds."""
    pooled_df, own_df = model.runs - len(model.matrix.names), model.seeds - 1
    own = np.zeros((len(rest), len(weights)))
    for members in model.runs_of_seeds:
        own += np.square(rest[:, members] @ weights[:, members].T)
    if own_df:
        own *= model.seeds / own_df
    return Parts(own, _pooled(weights, rest, pooled_df), own_df, own_df, pooled_df)


def _by_arm(model: FactorialModel, weights: Array, rest: Array) -> Parts:
    """Own variances that add up those of the arms, each with seeds - 1 degrees of freedom."""
    pooled_df = model.runs - len(model.matrix.names)
    squares, factors = np.square(rest) * (model.runs / pooled_df), np.square(weights)
    own, fourth = np.zeros((len(rest), len(weights))), np.zeros((len(rest), len(weights)))
    share, alike = np.zeros(len(weights)), np.zeros(len(weights))
    for members in model.runs_of_arms:
        of_arm = squares[:, members] @ factors[:, members].T
        own += of_arm
        fourth += of_arm**2
        weight = factors[:, members].sum(axis=1)
        share += weight
        alike += weight**2
    own_df = share**2 / alike * (model.seeds - 1)
    freedom = np.divide(own**2 * (model.seeds - 1), fourth, out=np.ones_like(own) * own_df, where=fourth > 0)
    return Parts(own, _pooled(weights, rest, pooled_df), own_df, freedom, pooled_df)


def _pooled(weights: Array, rest: Array, df: int) -> Array:
    return np.asarray(np.square(rest).sum(axis=1)[:, None] / df * np.square(weights).sum(axis=1))


def combine(parts: Parts, prior: float = PRIOR) -> tuple[Array, Array]:
    """Standard errors and degrees of freedom of the compromise between both variances."""
    own, pooled, total = parts.own, parts.pooled, parts.pooled_df
    nominal = np.asarray(parts.own_df, dtype=np.float64)
    share = nominal / (nominal + prior)
    if not share.any():
        return np.sqrt(pooled), np.full_like(pooled, float(total))
    variance = share * own + (1 - share) * pooled
    # The pooled variance holds the own one: its degrees of freedom are counted once.
    inner = np.minimum(nominal, total)
    outer = total - inner
    others = np.maximum(total * pooled - inner * own, 0.0) / np.maximum(outer, 1)
    of_own, of_others = share + (1 - share) * inner / total, (1 - share) * outer / total
    spread = (of_own * own) ** 2 / np.maximum(np.minimum(parts.freedom, inner), 1)
    spread = spread + (of_others * others) ** 2 / np.maximum(outer, 1)
    sure = (of_own * own + of_others * others) ** 2
    df = np.divide(sure, spread, out=np.full_like(spread, float(total)), where=spread > 0)
    return np.sqrt(variance), np.clip(df, 1.0, total)


def quantiles(df: Array, level: float) -> Array:
    """Quantiles of t for two-sided intervals, by interpolation in 1/df: exactly they would take most of the time."""
    inverse_df, exact = _grid(level)
    return np.asarray(np.interp(1 / df, inverse_df, exact))


@lru_cache(maxsize=64)
def _grid(level: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    inverse_df = np.linspace(0, 1, 4001)[1:]
    return inverse_df, special.stdtrit(1 / inverse_df, (1 + level) / 2)
