"""Designs: the grid, and fractions that keep what they promise."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from ablations.designs import GENERATORS, choose, fraction, full
from operators import InputError


def signs(k: int) -> dict[str, tuple[int, int]]:
    return {f"f{place}": (-1, 1) for place in range(k)}


def pattern(words: list[int], k: int) -> tuple[int, ...]:
    """How many products of `words` (bit sets of factors) have 1, 2, … k factors."""
    products = {0}
    for word in words:
        products |= {word ^ other for other in products}
    lengths = [product.bit_count() for product in products]
    return tuple(lengths.count(length) for length in range(1, k + 1))


def test_full_grid() -> None:
    design = full({"a": (0, 1), "b": ("x", "y", "z")})
    assert [tuple(cell.values()) for cell in design.cells] == [(a, b) for a in (0, 1) for b in "xyz"]
    assert (design.resolution, design.aliases(), design.statement) == (None, (), "full grid of 6 cells")


@pytest.mark.parametrize(("k", "p"), GENERATORS)
def test_fractions_are_orthogonal_and_of_resolution_four(k: int, p: int) -> None:
    design = fraction(signs(k), p)
    levels = np.array([list(cell.values()) for cell in design.cells])
    assert len(np.unique(levels, axis=0)) == 2 ** (k - p)
    assert (levels.T @ levels == len(levels) * np.eye(k)).all()
    # Main effects are free of two-factor interactions: every product of three different columns sums to zero.
    assert all(levels[:, list(three)].prod(axis=1).sum() == 0 for three in combinations(range(k), 3))
    assert design.resolution is not None
    assert design.resolution >= 4
    assert len(design.words) == 2**p - 1
    names = list(design.factors)
    for word in design.words:
        assert (levels[:, [names.index(name) for name in word]].prod(axis=1) == 1).all()


@pytest.mark.parametrize(("k", "p"), [(k, p) for k, p in GENERATORS if k <= 8])
def test_no_other_fraction_has_less_aberration(k: int, p: int) -> None:
    basic = k - p
    bases = [base for base in range(2**basic) if base.bit_count() >= 2]
    best = min(
        pattern([base | 1 << (basic + place) for place, base in enumerate(chosen)], k)
        for chosen in combinations(bases, p)
    )
    words = fraction(signs(k), p).words
    assert tuple(sum(len(word) == length for word in words) for length in range(1, k + 1)) == best


def test_known_word_lengths() -> None:
    """Montgomery, table 8.14 and its appendix: words of 4, 5, … factors in larger designs."""
    lengths = {(9, 3): (1, 4, 2), (9, 4): (6, 8, 0), (10, 3): (0, 3, 3), (10, 4): (2, 8, 4), (10, 5): (10, 16, 0)}
    for (k, p), expected in lengths.items():
        words = fraction(signs(k), p).words
        assert tuple(sum(len(word) == length for word in words) for length in (4, 5, 6)) == expected


def test_aliases_of_a_quarter_fraction() -> None:
    """Montgomery, table 8.10: 2^(6-2) with I = ABCE = BCDF = ADEF."""
    design = fraction(dict.fromkeys("ABCDEF", (0, 1)), 2)
    assert design.words == (tuple("ABCE"), tuple("BCDF"), tuple("ADEF"))
    expected = {("A:B", "C:E"), ("A:C", "B:E"), ("A:D", "E:F"), ("A:E", "B:C", "D:F"), ("A:F", "D:E")}
    assert set(design.aliases(order=2)) == expected | {("B:D", "C:F"), ("B:F", "C:D")}
    assert ("A", "B:C:E", "D:E:F") in design.aliases()
    assert "2^(6-2) fraction of resolution 4, 16 cells: E = A x B x C, F = B x C x D" in design.statement


def test_levels_keep_their_order_low_to_high() -> None:
    design = fraction(dict.fromkeys("abcd", ("off", "on")), 1)
    assert design.generators == {"d": ("a", "b", "c")}
    assert design.cells[0] == {"a": "off", "b": "off", "c": "off", "d": "off"}
    assert design.cells[-1] == {"a": "on", "b": "on", "c": "on", "d": "on"}


def test_budget_chooses_the_largest_design_that_fits() -> None:
    factors = signs(7)
    assert len(choose(factors).cells) == 128
    assert len(choose(factors, budget=3 * 128, seeds=3).cells) == 128
    assert len(choose(factors, budget=3 * 128 - 1, seeds=3).cells) == 64
    assert len(choose(factors, budget=70, seeds=3).cells) == 16


@pytest.mark.parametrize(
    ("factors", "budget", "message"),
    [
        (signs(3), 7, "smallest design of resolution IV or more known here needs 8"),
        (signs(5), 15, "needs 16"),
        ({**signs(3), "boundary": ("periodic", "neumann", "dirichlet")}, 20, "24 cells.*but boundary has 3"),
        ({"a": (0,)}, None, "two or more"),
        ({}, None, "at least one factor"),
        (signs(2), 0, "budget=0"),
    ],
)
def test_refusals(factors: dict[str, tuple[int, ...]], budget: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose(factors, budget)


def test_fractions_that_do_not_exist() -> None:
    with pytest.raises(InputError, match=r"2\^\(5-2\) has no known design.*allowed for 5 factors are 2\^\(5-1\)"):
        fraction(signs(5), 2)
    with pytest.raises(InputError, match="two levels of every factor"):
        fraction({"a": (0, 1, 2), "b": (0, 1), "c": (0, 1), "d": (0, 1)}, 1)
