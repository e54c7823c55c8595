"""Scores of simulated arms over budgets, whose law is known."""

from __future__ import annotations

import numpy as np

NOISES = ("equal", "shared", "falling", "correlated")
LIMIT, FIRST = 0.9, 100.0


def budgets(count: int) -> np.ndarray:
    return FIRST * 2.0 ** np.arange(count)


def law(at: np.ndarray | float, exponent: float, limit: float = LIMIT, factor: float = -0.15) -> np.ndarray:
    return limit + factor * (np.asarray(at) / FIRST) ** -exponent


def noise(draw: np.random.Generator, seeds: int, count: int, kind: str, sd: float) -> np.ndarray:
    """(seeds, budgets): equal, with a part that a seed's runs share, falling fourfold, or correlated along budgets."""
    plain = draw.normal(size=(seeds, count))
    if kind == "shared":
        plain += 2 * draw.normal(size=(seeds, 1))
    if kind == "falling":
        plain *= np.geomspace(2, 0.5, count)
    if kind == "correlated":
        for place in range(1, count):
            plain[:, place] = 0.7 * plain[:, place - 1] + 0.51**0.5 * plain[:, place]
    return sd * plain


def scores(table: np.ndarray, at: np.ndarray) -> dict[float, dict[int, float]]:
    """Budget -> seed -> score of a table (seeds, budgets)."""
    return {float(budget): dict(enumerate(column.tolist())) for budget, column in zip(at, table.T, strict=True)}


def inside(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or low <= value) and (high is None or value <= high)
