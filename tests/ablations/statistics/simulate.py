"""What studies say, and how often wrongly: `python -m tests.ablations.statistics.simulate TABLE`.

`practices` and `power` go from a table of trials to the sentence, through `summary.derive` as `python -m ablations`
does: what a study says is read from its answer, the ends of intervals from the numbers that the answer rounds. Each row
of `practices` is something that people do, each column a number of seeds; "before" is the textbook's method on the same
tables: paired or pooled errors, each interval by itself.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ablations.analysis import summary
from ablations.statistics import Observation, compare_with, fit_factorial, holm, paired_differences, t_interval
from tests.ablations.fake_study import predictions
from tests.ablations.statistics import simulate_looks, simulate_ranks, simulate_tables
from tests.ablations.statistics.simulate_layouts import (
    CELLS,
    NAMES,
    RUN,
    Layout,
    Table,
    arms_layout,
    arms_told_apart,
    effects_shown,
    factors_layout,
    result,
)
from tests.ablations.statistics.simulate_tables import ARMS, IMAGES, SEEDS, SIGN, answers


@dataclass(frozen=True)
class Practice:
    """Something that people do: `study` draws one with so many seeds, and says whether (before, now) it went wrong."""

    name: str
    counts: str
    study: Callable[[np.random.Generator, int], tuple[bool, bool]]


def scores(table: Table) -> dict[str, dict[int, float]]:
    """Arm -> seed -> score of an (arms, seeds) table."""
    return {str(arm): dict(enumerate(map(float, row))) for arm, row in enumerate(table)}


def blocks(rng: np.random.Generator, seeds: int, arms: int = ARMS) -> Table:
    """(arms, seeds) scores of equal arms; a seed moves all of them alike by twice the noise of a run."""
    return rng.normal(size=(arms, seeds)) + 2 * rng.normal(size=(1, seeds))


def told_apart(table: Table) -> tuple[bool, bool]:
    """Whether some arm is told apart from the best: by Holm's method over paired t tests, and in the answer."""
    of_arm = scores(table)
    best = max(of_arm, key=lambda arm: sum(of_arm[arm].values()))
    before = min(each.p_holm for each in paired_differences(of_arm, best)) < 0.05
    return before, arms_told_apart(arms_layout().derive(table)["answer"]) > 0


def noisy(factor: float, reference: bool) -> Callable[[np.random.Generator, int], tuple[bool, bool]]:
    """Studies in which one arm varies `factor` times as much as the others; it may be the reference."""

    def study(rng: np.random.Generator, seeds: int) -> tuple[bool, bool]:
        table = blocks(rng, seeds)
        table[0] += (factor - 1) * rng.normal(size=seeds)
        if not reference:
            return told_apart(table)
        observations = [Observation({"arm": a}, s, float(table[a, s])) for a in range(ARMS) for s in range(seeds)]
        fit = fit_factorial(observations, {"arm": list(range(ARMS))})
        before = min(holm([fit.difference("arm", arm, 0).p for arm in range(1, ARMS)])) < 0.05
        names = [f"mixer {name} rather than a" for name in NAMES[1:]]
        return before, effects_shown(arms_layout(asks=True).derive(table)["answer"], names) > 0

    return study


def tuned(once: bool) -> Callable[[np.random.Generator, int], tuple[bool, bool]]:
    """A rate of three is chosen by a noisy validation score; a wrong one costs two standard deviations of a run."""

    def study(rng: np.random.Generator, seeds: int) -> tuple[bool, bool]:
        cost = np.array([2.0, 0.0, 2.0])
        chosen = (rng.normal(size=(ARMS, 1 if once else seeds, 3)) - cost / 2).argmax(axis=2)
        return told_apart(blocks(rng, seeds) - cost[chosen])

    return study


def pooled_effects(table: Table) -> list[Any]:
    """The textbook's effects of an (8 arms, seeds) table, mains first."""
    observed = [Observation(cell, s, float(table[a, s])) for s in range(table.shape[1]) for a, cell in enumerate(CELLS)]
    return [term.effects[0] for term in fit_factorial(observed, dict.fromkeys("abc", (0, 1))).terms]


