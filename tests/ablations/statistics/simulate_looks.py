"""Studies that add seeds until something shows: `python -m tests.ablations.statistics.simulate looks` prints the table.

Each row is a rule by which people stop, each column the numbers of seeds at which they look. "Before" are the
textbook's methods at 95 %, used again at every look; "now" is what a study with `until` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product

import numpy as np
import numpy.typing as npt
from scipy import special

from ablations.statistics import FactorialModel
from ablations.statistics.chosen.allpairs import flattered
from ablations.statistics.families import family, widening
from ablations.statistics.looks import level_at
from ablations.statistics.variances import PRIOR, errors
from ablations.until import Until
from tests.ablations.statistics.simulate_tables import ARMS

Array = npt.NDArray[np.float64]
LEVEL = 0.95
PLANS: Sequence[Until] = (
    Until(3, 20, 3, decide=True),
    Until(3, 10, 1, decide=True),
    Until(3, 20, 1, decide=True),
    Until(5, 20, 5, decide=True),
)
WIDTH = 2.0
"""Half of an interval at which a study stops, in standard deviations of a run."""
LEAD = 3.0
"""By how much the first arm is better, where it is."""


@dataclass(frozen=True)
class Design:
    """A complete design at one look: `weights` (effects, runs) make its family of effects of the scores."""

    model: FactorialModel
    contrasts: Array
    weights: Array


@cache
def pairs(arms: int, seeds: int) -> Design:
    """All pairs of arms."""
    cells = [{"arm": arm} for arm in range(arms)]
    model = _model({"arm": tuple(range(arms))}, cells, seeds)
    fit = model.fit([0.0] * model.runs)
    return _design(model, [fit.difference("arm", a, b).contrast for a, b in combinations(range(arms), 2)])


@cache
def factors(seeds: int) -> Design:
    """All effects of three factors of two levels."""
    cells = [dict(zip("abc", levels, strict=True)) for levels in product((0, 1), repeat=3)]
    model = _model(dict.fromkeys("abc", (0, 1)), cells, seeds)
    return _design(model, [term.effects[0].contrast for term in model.fit([0.0] * model.runs).terms])


def _model(of: dict[str, tuple[int, ...]], cells: list[dict[str, int]], seeds: int) -> FactorialModel:
    return FactorialModel(of, cells * seeds, [seed for seed in range(seeds) for _ in cells], len(of))


def _design(model: FactorialModel, contrasts: Sequence[Array]) -> Design:
    rows = np.array(contrasts)
    return Design(model, rows, model.run_weights(rows))


@dataclass(frozen=True)
class Told:
    """What many studies say at one look, (studies, effects) each: estimates, half widths alone and together."""

    estimates: Array
    alone: Array
    together: Array


def tell(design: Design, tables: Array, level: float) -> Told:
    """As `moderate`, of (studies, arms, seeds) tables."""
    runs = tables.transpose(0, 2, 1).reshape(len(tables), -1)
    rest = runs - (runs @ design.model.matrix.basis) @ design.model.matrix.basis.T
    error, df = errors(design.model, design.weights, rest, PRIOR)
    span = special.stdtrit(df, (1 + level) / 2) * error
    alone = widening(design.model) * span
    together = alone
    if len(design.weights) > 1:
        together = family(design.model, design.contrasts, level, PRIOR).quantile(level) * span
    return Told(runs @ design.weights.T, alone, together)


def t_half(values: Array, level: float) -> Array:
    """Half widths of Student's intervals over the last axis."""
    n = values.shape[-1]
    return np.asarray(special.stdtrit(n - 1, (1 + level) / 2) * values.std(axis=-1, ddof=1) / np.sqrt(n))


def paired(tables: Array, reference: npt.NDArray[np.int64], level: float) -> tuple[Array, Array]:
    """(studies, arms) differences to each study's `reference` with half widths; nothing known of the reference."""
    differences = tables - np.take_along_axis(tables, reference[:, None, None], axis=1)
    half = t_half(differences, level)
    half[np.arange(len(tables)), reference] = np.inf
    return differences.mean(axis=2), half


