"""How often intervals of a rank correlation of few members hold what they are about, under correlations that are known.

Known and measured scores come from a normal copula, or from one with tails (Student's t of three degrees of freedom),
with a given correlation on Spearman's scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import stats

from ablations.statistics.ranks import Compared, agreement, over_seeds, seed_draws

Scores = npt.NDArray[np.float64]
GROUPS = ((3,), (5,), (3, 5, 5))
TRUTHS = (0.0, 0.5, 0.8, 0.95)
TAILS = 3.0
"""Degrees of freedom of the t copula."""


def rows(studies: int) -> Iterator[str]:
    """Lines of two Markdown tables: intervals for other members, then those for other seeds."""
    titles = [f"true {truth:g}" for truth in TRUTHS]
    yield f"| members of the groups | copula | interval | {' | '.join(titles)} |"
    yield "| --- | --- | --- |" + " --- |" * len(TRUTHS)
    for sizes in GROUPS:
        for name, tails in (("normal", math.inf), ("t, 3 degrees", TAILS)):
            cells = [members(sizes, truth, tails, studies) for truth in TRUTHS]
            for row, method in enumerate(("Bonett and Wright", "**inverted**")):
                texts = [
                    f"{100 * held[row]:.1f} %, {widths[row]:.2f}, {100 * none[row]:.0f} %"
                    for held, widths, none in cells
                ]
                yield f"| {', '.join(map(str, sizes))} | {name} | {method} | {' | '.join(texts)} |"
    yield ""
    yield "| members of the groups | noise of a run | holds | one value only |"
    yield "| --- | --- | --- | --- |"
    for sizes in GROUPS:
        for noise in (0.3, 1.0, 3.0):
            held, certain = other_seeds(sizes, noise, max(1, studies // 10))
            yield f"| {', '.join(map(str, sizes))} | {noise:g} | {100 * held:.1f} % | {100 * certain:.0f} % |"


def members(sizes: Sequence[int], truth: float, tails: float, studies: int) -> tuple[Scores, Scores, Scores]:
    """Share of intervals that hold the truth, their mean width, and the share of studies without one, of both methods.

    A study without an interval counts as one whose interval is all of -1 to 1.
    """
    rng = np.random.default_rng(len(sizes))
    r = normal_correlation(truth, tails)
    ends: list[tuple[tuple[float, float] | None, tuple[float, float]]] = []
    for _ in range(studies):
        seen = [stats.rankdata(scores) for scores in drawn(rng, sizes, r, tails)]
        ends.append(both(tuple(tuple(map(float, ranks)) for ranks in seen)))
    held, widths, none = np.zeros(2), np.zeros(2), np.zeros(2)
    for pair in ends:
        for row, each in enumerate(pair):
            low, high = each or (-1.0, 1.0)
            held[row] += low <= truth <= high
            widths[row] += high - low
            none[row] += each is None
    return held / studies, widths / studies, none / studies


def drawn(rng: np.random.Generator, sizes: Sequence[int], r: float, tails: float) -> list[Scores]:
    """Measured scores of each group, in the order of its known ones."""
    groups = []
    for size in sizes:
        known, noise = rng.normal(size=(2, size))
        shared = 1.0 if math.isinf(tails) else np.sqrt(tails / rng.chisquare(tails, size))
        measured = (r * known + math.sqrt(1 - r * r) * noise) * shared
        groups.append(measured[(known * shared).argsort()])
    return groups


@cache
def normal_correlation(truth: float, tails: float) -> float:
    """The copula's own correlation for one on Spearman's scale; of the t copula by bisection over drawn members."""
    if math.isinf(tails):
        return 2 * math.sin(math.pi * truth / 6)
    rng = np.random.default_rng(1)
    known, noise = rng.normal(size=(2, 10**5))
    shared = np.sqrt(tails / rng.chisquare(tails, 10**5))
    low, high = 0.0, 1.0
    for _ in range(12):
        r = (low + high) / 2
        seen = stats.spearmanr(known * shared, (r * known + math.sqrt(1 - r * r) * noise) * shared).statistic
        low, high = (r, high) if seen < truth else (low, r)
    return r


@cache
def both(ranks: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, float] | None, tuple[float, float]]:
    """Bonett and Wright's interval, None where there is none, and the inverted one."""
    groups = [Compared(range(len(own)), own) for own in ranks]
    weights = [len(own) - 1 for own in ranks]
    correlation = sum(
        weight * stats.spearmanr(range(len(own)), own).statistic for weight, own in zip(weights, ranks, strict=True)
    ) / sum(weights)
    return fisher(float(correlation), sum(weights) + 1), inverted(
        round(float(correlation), 9), tuple(map(len, ranks)), groups
    )


_INVERTED: dict[tuple[float, tuple[int, ...]], tuple[float, float]] = {}


def inverted(correlation: float, sizes: tuple[int, ...], groups: Sequence[Compared]) -> tuple[float, float]:
    """The interval of `agreement`, which without ties depends on the correlation alone."""
    key = correlation, sizes
    if key not in _INVERTED:
        result = agreement(groups)
        assert result is not None
        _INVERTED[key] = result.members
    return _INVERTED[key]


def fisher(correlation: float, members: int) -> tuple[float, float] | None:
    """Bonett and Wright's interval: Fisher's z with the variance (1 + ρ²/2) / (n - 3)."""
    if members <= 3 or abs(correlation) > 1 - 1e-9:
        return None
    half = stats.norm.ppf(0.975) * math.sqrt((1 + correlation**2 / 2) / (members - 3))
    return math.tanh(math.atanh(correlation) - half), math.tanh(math.atanh(correlation) + half)


def other_seeds(sizes: Sequence[int], noise: float, studies: int) -> tuple[float, float]:
    """Share of intervals over three seeds that hold the correlation without noise, and of those of one value.

    True means have the standard deviation 1 and a correlation of 0.5; a seed moves all arms alike by 1.
    """
    rng = np.random.default_rng(len(sizes))
    held = certain = 0
    for _ in range(studies):
        true = drawn(rng, sizes, normal_correlation(0.5, math.inf), math.inf)
        table = np.concatenate(true)[:, None] + rng.normal(size=(1, 3)) + noise * rng.normal(size=(sum(sizes), 3))
        draws = seed_draws({str(arm): dict(enumerate(map(float, row))) for arm, row in enumerate(table)})
        assert draws is not None
        groups, exact, first = [], [], 0
        for own in true:
            places = range(first, first + len(own))
            columns = np.stack([draws[str(place)] for place in places], axis=1)
            groups.append(Compared(range(len(own)), table[places].mean(axis=1), columns))
            exact.append((len(own) - 1) * stats.spearmanr(range(len(own)), own).statistic)
            first += len(own)
        ends = over_seeds(groups)
        assert ends is not None
        truth = sum(exact) / sum(size - 1 for size in sizes)
        held += ends[0] - 1e-9 <= truth <= ends[1] + 1e-9
        certain += ends[1] - ends[0] < 1e-9
    return held / studies, certain / studies
