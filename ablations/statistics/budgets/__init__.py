"""Curves over budgets: scaling laws, where two of them cross, and what the best of m trials of tuning is worth."""

from ablations.statistics.budgets.crossing import BudgetDifferences, Crossing, DifferenceAtBudget, crossing, differences
from ablations.statistics.budgets.effort import BestOfTrials, best_of_trials, expected_curve, over_seeds
from ablations.statistics.budgets.law import OpenInterval, PowerLaw, fit_power_law
from ablations.statistics.budgets.table import BudgetScores, BudgetTable

__all__ = [
    "BestOfTrials",
    "BudgetDifferences",
    "BudgetScores",
    "BudgetTable",
    "Crossing",
    "DifferenceAtBudget",
    "OpenInterval",
    "PowerLaw",
    "best_of_trials",
    "crossing",
    "differences",
    "expected_curve",
    "fit_power_law",
    "over_seeds",
]
