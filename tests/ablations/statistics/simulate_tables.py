"""The methods of `simulate.py` on tables of scores alone, thousands at a time: seconds, where studies take hours.

`python -m tests.ablations.statistics.simulate tables` prints them. What is counted is what a study says in its answer,
which `simulate.practices` counts from trials to the sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations, product

import numpy as np
import numpy.typing as npt
from scipy import special

from ablations.statistics import FactorialModel, allow_for_images, error_of_images
from ablations.statistics.chosen.allpairs import flattered
from ablations.statistics.chosen.largest import lower_end, runner_up, upper_end
from ablations.statistics.families import family, widening
from ablations.statistics.variances import PRIOR, errors, quantiles

Array = npt.NDArray[np.float64]
ARMS, IMAGES, LEVEL = 9, 500, 0.95
SEEDS = (3, 5, 10)
_MAINS = 2 * np.array(list(product((0, 1), repeat=3))).T - 1
SIGNS = np.array([_MAINS[list(names)].prod(axis=0) for size in (1, 2, 3) for names in combinations(range(3), size)])
"""(effects, arms) signs of the arms in the effects of a 2^3 factorial, mains first."""
SIGN = SIGNS[0]
OF_ARM = 1.15
"""Standard deviation of an arm's own difficulties of images, in log odds: their error is then half that of a run."""


class Design:
    """A complete design and a family of its effects: all pairs of nine arms, or all of them less the first, or 2^3."""

    def __init__(self, kind: str, seeds: int) -> None:
        if kind == "factors":
            cells = [dict(zip("abc", levels, strict=True)) for levels in product((0, 1), repeat=3)]
            factors: Mapping[str, range] = dict.fromkeys("abc", range(2))
        else:
            cells, factors = [{"arm": arm} for arm in range(ARMS)], {"arm": range(ARMS)}
        places = [seed for seed in range(seeds) for _ in cells]
        self.model = FactorialModel(factors, cells * seeds, places, len(factors))
        fit = self.model.fit([0.0] * self.model.runs)
        if kind == "factors":
            self.contrasts = np.array([term.effects[0].contrast for term in fit.terms])
        else:
            pairs = combinations(range(ARMS), 2) if kind == "pairs" else ((arm, 0) for arm in range(1, ARMS))
            self.contrasts = np.array([fit.difference("arm", *pair).contrast for pair in pairs])
        self.weights = self.model.run_weights(self.contrasts)

    def estimates(self, tables: Array) -> Array:
        """(tables, effects) of (tables, seeds, arms) scores."""
        return np.asarray(tables.reshape(len(tables), -1) @ self.weights.T)

    def halves(self, tables: Array) -> Array:
        """Half widths before the family, or a few seeds, are allowed for."""
        error, df = self.errors(tables)
        return np.asarray(quantiles(df, LEVEL) * error)

    def errors(self, tables: Array) -> tuple[Array, Array]:
        """(tables, effects) standard errors, and their degrees of freedom."""
        runs, basis = tables.reshape(len(tables), -1), self.model.matrix.basis
        return errors(self.model, self.weights, runs - (runs @ basis) @ basis.T, PRIOR)

    def together(self) -> float:
        """What half widths are multiplied by to hold for the family."""
        return family(self.model, self.contrasts, LEVEL, PRIOR).quantile(LEVEL)

    def some(self, tables: Array, truth: Array | float = 0.0) -> float:
        """Share of tables of which some interval of the family misses the truth."""
        wrong = np.abs(self.estimates(tables) - truth) > self.together() * self.halves(tables)
        return float(wrong.any(axis=1).mean())

    def largest(self, tables: Array, truth: Array) -> Array:
        """Shares of tables of which the largest effect's truth is missed: by the interval for it alone, by that for all
        effects together, and by that for the largest.
        """
        estimates, rows = self.estimates(tables), np.arange(len(tables))
        places, needed = runner_up(estimates, self.weights @ self.weights.T)
        error, df, halves = (part[rows, places] for part in (*self.errors(tables), self.halves(tables)))
        wide, together = widening(self.model) * error, self.together() * halves
        size, right = np.abs(estimates[rows, places]), truth[places] * np.sign(estimates[rows, places])
        low = np.where(size > together, lower_end(size, needed, wide, df, LEVEL, together), size - together)
        missed = (right < low) | (right > upper_end(size, needed, wide, df, LEVEL))
        alone, all_effects = (np.abs(size - right) > half for half in (widening(self.model) * halves, together))
        return np.asarray([alone.mean(), all_effects.mean(), missed.mean()])


Draw = Callable[[np.random.Generator, int, int], float]


def equal(rng: np.random.Generator, tables: int, seeds: int, arms: int = ARMS) -> Array:
    """(tables, seeds, arms) scores; a seed moves all arms alike by twice the noise of a run."""
    return rng.normal(size=(tables, seeds, arms)) + 2 * rng.normal(size=(tables, seeds, 1))


