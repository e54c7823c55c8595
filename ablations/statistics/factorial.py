"""The factorial model blocked by seed, which the headline intervals of a study come from.

    y = mean + seed + main effects + interactions of up to `order` factors + residual

Seeds are blocks: whatever a seed does to all arms alike (order of the images, starting weights) is taken out, which is
the pairing of arms by seed, for all arms at once. What remains is the interaction of seeds with arms, together with
factor interactions above `order`, if there are any; this residual is pooled over all arms, and every effect is tested
against it. With a arms and n seeds it has (a - 1)(n - 1) degrees of freedom and not the n - 1 of a single paired
difference, which is what makes three seeds enough for a useful interval. `lack_of_fit` says whether interactions above
`order` were rightly pooled.

The price is an assumption: that seeds move every effect as much as any other. `moderated.py` has errors for what people
do, where an effect's size changes with the seed, or an arm is noisier than others; what a study says comes from there.

Sources: Box, Hunter and Hunter, Statistics for Experimenters, 2nd ed. (2005), ch. 4-6; Montgomery, Design and Analysis
of Experiments, ch. 4-8; aliases: Box and Wilson, J. R. Stat. Soc. B 13 (1951).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from ablations.statistics.coding import (
    TOLERANCE,
    Array,
    Factors,
    build,
    effect_codes,
    level_indices,
    model_terms,
    term_codes,
)
from ablations.statistics.effects import Effect, FTest, Observation, Residual, Term
from ablations.statistics.intervals import Interval, check_level, half_width, t_test
from ablations.statistics.paired import holm
from operators.errors import InputError, check_choice, check_number

ROUNDING = 1e-12
"""Relative to the largest score: what is smaller is rounding, not variation."""


@dataclass(frozen=True)
class FactorialFit:
    """What `fit_factorial` found. `block` is None with one seed, `lack_of_fit` where nothing was pooled or replicated.

    `overall` tests that no term matters at all. `dropped` are coefficients that cannot be estimated, `missing` the
    cells and seeds without a score, `rest` the (runs,) residuals.
    """

    model: FactorialModel
    mean: float
    terms: tuple[Term, ...]
    overall: FTest
    block: FTest | None
    residual: Residual
    lack_of_fit: FTest | None
    dropped: tuple[str, ...]
    missing: tuple[str, ...]
    level: float
    coefficients: Array
    rest: Array

    def term(self, name: str) -> Term:
        """The term of this name, such as `a` or `a:b`.

        Raises:
            InputError: there is none, or nothing of it can be estimated.
        """
        check_choice("term", name, [term.name for term in self.terms])
        return next(term for term in self.terms if term.name == name)

    def level_means(self, factor: str) -> dict[Any, float]:
        """Level -> mean, every combination of the other factors' levels and every seed weighing the same.

        Raises:
            InputError: no such factor, or not all its levels can be estimated.
        """
        codes = self.model.main_codes(factor)
        values = self.mean + codes @ self.coefficients[self.model.places[factor]]
        return dict(zip(self.model.factors[factor], map(float, values), strict=True))

    def difference(self, factor: str, level: Any, other: Any) -> Effect:
        """Mean at one level of a factor less that at another, with its t interval.

        Raises:
            InputError: no such factor or level, or not all its levels can be estimated.
        """
        codes, levels = self.model.main_codes(factor), list(self.model.factors[factor])
        first, two = (levels.index(check_choice(factor, value, levels)) for value in (level, other))
        contrast = np.zeros(len(self.coefficients))
        contrast[self.model.places[factor]] = codes[first] - codes[two]
        return self.model.effect(f"{factor}: {level} - {other}", contrast, self.coefficients, self.residual, self.level)

    @property
    def notes(self) -> list[str]:
        """What a reader has to know before reading the effects, a line each."""
        notes = []
        if self.missing:
            notes.append(f"no score (the effects are those among runs that ended): {'; '.join(self.missing)}")
        for term in self.terms:
            for effect in term.effects:
                if effect.aliases:
                    others = " ".join(f"{factor:+.3g} {name}" for name, factor in effect.aliases.items())
                    notes.append(f"{effect.name} cannot be told apart from {others}")
        if self.dropped:
            notes.append(f"cannot be estimated by themselves: {', '.join(self.dropped)}")
        if self.residual.df == 0:
            notes.append("no degree of freedom is left for the residual: every interval is infinite")
        if self.lack_of_fit is not None and self.lack_of_fit.p < 1 - self.level:
            notes.append(f"interactions above the model's order are not nothing (p = {self.lack_of_fit.p:.2g})")
        return notes


class FactorialModel:
    """A design, ready to be fitted to scores of its runs.

    Args:
        factors: name -> levels in order, the first being low.
        cells: (runs,) levels of every run; a full grid, a fraction, or whatever is left of either.
        seeds: (runs,) seed of every run.
        order: most factors in an interaction; those above are taken for residual.

    Raises:
        InputError: no runs or factors, an unknown factor or level, a cell twice with one seed (two scores of one run
            are no replication), or an `order` outside 1 … number of factors.
    """

    def __init__(self, factors: Factors, cells: Sequence[Mapping[str, Any]], seeds: Sequence[int], order: int) -> None:
        if not factors or not cells:
            raise InputError("no score to fit: a factorial needs factors and runs that ended well")
        check_number("order", order, least=1, most=len(factors), integer=True)
        indices = level_indices(factors, cells)
        runs = list(zip(*indices.values(), seeds, strict=True))
        if len(set(runs)) < len(runs):
            again = next(place for place, run in enumerate(runs) if run in runs[:place])
            raise InputError(
                f"two scores of {_cell_name(factors, cells[again])} at seed {seeds[again]}: one run has one score"
            )
        self.factors = factors
        self.order = order
        self.matrix = build(factors, indices, seeds, order)
        self.covariance = self.matrix.unscaled_covariance
        self.arms_and_seeds = _span(runs)
        self.runs = len(runs)
        self.runs_of_seeds = [np.flatnonzero(np.asarray(seeds) == seed) for seed in sorted(set(seeds))]
        self.seeds = len(self.runs_of_seeds)
        arms = [run[:-1] for run in runs]
        self.runs_of_arms = [np.flatnonzero([other == arm for other in arms]) for arm in dict.fromkeys(arms)]
        self.terms = model_terms(factors, order)
        self.places: dict[str, list[int]] = {}
        for place, name in enumerate(self.matrix.terms):
            self.places.setdefault(name, []).append(place)
        own = list(zip(self.matrix.dropped_terms, self.matrix.dropped_names, strict=True))
        self.aliased = {name: tuple(column for term, column in own if term == name) for name in self.places}
        self.contrasts = {name: self._contrasts(name) for name in self.terms if name in self.places}

    def main_codes(self, factor: str) -> Array:
        """(levels, levels - 1) codes of a factor all of whose levels can be estimated; else an `InputError`."""
        check_choice("factor", factor, self.factors)
        if factor in self.matrix.dropped_terms:
            raise InputError(f"not all levels of {factor} can be estimated: runs of some are missing")
        return effect_codes(len(self.factors[factor]))

    def fit(self, values: Sequence[float], level: float = 0.95, missing: Sequence[str] = ()) -> FactorialFit:
        """Least squares on the (runs,) scores `values`, with t intervals at `level`; `missing` is passed on.

        Raises:
            InputError: a level that is not between 0 and 1, or scores that are not finite or not one per run.
        """
        check_level("level", level)
        y = np.asarray(values, dtype=np.float64)
        if y.shape != (self.runs,) or not np.isfinite(y).all():
            raise InputError(f"{y.shape} scores, of which {np.isfinite(y).sum()} finite, for {self.runs} runs")
        scale = ROUNDING * float(np.abs(y).max())
        projected = self.matrix.basis.T @ y
        rest = y - self.matrix.basis @ projected
        squares = float(rest @ rest)
        coefficients = self.matrix.inverse @ projected
        if squares <= len(y) * scale**2:
            squares, rest = 0.0, np.zeros_like(rest)
            coefficients[np.abs(coefficients) <= scale] = 0.0
        residual = Residual(self.runs - len(coefficients), squares)
        tested = list(self.contrasts)
        tests = [self._test(self.places[name], coefficients, residual) for name in tested]
        adjusted = holm([test.p for test in tests])
        everything = [place for name in tested for place in self.places[name]]
        return FactorialFit(
            model=self,
            mean=float(coefficients[0]),
            terms=tuple(
                self._term(name, test, p, coefficients, residual, level)
                for name, test, p in zip(tested, tests, adjusted, strict=True)
            ),
            overall=self._test(everything, coefficients, residual),
            block=self._test(self.places["seed"], coefficients, residual) if "seed" in self.places else None,
            residual=residual,
            lack_of_fit=self._lack_of_fit(y, residual),
            dropped=self.matrix.dropped_names,
            missing=tuple(missing),
            level=level,
            coefficients=coefficients,
            rest=rest,
        )

    def run_weights(self, contrasts: Array) -> Array:
        """(effects, runs) weights that make (effects, coefficients) `contrasts` of the coefficients out of scores."""
        return contrasts @ self.matrix.inverse @ self.matrix.basis.T

    def effect(self, name: str, contrast: Array, coefficients: Array, residual: Residual, level: float) -> Effect:
        """`contrast` @ `coefficients` with its interval; aliases in units of the contrast's largest weight."""
        estimate, sd = float(contrast @ coefficients), residual.sd
        error = sd * math.sqrt(float(contrast @ self.covariance @ contrast))
        shares = zip(self.matrix.dropped_names, contrast @ self.matrix.aliases / np.abs(contrast).max(), strict=True)
        aliases = {other: float(share) for other, share in shares if abs(share) > TOLERANCE}
        interval = Interval(estimate, half_width(error, residual.df, level), self.runs)
        standardised = estimate / sd if sd > 0 else math.nan
        p = t_test(estimate, error, residual.df)
        return Effect(name, interval, error, residual.df, p, standardised, aliases, contrast)

    def _test(self, places: list[int], coefficients: Array, residual: Residual) -> FTest:
        """Partial (type III) sum of squares of some coefficients, and its F test."""
        some = coefficients[places]
        squares = float(some @ np.linalg.solve(self.covariance[np.ix_(places, places)], some))
        return FTest.of(len(places), squares, residual)

    def _term(
        self, name: str, test: FTest, p_holm: float, coefficients: Array, residual: Residual, level: float
    ) -> Term:
        effects = [
            self.effect(label, contrast, coefficients, residual, level) for label, contrast in self.contrasts[name]
        ]
        both = test.sum_of_squares + residual.sum_of_squares
        share = test.sum_of_squares / both if both > 0 and residual.df > 0 else math.nan
        return Term(name, self.terms[name], test, p_holm, share, tuple(effects), self.aliased[name])

    def _contrasts(self, name: str) -> list[tuple[str, Array]]:
        """(name, weights of all coefficients) of each effect of a term, none if part of it is aliased."""
        if self.aliased[name]:
            return []
        chosen = self.terms[name]
        codes, labels = term_codes(self.factors, chosen), [name]
        if all(len(self.factors[factor]) == 2 for factor in chosen):
            codes = np.array([[2.0]])
        else:
            combined = product(*([f"{factor}={level}" for level in self.factors[factor]] for factor in chosen))
            labels = [":".join(label) for label in combined]
        weights = np.zeros((len(codes), len(self.matrix.terms)))
        weights[:, self.places[name]] = codes
        return list(zip(labels, weights, strict=True))

    def _lack_of_fit(self, y: Array, residual: Residual) -> FTest | None:
        """What arms differ by beyond the model, against the seeds' interaction with arms alone."""
        rest = y - self.arms_and_seeds @ (self.arms_and_seeds.T @ y)
        pure = Residual(self.runs - self.arms_and_seeds.shape[1], float(rest @ rest))
        if pure.df in (0, residual.df):
            return None
        return FTest.of(residual.df - pure.df, max(residual.sum_of_squares - pure.sum_of_squares, 0.0), pure)


