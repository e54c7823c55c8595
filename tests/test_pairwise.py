from itertools import combinations, product

import pytest

from tests.pairwise import full_product, pairwise, row_name

OPTIONS = {"shape": ["round", "flat", "long"], "size": [1, 2, 3, 4], "shiny": [True, False], "colour": ["red", "blue"]}


def test_every_pair_is_covered():
    rows = pairwise(OPTIONS)
    for (a, a_values), (b, b_values) in combinations(OPTIONS.items(), 2):
        seen = {(row[a], row[b]) for row in rows}
        assert seen == set(product(a_values, b_values)), f"{a} × {b}"


def test_it_is_small():
    # Twelve is the least possible: shape × size alone has twelve pairs.
    assert 12 <= len(pairwise(OPTIONS)) <= 14
    assert len(full_product(OPTIONS)) == 48


def test_only_valid_rows_and_every_feasible_pair():
    def valid(row):
        return not (row["shape"] == "flat" and row["size"] > 2)

    rows = pairwise(OPTIONS, valid)
    assert all(valid(row) for row in rows)
    assert {(row["shape"], row["size"]) for row in rows} == {
        (shape, size) for shape in OPTIONS["shape"] for size in OPTIONS["size"] if shape != "flat" or size <= 2
    }


def test_no_valid_row_is_an_empty_set():
    assert pairwise(OPTIONS, lambda row: False) == []


@pytest.mark.parametrize(("row", "name"), [({"a": "x", "b": True}, "x-b"), ({"a": 3, "b": False}, "3-no_b")])
def test_names(row, name):
    assert row_name(row) == name