def louder(kind: str, factor: float) -> Draw:
    """The first arm varies `factor` times as much as the others."""

    def share(rng: np.random.Generator, tables: int, seeds: int) -> float:
        scores = equal(rng, tables, seeds)
        scores[:, :, 0] += (factor - 1) * rng.normal(size=(tables, seeds))
        return Design(kind, seeds).some(scores)

    return share


def tuned(once: bool) -> Draw:
    """A rate of three is chosen by a noisy validation score; a wrong one costs two standard deviations of a run."""

    def share(rng: np.random.Generator, tables: int, seeds: int) -> float:
        cost = np.array([2.0, 0.0, 2.0])
        chosen = (rng.normal(size=(tables, 1 if once else seeds, ARMS, 3)) - cost / 2).argmax(axis=3)
        return Design("pairs", seeds).some(equal(rng, tables, seeds) - cost[chosen])

    return share


def changing(size: float, which: str) -> Draw:
    """An effect changes with the seed by its own size; its interval, that of the leading effect, or some one misses."""

    def share(rng: np.random.Generator, tables: int, seeds: int) -> float:
        design = Design("factors", seeds)
        effect = size + size * rng.normal(size=(tables, seeds, 1))
        scores = rng.normal(size=(tables, seeds, 8)) + effect * SIGN / 2
        truth = np.array([size, *[0.0] * 6])
        if which == "some":
            return design.some(scores, truth)
        if which == "leading":
            return float(design.largest(scores, truth)[-1])
        errors_of_first = np.abs(design.estimates(scores)[:, 0] - size)
        return float((errors_of_first > widening(design.model) * design.halves(scores)[:, 0]).mean())

    return share


def best(spread: float) -> Draw:
    """The best of nine equal arms; a seed moves all of them by `spread`."""

    def share(rng: np.random.Generator, tables: int, seeds: int) -> float:
        scores = rng.normal(size=(tables, seeds, ARMS)) + spread * rng.normal(size=(tables, seeds, 1))
        own = scores[np.arange(tables), :, scores.mean(axis=1).argmax(axis=1)]
        rest = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=2, keepdims=True)
        rest += scores.mean(axis=(1, 2), keepdims=True)
        residual = np.square(rest).sum(axis=(1, 2)) / ((ARMS - 1) * (seeds - 1))
        common = np.maximum(scores.mean(axis=2).var(axis=1, ddof=1) - residual / ARMS, 0.0)
        shared = common / (common + residual)
        factors = np.array([flattered(ARMS, seeds, LEVEL, part) for part in shared])
        error, mean = own.std(axis=1, ddof=1) / np.sqrt(seeds), own.mean(axis=1)
        second = np.sort(scores.mean(axis=1), axis=1)[:, -2]
        needed, df = (second - shared * mean) / (1 - shared), np.full(tables, seeds - 1.0)
        low = lower_end(mean, needed, error, df, LEVEL, factors * error)
        plain = special.stdtrit(seeds - 1, (1 + LEVEL) / 2)
        return float(((low > 0) | (-mean > plain * error)).mean())

    return share


def diverging(rng: np.random.Generator, tables: int, seeds: int) -> float:
    """The worst fifth of the runs diverges and counts as the worst of the others; is a main effect of three shown?"""
    design = Design("factors", seeds)
    scores = rng.normal(size=(tables, seeds, 8)) + rng.normal(size=(tables, seeds, 1))
    gone = scores < np.quantile(scores, 0.2, axis=(1, 2), keepdims=True)
    worst = np.where(gone, np.inf, scores).min(axis=(1, 2), keepdims=True)
    scores = np.where(gone, worst, scores)
    wrong = np.abs(design.estimates(scores)) > design.together() * design.halves(scores)
    return float(wrong[:, :3].any(axis=1).mean())


def answers(rng: np.random.Generator, arms: int, seeds: int) -> npt.NDArray[np.bool_]:
    """(arms, seeds, images) whether each run gets each image right.

    An image is hard for all arms by a normal deviate on the scale of log odds, and for each arm by one more; then each
    run answers it by chance. So arms are equal on all images of the kind, and not on these.
    """
    odds = 1.7 + rng.normal(size=IMAGES) + OF_ARM * rng.normal(size=(arms, 1, IMAGES))
    return np.asarray(rng.random((arms, seeds, IMAGES)) < 1 / (1 + np.exp(-odds)))