def fit_factorial(
    observations: Sequence[Observation], factors: Factors, *, order: int | None = None, level: float = 0.95
) -> FactorialFit:
    """Fit the factorial model blocked by seed to the runs of a study.

    Args:
        observations: one per run. Scores that are not finite are left out and named in `missing`, as is every cell
            that another seed has and this one has not.
        factors: name -> levels in order, the first being low.
        order: most factors in an interaction; three, or all factors if there are fewer, unless given.
        level: of the intervals.

    Raises:
        InputError: as `FactorialModel` does, and a level that is not between 0 and 1.
    """
    level_indices(factors, [observation.levels for observation in observations])
    ended = [observation for observation in observations if math.isfinite(observation.value)]
    cells, seeds = [observation.levels for observation in ended], [observation.seed for observation in ended]
    model = FactorialModel(factors, cells, seeds, min(3, len(factors)) if order is None else order)
    planned = dict.fromkeys(_cell_name(factors, observation.levels) for observation in observations)
    scored = {(_cell_name(factors, observation.levels), observation.seed) for observation in ended}
    every_seed = sorted({observation.seed for observation in observations})
    missing = [f"{cell} at seed {seed}" for cell in planned for seed in every_seed if (cell, seed) not in scored]
    return model.fit([observation.value for observation in ended], level, missing)


def _span(runs: Sequence[tuple[int, ...]]) -> Array:
    """Orthonormal basis of all that depends on the arm or on the seed alone; a run is (level, …, seed)."""
    arms = list(dict.fromkeys(run[:-1] for run in runs))
    seeds = list(dict.fromkeys(run[-1] for run in runs))
    of_arm = np.eye(len(arms))[[arms.index(run[:-1]) for run in runs]]
    of_seed = np.eye(len(seeds))[[seeds.index(run[-1]) for run in runs]]
    left, sizes, _ = np.linalg.svd(np.hstack([of_arm, of_seed]), full_matrices=False)
    return left[:, sizes > TOLERANCE * sizes[0]]


def _cell_name(factors: Factors, levels: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={levels[name]}" for name in factors)