def changing(size: float, which: str) -> Callable[[np.random.Generator, int], tuple[bool, bool]]:
    """The first effect changes with the seed by its own size. `which` interval misses the truth: its own one, that of
    the leading effect, or some one of the family?"""

    def study(rng: np.random.Generator, seeds: int) -> tuple[bool, bool]:
        effect = size + size * rng.normal(size=(1, seeds))
        table = rng.normal(size=(8, seeds)) + effect * SIGN[:, None] / 2
        rows, pooled = result(factors_layout().derive(table))["effects"], pooled_effects(table)
        truth = [size, *[0.0] * 6]
        places = list(range(7)) if which == "some" else [0]
        if which == "leading":
            places = [place for place in range(7) if rows[place]["low_largest"] is not None]
        family = {"own": "", "leading": "_largest", "some": "_together"}[which]
        before = any(not pooled[p].interval.low <= truth[p] <= pooled[p].interval.high for p in places)
        return before, any(not rows[p][f"low{family}"] <= RUN * truth[p] <= rows[p][f"high{family}"] for p in places)

    return study


def best_interval(spread: float) -> Callable[[np.random.Generator, int], tuple[bool, bool]]:
    """The best of equal arms is reported: is its true score outside the interval? Seeds move all arms by `spread`."""

    def study(rng: np.random.Generator, seeds: int) -> tuple[bool, bool]:
        table = rng.normal(size=(ARMS, seeds)) + spread * rng.normal(size=(1, seeds))
        best = result(arms_layout().derive(table))["best"]
        plain = t_interval(table[table.mean(axis=1).argmax()].tolist())
        return not plain.low <= 0 <= plain.high, not best["low"] <= 0.8 <= best["high"]

    return study


def one_image(rng: np.random.Generator, seeds: int) -> tuple[bool, bool]:
    """Scores that hardly vary: is an arm told apart that got one image of 500 more right, at every seed?"""
    table = np.zeros((ARMS, seeds))
    table[int(rng.integers(ARMS))] += 1 / IMAGES / RUN
    of_arm = scores(table)
    of_arm = dict(sorted(of_arm.items(), key=lambda row: -sum(row[1].values())))
    before = min(each.p for each in compare_with(of_arm, next(iter(of_arm)))) < 0.05
    study = arms_layout().study(table)
    for record in study.records:
        record.metrics["test/n"] = float(IMAGES)  # type: ignore[index]
    return before, arms_told_apart(summary.derive(study)["answer"]) > 0


def diverging(rng: np.random.Generator, seeds: int) -> tuple[bool, bool]:
    """Runs diverge because they would have been bad: is an effect of one of three factors shown?"""
    table = rng.normal(size=(8, seeds)) + rng.normal(size=(1, seeds))
    gone = table < np.quantile(table, 0.2)
    observed = [
        Observation(cell, seed, float("nan") if gone[place, seed] else float(table[place, seed]))
        for seed in range(seeds)
        for place, cell in enumerate(CELLS)
    ]
    left_out = fit_factorial(observed, dict.fromkeys("abc", (0, 1)))
    mains = [term.effects[0] for term in left_out.terms if len(term.factors) == 1 and term.effects]
    before = bool(mains) and min(effect.p for effect in mains) < 0.05 / 3
    return before, effects_shown(factors_layout().derive(table, gone)["answer"], _NAMES_OF_FACTORS) > 0


def images(claim: str) -> Callable[[np.random.Generator, int], tuple[bool, bool]]:
    """Arms that are equal on all images of the kind, tested on 500 of them, whose error is half a run's deviation.

    The claim is that of a negative control, or of the largest of the effects told together:
    before by the interval over seeds, now by the one for other test images too.
    """

    def study(rng: np.random.Generator, seeds: int) -> tuple[bool, bool]:
        right = answers(rng, 8, seeds)
        layout = factors_layout(control=claim == "control")
        with tempfile.TemporaryDirectory() as path:
            table = (right.mean(axis=2) - 0.8) / RUN
            made = layout.study(table, folder=Path(path))
            for number, of_run in enumerate(right.transpose(1, 0, 2).reshape(-1, IMAGES)):
                (Path(path) / str(number)).mkdir()
                predictions(Path(path) / str(number), of_run.tolist())
            rows = result(summary.derive(made))["effects"]
        if claim == "control":
            (row,) = (row for row in rows if row["control"])
            return not row["low"] <= 0 <= row["high"], not row["low_images"] <= 0 <= row["high_images"]
        seeds_alone = any(not row["low_together"] <= 0 <= row["high_together"] for row in rows)
        return seeds_alone, any(not row["low_together_images"] <= 0 <= row["high_together_images"] for row in rows)

    return study


