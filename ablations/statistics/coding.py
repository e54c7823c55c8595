"""The model matrix of a blocked factorial: effect coding, what can be estimated, and what is aliased with what."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.errors import InputError, check_names

Array = npt.NDArray[np.float64]
Factors = Mapping[str, Sequence[Any]]

RESERVED = ("mean", "seed")
"""Parts of the model that are no factors."""

TOLERANCE = 1e-8
"""Part of a column's length that has to be new for the column to count as independent; entries are of order one."""


@dataclass(frozen=True)
class Matrix:
    """An orthonormal basis of the columns that can be estimated, and what those that cannot be are equal to.

    `rows` is `basis @ triangle` for the kept columns; a dropped column is the kept ones times its column of `aliases`.
    """

    terms: tuple[str, ...]
    names: tuple[str, ...]
    basis: Array
    inverse: Array
    dropped_terms: tuple[str, ...]
    dropped_names: tuple[str, ...]
    aliases: Array

    @property
    def unscaled_covariance(self) -> Array:
        """(XᵀX)⁻¹ of the kept columns."""
        return self.inverse @ self.inverse.T


def effect_codes(levels: int) -> Array:
    """(levels, levels - 1) sum-to-zero codes: the first level is -1 throughout, level j is 1 in column j.

    So two levels are coded -1 and +1, low and high, and a column's coefficients over all levels sum to zero.
    """
    return np.vstack([-np.ones((1, levels - 1)), np.eye(levels - 1)])


def term_name(factors: Sequence[str]) -> str:
    """`a:b` for the interaction of a and b."""
    return ":".join(factors)


def model_terms(factors: Factors, order: int) -> dict[str, tuple[str, ...]]:
    """Name of every main effect and interaction of up to `order` factors, low orders first, with its factors."""
    sets = [chosen for size in range(1, order + 1) for chosen in combinations(factors, size)]
    return {term_name(chosen): chosen for chosen in sets}


def term_codes(factors: Factors, chosen: Sequence[str]) -> Array:
    """(combinations of levels, columns) codes of a term; combinations in the order of `itertools.product`."""
    codes: Array = np.ones((1, 1), dtype=np.float64)
    for name in chosen:
        codes = np.kron(codes, effect_codes(len(factors[name]))).astype(np.float64)
    return codes


def term_columns(factors: Factors, chosen: Sequence[str]) -> list[str]:
    """Names of a term's columns: the term's own if all its factors have two levels, else with the levels it codes."""
    if all(len(factors[name]) == 2 for name in chosen):
        return [term_name(chosen)]
    coded = [[f"{name}={level}" for level in factors[name][1:]] for name in chosen]
    return [term_name(levels) for levels in product(*coded)]


def level_indices(factors: Factors, cells: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Of each factor, which of its levels every cell has.

    Raises:
        InputError: a factor with fewer than two levels or one level twice; a cell with other factors or levels.
    """
    for name, levels in factors.items():
        if name in RESERVED:
            raise InputError(f"factor {name} needs another name: {' and '.join(RESERVED)} are the model's own")
        if len(levels) < 2 or any(level in levels[:place] for place, level in enumerate(levels)):
            raise InputError(f"factor {name} has levels {list(levels)}: it needs two or more, all different")
    for cell in cells:
        check_names("the design", cell, factors)
        for name, levels in factors.items():
            if name not in cell or cell[name] not in levels:
                raise InputError(f"cell {dict(cell)} needs {name}, one of {', '.join(map(str, levels))}")
    return {name: [list(levels).index(cell[name]) for cell in cells] for name, levels in factors.items()}


def build(factors: Factors, indices: Mapping[str, Sequence[int]], seeds: Sequence[int], order: int) -> Matrix:
    """The matrix of mean, seed blocks and terms, in this order, so that of aliased terms the lower order stays.

    Args:
        factors: name -> levels, low first.
        indices: name -> (runs,) level of every run.
        seeds: (runs,).
        order: most factors in an interaction.
    """
    runs = len(seeds)
    block = {seed: place for place, seed in enumerate(sorted(set(seeds)))}
    parts: list[tuple[str, list[str], Array]] = [("mean", ["mean"], np.ones((runs, 1)))]
    if len(block) > 1:
        codes = effect_codes(len(block))[[block[seed] for seed in seeds]]
        parts.append(("seed", [f"seed={seed}" for seed in list(block)[1:]], codes))
    for name, chosen in model_terms(factors, order).items():
        sizes = [len(factors[factor]) for factor in chosen]
        place = np.ravel_multi_index([np.asarray(indices[factor]) for factor in chosen], sizes)
        parts.append((name, term_columns(factors, chosen), term_codes(factors, chosen)[place]))
    terms = [term for term, names, _ in parts for _ in names]
    names = [name for _, columns, _ in parts for name in columns]
    return _independent(terms, names, np.hstack([columns for _, _, columns in parts]))


def _independent(terms: list[str], names: list[str], rows: Array) -> Matrix:
    """Split the columns, in order, into those that add something new and those that earlier ones already hold."""
    basis = np.empty((len(rows), 0))
    kept: list[int] = []
    dropped: list[int] = []
    for place, column in enumerate(rows.T):
        # Twice is enough for orthogonality to rounding (Kahan and Parlett).
        rest = column - basis @ (basis.T @ column)
        rest -= basis @ (basis.T @ rest)
        length = float(np.linalg.norm(rest))
        if length > TOLERANCE * math.sqrt(len(rows)):
            basis = np.column_stack([basis, rest / length])
            kept.append(place)
        else:
            dropped.append(place)
    inverse: Array = np.asarray(np.linalg.inv(basis.T @ rows[:, kept]), dtype=np.float64)
    aliases = inverse @ (basis.T @ rows[:, dropped])
    return Matrix(
        terms=tuple(terms[place] for place in kept),
        names=tuple(names[place] for place in kept),
        basis=basis,
        inverse=inverse,
        dropped_terms=tuple(terms[place] for place in dropped),
        dropped_names=tuple(names[place] for place in dropped),
        aliases=np.where(np.abs(aliases) < TOLERANCE, 0.0, aliases),
    )
