"""Few rows of options in which every pair of values occurs together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from typing import Any

Row = dict[str, Any]


def full_product(options: Mapping[str, Sequence[Any]], valid: Callable[[Row], bool] = lambda row: True) -> list[Row]:
    """Every valid combination of `options`, in order."""
    rows = (dict(zip(options, values, strict=True)) for values in product(*options.values()))
    return [row for row in rows if valid(row)]


def pairwise(options: Mapping[str, Sequence[Any]], valid: Callable[[Row], bool] = lambda row: True) -> list[Row]:
    """A covering set of valid rows: each pair of values that occurs in some valid row occurs in one of these.

    Greedy: the next row is the first of those that cover most pairs still open. Values must be hashable.
    """
    candidates = full_product(options, valid)
    bits: dict[tuple[Any, ...], int] = {}  # one for each pair of values, so that sets of pairs are integers
    covered = [
        sum(bits.setdefault(pair, 1 << len(bits)) for pair in combinations(sorted(row.items()), 2))
        for row in candidates
    ]
    open_pairs = sum(bits.values())
    rows = []
    while open_pairs:
        gain = [(pairs & open_pairs).bit_count() for pairs in covered]
        best = gain.index(max(gain))
        rows.append(candidates[best])
        open_pairs &= ~covered[best]
    return rows


def row_name(row: Row) -> str:
    """A test's name for `row`: its values, joined; switches by their option's name."""
    switches = {True: "{}", False: "no_{}"}
    return "-".join(
        switches[value].format(key) if isinstance(value, bool) else str(value) for key, value in row.items()
    )


def grouped(rows: Sequence[Row], *names: str) -> dict[str, Any]:
    """`argvalues` and `ids` of tests that each take all rows with the same values of `names`."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row_name({name: row[name] for name in names}), []).append(row)
    return {"argvalues": list(groups.values()), "ids": list(groups)}
