"""Whether an effect is shown to be nothing that matters, which "not significant" does not show."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import special

from ablations.statistics.intervals import check_level, half_width
from operators.errors import InputError


@dataclass(frozen=True)
class Equivalence:
    """Two statements on one effect: is zero within its interval, and is it shown to be smaller than the margin?

    `p` is that of the two one-sided tests; `low` and `high` bound the interval at `level`; `smallest_margin` is the
    margin at which equivalence would just have been shown.
    """

    margin: float
    level: float
    low: float
    high: float
    p: float
    smallest_margin: float

    @property
    def zero_inside(self) -> bool:
        """Zero lies within the interval: what a negative control has to show."""
        return self.low <= 0 <= self.high

    @property
    def equivalent(self) -> bool:
        """The effect is shown to lie within ± margin, with error probability 1 - level."""
        return self.p < 1 - self.level

    @property
    def statement(self) -> str:
        """Both, in a sentence."""
        where = "within" if self.zero_inside else "outside"
        zero = f"zero is {where} the {100 * self.level:g} % interval [{self.low:.4g}, {self.high:.4g}]"
        shown = "is shown" if self.equivalent else "is not shown"
        return f"{zero}; the effect {shown} to be smaller than {self.margin:g} (two one-sided tests, p = {self.p:.2g})"


def equivalence(estimate: float, error: float, df: float, margin: float, level: float = 0.95) -> Equivalence:
    """Two one-sided t tests of |effect| < margin, beside the plain interval.

    Args:
        estimate: of the effect, in the units of the score.
        error: its standard error (`Effect.error`; sd/√n for paired differences).
        df: degrees of freedom of the error; with none, nothing is shown (p = 1).
        margin: the smallest effect that would matter; it has to be declared before the data are seen.
        level: of the interval; each one-sided test has size 1 - level, which is to ask whether the interval at
            2 level - 1 (90 % for 0.95) lies within the margin.

    Source: Schuirmann, "A comparison of the two one-sided tests procedure …", J. Pharmacokin. Biopharm. 15 (1987).

    Raises:
        InputError: a margin not above zero, or a level that is not between 0 and 1.
    """
    check_level("level", level)
    if not margin > 0:
        raise InputError(f"margin={margin!r} must be above 0: the smallest effect that would matter")
    estimate, error = float(estimate), float(error)
    half = half_width(error, df, level)
    if df <= 0:
        p, reach = 1.0, math.inf
    elif error == 0:
        p, reach = float(abs(estimate) >= margin), 0.0
    else:
        p = float(special.stdtr(df, (abs(estimate) - margin) / error))
        reach = float(special.stdtrit(df, level)) * error
    return Equivalence(margin, level, estimate - half, estimate + half, p, abs(estimate) + reach)