def images(which: str, both: bool) -> Draw:
    """Is zero outside a negative control's interval, or some interval of the family; for other images if `both`?

    Any of the seven effects may be the control.
    """

    def share(rng: np.random.Generator, tables: int, seeds: int) -> float:
        design = Design("factors", seeds)
        factor = design.together() if which == "some" else widening(design.model)
        members = len(design.weights)
        told = members if which == "some" else 1
        weights = seeds * design.weights.reshape(members, seeds, 8)
        wrong = []
        for _ in range(tables // 4):  # a table here costs as much as thousands of the others
            right = answers(rng, 8, seeds).transpose(1, 0, 2).astype(np.float64)
            scores = right.mean(axis=2)[None]
            halves = factor * design.halves(scores)[0]
            if both:
                added = [error_of_images(of_effect) for of_effect in np.einsum("esa,sai->esi", weights, right)]
                parts = zip(halves, added, design.errors(scores)[1][0], strict=True)
                halves = np.array([allow_for_images(half, error, LEVEL, told, df) for half, error, df in parts])
            missed = np.abs(design.estimates(scores)[0]) > halves
            wrong.append(missed.any() if which == "some" else missed.mean())
        return float(np.mean(wrong))

    return share


TABLES: tuple[tuple[str, str, Draw], ...] = (
    ("nine equal arms", "some arm told apart from another", louder("pairs", 1)),
    ("one of nine arms twice as noisy", "some arm told apart from another", louder("pairs", 2)),
    ("one of nine arms three times as noisy", "some arm told apart from another", louder("pairs", 3)),
    ("nine equal arms", "some arm differs from the reference", louder("first", 1)),
    ("a reference three times as noisy", "some arm differs from it", louder("first", 3)),
    ("the rate is chosen inside each seed", "some arm told apart from another", tuned(once=False)),
    ("the rate is chosen once", "some arm told apart from another", tuned(once=True)),
    ("no effects", "the interval of one misses zero", changing(0.0, "own")),
    ("no effects", "some interval of those told together misses zero", changing(0.0, "some")),
    ("an effect changes with the seed by its own size", "its interval misses it", changing(1.0, "own")),
    ("the same", "some interval of those told together misses", changing(1.0, "some")),
    ("the same, the largest effect is told", "its interval misses it", changing(1.0, "leading")),
    ("the best of nine arms", "its interval misses its score", best(0.0)),
    ("the same, seeds move all arms by a run's noise", "its interval misses its score", best(1.0)),
    ("the same, by twice that", "its interval misses its score", best(2.0)),
    ("the worst fifth of the runs diverges", "an effect is shown", diverging),
    ("a negative control, over seeds", "zero is not in its interval on other test images", images("own", both=False)),
    ("a negative control, for other test images too", "zero is not in its interval", images("own", both=True)),
    ("no effects, over seeds", "some interval misses zero on other test images", images("some", both=False)),
    ("no effects, for other test images too", "some interval misses zero", images("some", both=True)),
)


def rows(tables: int) -> Iterator[str]:
    """Lines of a Markdown table: the share of tables of which something wrong is said."""
    yield f"| what people do | what is counted | {' | '.join(f'{seeds} seeds' for seeds in SEEDS)} |"
    yield "| --- | --- |" + " --- |" * len(SEEDS)
    for name, counted, share in TABLES:
        shares = [share(np.random.default_rng(seeds), tables, seeds) for seeds in SEEDS]
        yield f"| {name} | {counted} | {' | '.join(f'{100 * each:.1f} %' for each in shares)} |"


LARGEST: tuple[tuple[str, tuple[float, ...], float], ...] = (
    ("none", (0,) * 7, 0),
    ("one, of 2 standard errors", (2, 0, 0, 0, 0, 0, 0), 0),
    ("one, of 4", (4, 0, 0, 0, 0, 0, 0), 0),
    ("one, of 8", (8, 0, 0, 0, 0, 0, 0), 0),
    ("two, of 8 and 8", (8, 8, 0, 0, 0, 0, 0), 0),
    ("two, of 8 and 7", (8, 7, 0, 0, 0, 0, 0), 0),
    ("three, of 8", (8, 8, 8, 0, 0, 0, 0), 0),
    ("seven, of 0, 1, … 6", tuple(range(7)), 0),
    ("seven, of 2", (2,) * 7, 0),
    ("seven, of 8", (8,) * 7, 0),
    ("one, of 4, changes with the seed by half a run's noise", (4, 0, 0, 0, 0, 0, 0), 0.5),
    ("one, of 4, changes by a run's noise", (4, 0, 0, 0, 0, 0, 0), 1),
    ("one, of 12, changes by a run's noise", (12, 0, 0, 0, 0, 0, 0), 1),
)
"""What effects there are, in standard errors of an effect that does not change; and how the first changes with the
seed, in standard deviations of a run."""


def largest_rows(tables: int) -> Iterator[str]:
    """Lines of a Markdown table: how often the interval of the largest of seven effects misses it, by three methods."""
    yield f"| effects | {' | '.join(f'{seeds} seeds: alone, together, largest' for seeds in SEEDS)} |"
    yield "| --- |" + " --- |" * len(SEEDS)
    for name, sizes, change in LARGEST:
        cells = []
        for seeds in SEEDS:
            draw, truth = np.random.default_rng(seeds), np.sqrt(0.5 / seeds) * np.array(sizes)
            moved = change * draw.normal(size=(tables, seeds, 1)) * SIGN / 2
            scores = draw.normal(size=(tables, seeds, 8)) + truth @ SIGNS / 2 + moved
            alone, together, largest = 100 * Design("factors", seeds).largest(scores, truth)
            cells.append(f"{alone:.1f}, {together:.1f}, **{largest:.1f}**")
        yield f"| {name} | {' | '.join(cells)} |"
