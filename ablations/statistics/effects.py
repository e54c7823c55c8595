"""What a factorial fit is made of: runs going in; effects, terms and tests coming out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from ablations.statistics.intervals import Interval


@dataclass(frozen=True)
class Observation:
    """The score of one run; not finite (nan) if it diverged."""

    levels: Mapping[str, Any]
    seed: int
    value: float


@dataclass(frozen=True)
class Effect:
    """An estimate with its t interval.

    `standardised` is the estimate over the residual standard deviation (nan without one). `aliases` names the
    coefficients that cannot be told apart from this one, each with its factor: the estimate is of the sum. `contrast`
    are the weights of the model's coefficients that the estimate is made of.
    """

    name: str
    interval: Interval
    error: float
    df: int
    p: float
    standardised: float
    aliases: Mapping[str, float]
    contrast: npt.NDArray[np.float64] = field(compare=False, repr=False)


@dataclass(frozen=True)
class Residual:
    """What the model leaves: `sd` is the standard deviation of a run about it, nan without degrees of freedom."""

    df: int
    sum_of_squares: float

    @property
    def sd(self) -> float:
        return math.sqrt(self.sum_of_squares / self.df) if self.df else math.nan


@dataclass(frozen=True)
class FTest:
    """A sum of squares, given everything else in the model, against the residual; p = 1 without freedom."""

    df: int
    sum_of_squares: float
    f: float
    p: float

    @classmethod
    def of(cls, df: int, sum_of_squares: float, residual: Residual) -> FTest:
        """The test of `sum_of_squares` with `df` degrees of freedom; a residual of zero gives p = 0, or 1 for zero."""
        if residual.df == 0 or df == 0:
            return cls(df, sum_of_squares, math.nan, 1.0)
        if residual.sum_of_squares == 0:
            some = sum_of_squares > 0
            return cls(df, sum_of_squares, math.inf if some else math.nan, 0.0 if some else 1.0)
        f = (sum_of_squares / df) / (residual.sum_of_squares / residual.df)
        return cls(df, sum_of_squares, f, float(special.fdtrc(df, residual.df, f)))


@dataclass(frozen=True)
class Term:
    """A main effect or interaction: `test` of all of it, `p_holm` adjusted over all terms, and its `effects`.

    `effects` holds one effect if all factors have two levels: the difference high - low, and for an interaction half
    the difference of differences, as is usual for 2^k designs. Otherwise it holds, for every combination of levels,
    its deviation from what lower orders say (they sum to zero over each factor's levels); it is empty if a part of the
    term cannot be estimated, which `aliased` names.
    """

    name: str
    factors: tuple[str, ...]
    test: FTest
    p_holm: float
    partial_eta_squared: float
    effects: tuple[Effect, ...]
    aliased: tuple[str, ...]
