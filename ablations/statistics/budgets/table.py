"""Scores of an arm at several budgets (steps, images, parameters), seed by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from operators.errors import InputError

BudgetScores = Mapping[float, Mapping[int, float]]
"""Budget -> seed -> score; one that is not finite (a run that diverged) counts as absent."""


@dataclass(frozen=True)
class BudgetTable:
    """The seeds that have a score at every budget: `values` is (seeds, budgets), budgets ascending.

    `left_out` are the seeds that lack one.
    """

    budgets: tuple[float, ...]
    seeds: tuple[int, ...]
    values: np.ndarray
    left_out: tuple[int, ...]

    @classmethod
    def of(cls, *arms: BudgetScores) -> tuple[BudgetTable, ...]:
        """Tables of several arms over the budgets and the seeds that all of them share.

        Raises:
            InputError: a budget that is not above zero, or fewer than two budgets in common.
        """
        shared = set.intersection(*(set(arm) for arm in arms))
        budgets = tuple(sorted(shared))
        if len(budgets) < 2:
            raise InputError(f"{len(budgets)} budgets in common: a curve needs two or more")
        if not 0 < budgets[0] < math.inf or not budgets[-1] < math.inf:
            raise InputError(f"budget={budgets[0]:g} must be above 0 and finite")
        every = {seed for arm in arms for budget in budgets for seed in arm[budget]}
        complete = [
            seed
            for seed in sorted(every)
            if all(math.isfinite(arm[budget].get(seed, math.nan)) for arm in arms for budget in budgets)
        ]
        left_out = tuple(sorted(every - set(complete)))
        return tuple(
            cls(
                budgets,
                tuple(complete),
                np.array([[arm[budget][seed] for budget in budgets] for seed in complete]).reshape(-1, len(budgets)),
                left_out,
            )
            for arm in arms
        )

    @property
    def places(self) -> np.ndarray:
        """The budgets' logarithms, from 0 at the smallest to 1 at the largest."""
        return self.place(np.array(self.budgets))

    @property
    def span(self) -> float:
        """Logarithm of the largest budget over the smallest."""
        return math.log(self.budgets[-1] / self.budgets[0])

    def place(self, budgets: np.ndarray) -> np.ndarray:
        """Where `budgets` lie on the scale of `places`."""
        return np.log(budgets / self.budgets[0]) / self.span