_NAMES_OF_FACTORS = [f"{name} 1 rather than 0" for name in "abc"]
APART = "some arm told apart from the best"
PRACTICES: Sequence[Practice] = (
    Practice("nine equal arms", APART, noisy(1, reference=False)),
    Practice("one of nine arms three times as noisy", APART, noisy(3, reference=False)),
    Practice("a reference three times as noisy", "some arm differs from it", noisy(3, reference=True)),
    Practice("the rate is chosen once", APART, tuned(once=True)),
    Practice("the rate is chosen inside each seed", APART, tuned(once=False)),
    Practice("an effect changes with the seed by its own size", "its interval misses it", changing(1.0, "own")),
    Practice("the same, the largest effect is told", "its interval misses it", changing(1.0, "leading")),
    Practice("the same, all effects are told", "some interval misses its effect", changing(1.0, "some")),
    Practice("no effects, the largest is told", "its interval misses zero", changing(0.0, "leading")),
    Practice("the best arm's own score", "its interval misses it", best_interval(0.0)),
    Practice("the same, seeds move all arms by two runs' noise", "its interval misses it", best_interval(2.0)),
    Practice("one image of 500, no spread", "it is told apart", one_image),
    Practice("the worst fifth of the runs diverges", "an effect is shown", diverging),
    Practice("a negative control, for other test images", "zero is not within its interval", images("control")),
    Practice("no effects, for other test images", "some interval misses zero", images("effects")),
)


def practices(studies: int, rows: str = "") -> Iterator[str]:
    """Lines of a Markdown table: the share of studies that go wrong, before and now, in rows whose name has `rows`."""
    yield f"| what people do | what is counted | {' | '.join(f'{seeds} seeds: before, now' for seeds in SEEDS)} |"
    yield "| --- | --- |" + " --- |" * len(SEEDS)
    for practice in PRACTICES:
        if rows not in practice.name:
            continue
        cells = []
        for seeds in SEEDS:
            rng = np.random.default_rng(seeds)
            wrong = np.mean([practice.study(rng, seeds) for _ in range(studies)], axis=0)
            cells.append(f"{100 * wrong[0]:.1f} %, **{100 * wrong[1]:.1f} %**")
        yield f"| {practice.name} | {practice.counts} | {' | '.join(cells)} |"


def power(studies: int) -> Iterator[str]:
    """Lines of a Markdown table: a planted effect, promised to be shown with probability 0.8, and how often it is.

    The promise is the report's, with a run's true standard deviation; the effect is shown where the answer says so.
    """
    yield f"| effect | {' | '.join(f'{seeds} seeds: size, shown' for seeds in SEEDS)} |"
    yield "| --- |" + " --- |" * len(SEEDS)
    layouts = {
        "of one of three factors": (factors_layout(), SIGN / 2, _NAMES_OF_FACTORS[0]),
        "of one of nine arms, against the reference": (
            arms_layout(asks=True),
            (np.arange(ARMS) == 3) * 1.0,
            f"mixer {NAMES[3]} rather than a",
        ),
    }
    for name, (layout, direction, subject) in layouts.items():
        cells = []
        for seeds in SEEDS:
            rng = np.random.default_rng(seeds)
            size = promised(layout, rng.normal(size=(len(layout.arms), seeds)))
            shown = [
                f"no effect of {subject}" not in layout.derive(table)["answer"].lower()
                for table in (rng.normal(size=(len(layout.arms), seeds)) + 2 * rng.normal(size=(1, seeds))
                              + size * direction[:, None] for _ in range(studies))
            ]  # fmt: skip
            cells.append(f"{size:.2f}, **{np.mean(shown):.2f}**")
        yield f"| {name} | {' | '.join(cells)} |"


def promised(layout: Layout, table: Table) -> float:
    """The effect that the report promises to be shown with probability 0.8, in true standard deviations of a run."""
    of_study = result(layout.derive(table))
    return float(of_study["power"]["smallest_effect"] / of_study["fit"]["residual_sd"])


TABLES: Mapping[str, Callable[[int], Iterator[str]]] = {
    "practices": practices,
    "power": power,
    "tables": simulate_tables.rows,
    "largest": simulate_tables.largest_rows,
    "looks": simulate_looks.rows,
    "ranks": simulate_ranks.rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=list(TABLES), help="which table")
    parser.add_argument("--studies", type=int, default=2000, help="studies of each cell (2000)")
    parser.add_argument("--rows", default="", help="only rows of practices whose name has this text")
    given = parser.parse_args()
    lines = practices(given.studies, given.rows) if given.table == "practices" else TABLES[given.table](given.studies)
    for line in lines:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
