"""Every arm against a reference arm, paired by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from ablations.statistics.intervals import Interval, half_width, t_test
from operators.errors import InputError, check_choice


@dataclass(frozen=True)
class PairedDifference:
    """An arm less the reference, over the seeds at which both have a score.

    `simultaneous` holds for all arms of the comparison at once. `d_z` is the mean difference over the standard
    deviation of the differences, `g_z` the same freed of its small-sample bias; both are nan where they are not
    defined (fewer than two seeds, or three for `g_z`; differences that do not vary).
    """

    arm: str
    reference: str
    interval: Interval
    simultaneous: Interval
    p: float
    p_holm: float
    d_z: float
    g_z: float
    seeds: tuple[int, ...]
    unmatched: tuple[int, ...]

    @property
    def note(self) -> str:
        """What was left out, in words; empty when every seed has its partner."""
        if not self.unmatched:
            return ""
        left_out = ", ".join(map(str, self.unmatched))
        return f"{self.arm} and {self.reference} share {len(self.seeds)} seeds; without a partner, left out: {left_out}"


def paired_differences(
    scores: Mapping[str, Mapping[int, float]], reference: str, level: float = 0.95, resolution: float = 0.0
) -> tuple[PairedDifference, ...]:
    """Differences of all other arms to `reference`, in the order of `scores` (arm -> seed -> score).

    A score that is not finite (a run that diverged) counts as absent. Each interval is Student's, over the differences
    at common seeds alone: it asks nothing of the other arms, unlike the pooled intervals of `fit_factorial`. p-values
    are adjusted by Holm's method. The simultaneous intervals are Bonferroni's, Student's at level 1 - (1 - level)/arms:
    differences to one reference are correlated, and Bonferroni's inequality holds whatever the correlation; Dunnett's
    narrower intervals would ask for one variance in all arms. `resolution` is the smallest step of a score: differences
    are taken to vary by at least that much, so that scores without spread are no certainty.

    Raises:
        InputError: a reference that is no arm, no other arm, or a level that is not between 0 and 1.
    """
    check_choice("reference", reference, scores)
    others = [arm for arm in scores if arm != reference]
    if not others:
        raise InputError(f"{reference} is the only arm: a comparison needs another one")
    differences = [
        _difference(arm, scores[arm], reference, scores[reference], level, len(others), resolution) for arm in others
    ]
    adjusted = holm([difference.p for difference in differences])
    return tuple(_with_holm(difference, p) for difference, p in zip(differences, adjusted, strict=True))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given: reject where one is at most α, and no true null is rejected but with
    probability α, whatever the dependence.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1)
    return [float(value) for value in adjusted]


def hedges_factor(df: int) -> float:
    """J(df) = Γ(df/2) / (√(df/2) Γ((df - 1)/2)), which makes a standardised mean unbiased; nan below two degrees.

    Source: Hedges, "Distribution theory for Glass's estimator of effect size", J. Educ. Stat. 6 (1981), eq. 6e.
    """
    if df < 2:
        return math.nan
    return math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)


def _difference(
    arm: str,
    values: Mapping[int, float],
    reference: str,
    others: Mapping[int, float],
    level: float,
    arms: int,
    resolution: float,
) -> PairedDifference:
    mine = {seed for seed, value in values.items() if math.isfinite(value)}
    theirs = {seed for seed, value in others.items() if math.isfinite(value)}
    seeds, unmatched = tuple(sorted(mine & theirs)), tuple(sorted((values.keys() | others.keys()) - (mine & theirs)))
    differences = [values[seed] - others[seed] for seed in seeds]
    n, df = len(seeds), len(seeds) - 1
    sd = max(float(np.std(differences, ddof=1)), resolution) if n > 1 else math.nan
    error = sd / math.sqrt(n) if n else math.nan
    interval = Interval(fmean(differences), half_width(error, df, level), n) if n else Interval(math.nan, math.inf, 0)
    d_z = interval.mean / sd if sd > 0 else math.nan
    return PairedDifference(
        arm=arm,
        reference=reference,
        interval=interval,
        simultaneous=Interval(interval.mean, half_width(error, df, 1 - (1 - level) / arms), n),
        p=t_test(interval.mean, error, df),
        p_holm=math.nan,
        d_z=d_z,
        g_z=d_z * hedges_factor(df),
        seeds=seeds,
        unmatched=unmatched,
    )


def _with_holm(difference: PairedDifference, p: float) -> PairedDifference:
    return PairedDifference(**{**vars(difference), "p_holm": p})
