"""Comparing values, trees and texts."""

from __future__ import annotations

import math

import pytest

from ablations.auditing.checks import CLOSE, Check, same


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (1, 1.0, True),
        (math.nan, math.nan, True),
        (0.1, 0.1 * (1 + 1e-12), True),
        (0.1, 0.1001, False),
        (True, 1, False),
        (None, 0, False),
        ("a", "a", True),
    ],
)
def test_numbers_are_the_same_when_they_are_close(left: object, right: object, equal: bool) -> None:
    assert same(left, right, CLOSE) is equal


def test_trees_differ_leaf_by_leaf() -> None:
    check = Check("c")
    check.compare_trees("f", {"a": [1, {"b": 2}], "c": 3}, {"a": [1, {"b": 4}, 5]}, 0.0)
    assert [difference.line for difference in check.differences] == [
        "f: a[1].b: recorded 2, derived 4",
        "f: a[2]: recorded nothing, derived 5",
        "f: c: recorded 3, derived nothing",
    ]
    assert check.checked == 4


@pytest.mark.parametrize("file", ["a.html", "a.md"])
def test_texts_differ_where_a_piece_is_new_or_another(file: str) -> None:
    text = "<p>1</p>\n<p>2</p>\n<p>3</p>"
    for other, count in ((text, 0), (text.replace("2", "9"), 1), (text.replace("<p>2</p>\n", ""), 1)):
        check = Check("c")
        check.compare_texts(file, other, text, CLOSE)
        assert check.checked == 3
        assert (len(check.differences) > 0) == count


def test_tables_differ_by_row_and_column_in_any_order() -> None:
    check = Check("c")
    check.compare_texts("a.csv", "x,y\n1,2\n", "y,x\n3,1\n", CLOSE)
    assert [difference.line for difference in check.differences] == ["a.csv: [0].y: recorded 2.0, derived 3.0"]


def test_long_values_are_cut() -> None:
    check = Check("c")
    check.compare("f", "k", "a" * 200, "b")
    assert len(check.differences[0].line) < 130