def equal(rng: np.random.Generator, studies: int, most: int, arms: int = ARMS) -> Array:
    """(studies, arms, seeds) scores of equal arms; a seed moves all of them alike by twice the noise of a run."""
    return rng.normal(size=(studies, arms, most)) + 2 * rng.normal(size=(studies, 1, most))


def some_pair(arms: int) -> Callable[[np.random.Generator, int, Until], list[tuple[float, float]]]:
    """Stop when an arm is told apart from the best: how often does that happen with equal arms?"""

    def count(rng: np.random.Generator, studies: int, until: Until) -> list[tuple[float, float]]:
        tables = equal(rng, studies, until.most, arms)
        before, now = np.zeros(studies, dtype=bool), np.zeros(studies, dtype=bool)
        for n in until.looks:
            part = tables[:, :, :n]
            holm = 1 - (1 - LEVEL) / (arms - 1)
            mean, half = paired(part, part.mean(axis=2).argmax(axis=1), holm)
            before |= (np.abs(mean) > half).any(axis=1)
            told = tell(pairs(arms, n), part, level_at(until.looks, n, LEVEL))
            now |= (np.abs(told.estimates) > told.together).any(axis=1)
        return [(float(before.mean()), float(now.mean()))]

    return count


def some_effect(rng: np.random.Generator, studies: int, until: Until) -> list[tuple[float, float]]:
    """Stop when an effect is shown; how often without effects? The same of one effect and its own interval."""
    tables = equal(rng, studies, until.most, 8)
    wrong = np.zeros((2, 2, studies), dtype=bool)
    for n in until.looks:
        design, part = factors(n), tables[:, :, :n]
        df = design.model.runs - len(design.model.matrix.names)
        runs = part.transpose(0, 2, 1).reshape(studies, -1)
        rest = runs - (runs @ design.model.matrix.basis) @ design.model.matrix.basis.T
        size = np.abs(runs @ design.weights.T) / np.sqrt(np.square(design.weights).sum(axis=1))
        t = size / np.sqrt(np.square(rest).sum(axis=1) / df)[:, None]
        wrong[0, 0] |= (t > special.stdtrit(df, 1 - (1 - LEVEL) / 2 / t.shape[1])).any(axis=1)
        wrong[1, 0] |= t[:, 0] > special.stdtrit(df, (1 + LEVEL) / 2)
        told = tell(design, part, level_at(until.looks, n, LEVEL))
        wrong[0, 1] |= (np.abs(told.estimates) > told.together).any(axis=1)
        wrong[1, 1] |= np.abs(told.estimates[:, 0]) > told.alone[:, 0]
    return [(float(before), float(now)) for before, now in wrong.mean(axis=2)]


def stopped(lead: float, narrow: bool) -> Callable[[np.random.Generator, int, Until], list[tuple[float, float]]]:
    """Stop by the rule, and see what each printed interval misses there, at 95 % of each look and of all looks.

    Args:
        lead: by how much the first of nine arms is better.
        narrow: stop when all intervals of differences to the best are narrow enough, else when all of them decide.
    """

    def count(rng: np.random.Generator, studies: int, until: Until) -> list[tuple[float, float]]:
        tables = equal(rng, studies, until.most)
        truth = np.array([lead] + [0.0] * (ARMS - 1))
        tables += truth[:, None]
        each = [_at_the_stop(tables, truth, until, looks, narrow) for looks in ((), until.looks)]
        return list(zip(*each, strict=True))

    return count


