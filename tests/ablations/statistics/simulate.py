"""`python -m tests.ablations.statistics.simulate [--studies N]`: what studies say of equal arms, and how often wrongly.

Each row of the table is something that people do, each column a number of seeds. "Before" is the textbook's method on
the same tables: paired or pooled errors, each interval by itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from ablations.statistics import (
    FactorialModel,
    Observation,
    best_arm,
    compare_with,
    fit_factorial,
    holm,
    moderate,
    paired_differences,
    t_interval,
)

Table = npt.NDArray[np.float64]
SEEDS = (3, 5, 10)
ARMS = 9
CELLS = [dict(zip("abc", levels, strict=True)) for levels in product((0, 1), repeat=3)]
SIGN = np.array([2 * cell["a"] - 1 for cell in CELLS])


@dataclass(frozen=True)
class Practice:
    """Something that people do: `study` draws one with so many seeds, and says whether (before, now) it went wrong."""

    name: str
    counts: str
    study: Callable[[np.random.Generator, int], tuple[bool, bool]]


def scores(table: Table) -> dict[str, dict[int, float]]:
    """Arm -> seed -> score of an (arms, seeds) table."""
    return {str(arm): dict(enumerate(map(float, row))) for arm, row in enumerate(table)}


def blocks(rng: np.random.Generator, seeds: int) -> Table:
    """(arms, seeds) scores of equal arms; a seed moves all of them alike by twice the noise of a run."""
    return rng.normal(size=(ARMS, seeds)) + 2 * rng.normal(size=(1, seeds))


def told_apart(table: Table) -> tuple[bool, bool]:
    """Whether some arm is told apart from the best: by Holm's method over paired t tests, and by `compare_with`."""
    of_arm = scores(table)
    best = max(of_arm, key=lambda arm: sum(of_arm[arm].values()))
    before = min(one.p_holm for one in paired_differences(of_arm, best)) < 0.05
    return before, min(one.p for one in compare_with(of_arm, best)) < 0.05


def noisy(factor: float, reference: bool) -> Callable[[np.random.Generator, int], tuple[bool, bool]]:
    """Studies in which one arm varies `factor` times as much as the others; it may be the reference."""

    def study(rng: np.random.Generator, seeds: int) -> tuple[bool, bool]:
        table = blocks(rng, seeds)
        table[0] += (factor - 1) * rng.normal(size=seeds)
        if not reference:
            return told_apart(table)
        observations = [Observation({"arm": a}, s, float(table[a, s])) for a in range(ARMS) for s in range(seeds)]
        fit = fit_factorial(observations, {"arm": list(range(ARMS))})
        effects = [fit.difference("arm", arm, 0) for arm in range(1, ARMS)]
        before = min(holm([effect.p for effect in effects])) < 0.05
        return before, min(one.p_together for one in moderate(fit, effects)) < 0.05

    return study


def tuned(once: bool) -> Callable[[np.random.Generator, int], tuple[bool, bool]]:
    """A rate of three is chosen by a noisy validation score; a wrong one costs two standard deviations of a run."""

    def study(rng: np.random.Generator, seeds: int) -> tuple[bool, bool]:
        cost = np.array([2.0, 0.0, 2.0])
        chosen = (rng.normal(size=(ARMS, 1 if once else seeds, 3)) - cost / 2).argmax(axis=2)
        return told_apart(blocks(rng, seeds) - cost[chosen])

    return study


def changing(leading: bool, size: float = 1.0) -> Callable[[np.random.Generator, int], tuple[bool, bool]]:
    """An effect that changes with the seed by its own size: is it, or the leading one, outside its interval?"""

    def study(rng: np.random.Generator, seeds: int) -> tuple[bool, bool]:
        effect = size + size * rng.normal(size=(seeds, 1))
        fit = _model(seeds).fit((rng.normal(size=(seeds, 8)) + effect * SIGN / 2).ravel().tolist())
        found = moderate(fit, [term.effects[0] for term in fit.terms])
        place = max(range(7), key=lambda one: abs(found[one].interval.mean)) if leading else 0
        truth = 0.0 if place else size
        one, before = found[place], found[place].effect.interval
        now = one.together if leading else one.interval
        return not before.low <= truth <= before.high, not now.low <= truth <= now.high

    return study


