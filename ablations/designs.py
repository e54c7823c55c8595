"""Which cells of a grid to run: all of them, or a regular fraction of two-level factors and what it cannot tell apart.

Sources: Box and Hunter, "The 2^(k-p) fractional factorial designs", Technometrics 3 (1961). The generators are those of
Montgomery, Design and Analysis of Experiments, table 8.14, and of the NIST/SEMATECH e-Handbook, section 5.3.3.4.7;
2^(10-2) has words of 6, 7 and 7 factors, as even as three words over ten factors can be. All have minimum aberration
(Fries and Hunter, Technometrics 22, 1980): as few of the shortest words as possible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from operators.errors import InputError, check_number

LETTERS = "ABCDEFGHJK"
"""Factors as the tables name them, which leave out I: it stands for the mean."""

GENERATORS: Mapping[tuple[int, int], str] = {
    (4, 1): "D=ABC",
    (5, 1): "E=ABCD",
    (6, 1): "F=ABCDE",
    (6, 2): "E=ABC F=BCD",
    (7, 1): "G=ABCDEF",
    (7, 2): "F=ABCD G=ABDE",
    (7, 3): "E=ABC F=BCD G=ACD",
    (8, 1): "H=ABCDEFG",
    (8, 2): "G=ABCD H=ABEF",
    (8, 3): "F=ABC G=ABD H=BCDE",
    (8, 4): "E=BCD F=ACD G=ABC H=ABD",
    (9, 1): "J=ABCDEFGH",
    (9, 2): "H=ACDFG J=BCEFG",
    (9, 3): "G=ABCD H=ACEF J=CDEF",
    (9, 4): "F=BCDE G=ACDE H=ABDE J=ABCE",
    (10, 1): "K=ABCDEFGHJ",
    (10, 2): "J=ABCDEF K=ABCDGH",
    (10, 3): "H=ABCG J=BCDE K=ACDF",
    (10, 4): "G=BCDF H=ACDF J=ABDE K=ABCE",
    (10, 5): "F=ABCD G=ABCE H=ABDE J=ACDE K=BCDE",
}
"""(factors k, p) -> generators of a 2^(k-p) fraction of resolution IV or more; (k, p) not here have none."""


@dataclass(frozen=True)
class Design:
    """Cells to run, each at every seed.

    `generators` says, for each added factor of a fraction, whose product sets its level (low -1, high +1), and
    `words` are the products that are +1 in every cell (the defining relation); both are empty for a full grid.
    """

    factors: Mapping[str, tuple[Any, ...]]
    cells: tuple[Mapping[str, Any], ...]
    generators: Mapping[str, tuple[str, ...]]
    words: tuple[tuple[str, ...], ...]

    @property
    def resolution(self) -> int | None:
        """Factors in the shortest word; None for a full grid, which confuses nothing."""
        return min(map(len, self.words)) if self.words else None

    def aliases(self, order: int = 3) -> tuple[tuple[str, ...], ...]:
        """Groups of main effects and interactions of up to `order` factors that share one column, low orders first.

        Named as the factorial model names its terms, `a:b`. An effect in no group is free of all of its kind.
        """
        position = {name: place for place, name in enumerate(self.factors)}
        groups: dict[frozenset[frozenset[str]], list[str]] = {}
        for size in range(1, order + 1):
            for chosen in combinations(self.factors, size):
                column = frozenset(frozenset(chosen) ^ frozenset(word) for word in ((), *self.words))
                groups.setdefault(column, []).append(":".join(sorted(chosen, key=position.__getitem__)))
        return tuple(tuple(group) for group in groups.values() if len(group) > 1)

    @property
    def statement(self) -> str:
        """The design in a sentence."""
        if len(self.cells) < math.prod(map(len, self.factors.values())) and not self.words:
            return f"one factor at a time, {len(self.cells)} cells"
        if not self.words:
            return f"full grid of {len(self.cells)} cells"
        k, p = len(self.factors), len(self.generators)
        made = ", ".join(f"{name} = {' x '.join(base)}" for name, base in self.generators.items())
        return f"2^({k}-{p}) fraction of resolution {self.resolution}, {len(self.cells)} cells: {made}"


def full(factors: Mapping[str, Sequence[Any]]) -> Design:
    """Every combination of levels, the last factor changing fastest.

    Raises:
        InputError: no factors, or one with fewer than two levels or a level twice.
    """
    grid = _checked(factors)
    cells = tuple(dict(zip(grid, levels, strict=True)) for levels in product(*grid.values()))
    return Design(grid, cells, {}, ())


def fraction(factors: Mapping[str, Sequence[Any]], p: int) -> Design:
    """The principal 2^(k-p) fraction of k two-level factors, of the highest resolution and minimum aberration.

    Raises:
        InputError: a factor without exactly two levels, or no such fraction of resolution IV or more.
    """
    grid = _checked(factors)
    k = len(grid)
    check_number("p", p, least=1, integer=True)
    _two_level(grid)
    if (k, p) not in GENERATORS:
        known = ", ".join(f"2^({k}-{q})" for q in _fractions(k)) or "none"
        raise InputError(
            f"2^({k}-{p}) has no known design of resolution IV or more: allowed for {k} factors are {known}"
        )
    names = dict(zip(LETTERS, grid, strict=False))
    generators = {names[rule[0]]: tuple(names[letter] for letter in rule[2:]) for rule in GENERATORS[k, p].split()}
    basic = [name for name in grid if name not in generators]
    cells = []
    for signs in product((-1, 1), repeat=len(basic)):
        sign = dict(zip(basic, signs, strict=True))
        sign |= {name: math.prod(sign[other] for other in base) for name, base in generators.items()}
        cells.append({name: levels[sign[name] > 0] for name, levels in grid.items()})
    return Design(grid, tuple(cells), generators, _defining_words(grid, generators))


def choose(factors: Mapping[str, Sequence[Any]], budget: int | None = None, seeds: int = 1) -> Design:
    """The full grid if its cells times `seeds` fit the budget of trials, else the largest fraction that does.

    Seeds are never cut: they are what the residual is made of.

    Raises:
        InputError: no design fits. Fractions are for two-level factors alone, so a grid with others has to fit in full.
    """
    grid = _checked(factors)
    check_number("seeds", seeds, least=1, integer=True)
    size = math.prod(len(levels) for levels in grid.values())
    if budget is None or size * seeds <= budget:
        return full(grid)
    check_number("budget", budget, least=1, integer=True)
    whole = f"the full grid needs {size} cells x {seeds} seeds = {size * seeds} trials, the budget is {budget}"
    try:
        _two_level(grid)
    except InputError as error:
        raise InputError(f"{whole}; {error}") from error
    fitting = [p for p in _fractions(len(grid)) if size // 2**p * seeds <= budget]
    if not fitting:
        least = min((size // 2**p for p in _fractions(len(grid))), default=size) * seeds
        raise InputError(f"{whole}; the smallest design of resolution IV or more known here needs {least}")
    return fraction(grid, min(fitting))


def _fractions(k: int) -> list[int]:
    return [p for factors, p in GENERATORS if factors == k]


def _checked(factors: Mapping[str, Sequence[Any]]) -> dict[str, tuple[Any, ...]]:
    if not factors:
        raise InputError("a design needs at least one factor")
    for name, levels in factors.items():
        if len(levels) < 2 or any(level in levels[:place] for place, level in enumerate(levels)):
            raise InputError(f"factor {name} has levels {list(levels)}: it needs two or more, all different")
    return {name: tuple(levels) for name, levels in factors.items()}


def _two_level(grid: Mapping[str, Sequence[Any]]) -> None:
    others = [f"{name} has {len(levels)}" for name, levels in grid.items() if len(levels) != 2]
    if others:
        raise InputError(f"a fraction needs two levels of every factor, but {', '.join(others)}")


def _defining_words(grid: Mapping[str, Any], generators: Mapping[str, tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """All products of the generators' own words, shortest first."""
    own = [frozenset((name, *base)) for name, base in generators.items()]
    words = []
    for size in range(1, len(own) + 1):
        for chosen in combinations(own, size):
            word = frozenset[str]()
            for row in chosen:
                word ^= row
            words.append(tuple(name for name in grid if name in word))
    return tuple(sorted(words, key=len))