def _at_the_stop(tables: Array, truth: Array, until: Until, looks: Sequence[int], narrow: bool) -> list[float]:
    """Shares of intervals that miss: of all pairs, a pair's own, an arm's own, the best arm's; and seeds at the stop.

    Intervals hold at all `looks` together; at each by itself, if there are none.
    """
    rule = Until(until.first, until.most, until.add, halfwidth=WIDTH) if narrow else until
    going, stops = np.ones(len(tables), dtype=bool), np.zeros(len(tables))
    missed = np.zeros((4, len(tables)))
    first, second = np.array([*combinations(range(ARMS), 2)]).T
    for n in until.looks:
        places, level = np.flatnonzero(going), level_at(looks, n, LEVEL)
        if not len(places):
            break
        part = tables[places, :, :n]
        told = tell(pairs(ARMS, n), part, level)
        best = part.mean(axis=2).argmax(axis=1)
        of_best = (first == best[:, None]) | (second == best[:, None])
        low, high = told.estimates - told.together, told.estimates + told.together
        ends = [
            list(zip(*(end[place][of_best[place]] for end in (low, high)), strict=True)) for place in range(len(best))
        ]
        stop = np.array([all(rule.enough((*pair, None)) for pair in study) for study in ends]) | (n == until.most)
        now = places[stop]
        missed[0, now] = (np.abs(told.estimates - (truth[first] - truth[second])) > told.together).any(axis=1)[stop]
        mean, half = paired(part, np.full(len(part), ARMS - 1), level)
        missed[1, now] = (np.abs(mean - (truth - truth[-1]))[:, :-1] > half[:, :-1]).mean(axis=1)[stop]
        own = t_half(part, level)
        missed[2, now] = (np.abs(part.mean(axis=2) - truth) > own).mean(axis=1)[stop]
        rows = np.arange(len(part))
        miss = part[rows, best].mean(axis=1) - truth[best]  # what the best arm's mean has too much
        error = part[rows, best].std(axis=1, ddof=1) / np.sqrt(n)
        plain = special.stdtrit(n - 1, (1 + level) / 2)
        missed[3, now] = ((miss > flattered(ARMS, n, level) * error) | (-miss > plain * error))[stop]
        stops[now], going[now] = n, False
    return [*map(float, missed.mean(axis=1)), float(stops.mean())]


AT_THE_STOP = (
    "some interval of all pairs misses",
    "a paired difference's interval misses",
    "an arm's own interval misses",
    "the best arm's interval misses",
    "seeds at the stop, mean",
)
RULES: Sequence[
    tuple[str, Sequence[str], Callable[[np.random.Generator, int, Until], list[tuple[float, float]]]]
] = (
    ("two equal arms, until they are told apart", ["they are"], some_pair(2)),
    ("nine equal arms, until one is told apart from the best", ["one is"], some_pair(ARMS)),
    ("three factors without effects, until one is shown", ["some effect is", "its own interval misses 0"], some_effect),
    ("nine equal arms, until differences are narrow", AT_THE_STOP, stopped(0.0, narrow=True)),
    ("one of nine arms is better, until the best is decided", AT_THE_STOP, stopped(LEAD, narrow=False)),
)  # fmt: skip


def rows(studies: int) -> Iterator[str]:
    """Lines of a Markdown table."""
    names = [f"looks at {until.looks[0]}, {until.looks[1]}, …, {until.most} seeds: before, now" for until in PLANS]
    yield f"| seeds are added | what is counted | {' | '.join(names)} |"
    yield "| --- | --- |" + " --- |" * len(PLANS)
    for name, counts, count in RULES:
        columns = [count(np.random.default_rng(until.most + until.add), studies, until) for until in PLANS]
        for place, counted in enumerate(counts):
            cells = [_cell(*column[place], counted) for column in columns]
            yield f"| {name} | {counted} | {' | '.join(cells)} |"


def _cell(before: float, now: float, counted: str) -> str:
    if counted == AT_THE_STOP[-1]:
        return f"{before:.1f}, **{now:.1f}**"
    return f"{100 * before:.1f} %, **{100 * now:.1f} %**"