def best_interval(rng: np.random.Generator, seeds: int) -> tuple[bool, bool]:
    """The best of equal arms is reported: is its true score outside the interval?"""
    of_arm = scores(rng.normal(size=(ARMS, seeds)))
    best = best_arm(of_arm, sign=1)
    plain = t_interval(list(of_arm[best.arm].values()))
    return not plain.low <= 0 <= plain.high, not best.low <= 0 <= best.high


def one_image(rng: np.random.Generator, seeds: int) -> tuple[bool, bool]:
    """Scores that hardly vary: is an arm told apart that got one image of 500 more right, at every seed?"""
    table = np.full((ARMS, seeds), 0.9)
    table[int(rng.integers(ARMS))] += 1 / 500
    of_arm = scores(table)
    best = max(of_arm, key=lambda arm: sum(of_arm[arm].values()))
    before = min(one.p for one in compare_with(of_arm, best)) < 0.05
    return before, min(one.p for one in compare_with(of_arm, best, resolution=1 / 500)) < 0.05


def diverging(rng: np.random.Generator, seeds: int) -> tuple[bool, bool]:
    """Runs diverge because they would have been bad: is an effect of one of three factors shown?"""
    table = rng.normal(size=(seeds, 8)) + rng.normal(size=(seeds, 1))
    gone = table < np.quantile(table, 0.2)
    observed = [
        Observation(cell, seed, float("nan") if gone[seed, place] else float(table[seed, place]))
        for seed in range(seeds)
        for place, cell in enumerate(CELLS)
    ]
    left_out = fit_factorial(observed, dict.fromkeys("abc", (0, 1)))
    mains = [term.effects[0] for term in left_out.terms if len(term.factors) == 1 and term.effects]
    before = bool(mains) and min(effect.p for effect in mains) < 0.05 / 3
    worst = np.where(gone, table[~gone].min(), table)
    fit = _model(seeds).fit(worst.ravel().tolist())
    found = moderate(fit, [term.effects[0] for term in fit.terms if len(term.factors) == 1])
    return before, min(one.p_together for one in found) < 0.05


def _model(seeds: int) -> FactorialModel:
    cells = CELLS * seeds
    return FactorialModel(dict.fromkeys("abc", (0, 1)), cells, [seed for seed in range(seeds) for _ in CELLS], 3)


PRACTICES: Sequence[Practice] = (
    Practice("nine equal arms", "some arm told apart from the best", noisy(1, reference=False)),
    Practice("one of nine arms three times as noisy", "some arm told apart from the best", noisy(3, reference=False)),
    Practice("a reference three times as noisy", "some arm differs from it", noisy(3, reference=True)),
    Practice("the rate is chosen once", "some arm told apart from the best", tuned(once=True)),
    Practice("the rate is chosen inside each seed", "some arm told apart from the best", tuned(once=False)),
    Practice("an effect changes with the seed by its own size", "its interval misses it", changing(leading=False)),
    Practice("the same, the largest effect is told", "its interval misses it", changing(leading=True)),
    Practice("no effects, the largest is told", "its interval misses zero", changing(leading=True, size=0.0)),
    Practice("the best arm's own score", "its interval misses it", best_interval),
    Practice("one image of 500, no spread", "it is told apart", one_image),
    Practice("the worst fifth of the runs diverges", "an effect is shown", diverging),
)


def rows(studies: int) -> Iterator[str]:
    """Lines of a Markdown table: the share of studies that go wrong, before and now."""
    yield f"| what people do | what is counted | {' | '.join(f'{seeds} seeds: before, now' for seeds in SEEDS)} |"
    yield "| --- | --- |" + " --- |" * len(SEEDS)
    for practice in PRACTICES:
        cells = []
        for seeds in SEEDS:
            rng = np.random.default_rng(seeds)
            wrong = np.mean([practice.study(rng, seeds) for _ in range(studies)], axis=0)
            cells.append(f"{100 * wrong[0]:.1f} %, **{100 * wrong[1]:.1f} %**")
        yield f"| {practice.name} | {practice.counts} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2000, help="studies a row and number of seeds (2000)")
    for line in rows(parser.parse_args().studies):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
