"""The factorial model against published tables, against statsmodels' numbers, and where runs are missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ablations.designs import fraction
from ablations.statistics import FactorialModel, Observation, fit_factorial
from operators import InputError
from operators.testing.checks import assert_close

TWO = {"A": (-1, 1), "B": (-1, 1), "C": (-1, 1)}
ETCH = {"A": (-1, 1), "B": (-1, 1), "C": (-1, 1), "D": (-1, 1)}


def grid(factors: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(factors, levels, strict=True)) for levels in product(*factors.values())]


def runs(factors: Mapping[str, Sequence[Any]], values: Mapping[tuple[Any, ...], Sequence[float]]) -> list[Observation]:
    """One run per cell and value; the place of the value is the seed."""
    return [
        Observation(dict(zip(factors, cell, strict=True)), seed, value)
        for cell, row in values.items()
        for seed, value in enumerate(row)
    ]


def yates(values: Sequence[float]) -> dict[tuple[int, ...], list[float]]:
    """Unreplicated 2^k values in standard order: the first factor changes fastest."""
    k = int(math.log2(len(values)))
    return {tuple(reversed(signs)): [y] for signs, y in zip(product((-1, 1), repeat=k), values, strict=True)}


def test_effects_of_a_constructed_table_are_recovered_exactly() -> None:
    effects = {"A": 3.0, "B": -1.5, "C": 0.25, "A:B": 0.75, "A:C": 0.0, "B:C": -2.0, "A:B:C": 1.25}
    observations = [
        Observation(cell, seed, 40 + 10 * seed + sum(e / 2 * _sign(cell, name) for name, e in effects.items()))
        for cell in grid(TWO)
        for seed in range(3)
    ]
    fit = fit_factorial(observations, TWO)
    found = {term.name: term.effects[0].interval.mean for term in fit.terms}
    assert list(found) == ["A", "B", "C", "A:B", "A:C", "B:C", "A:B:C"]
    assert_close(np.array(list(found.values())), np.array(list(effects.values())), 1e-12, "effects")
    assert fit.mean == pytest.approx(50)
    assert (fit.residual.df, fit.residual.sum_of_squares) == (14, 0)
    assert {term.name for term in fit.terms if term.test.p < 0.5} == effects.keys() - {"A:C"}
    assert (found["A:C"], fit.term("A:C").effects[0].interval.half, fit.term("A:C").test.p) == (0, 0, 1)
    assert fit.notes == []


def _sign(cell: Mapping[str, int], term: str) -> int:
    return math.prod(cell[name] for name in term.split(":"))


def test_plasma_etch_with_two_replicates() -> None:
    """Montgomery, Design and Analysis of Experiments, example 6.1: gap A, flow B, power C; two replicates per cell."""
    order = [(550, 604), (669, 650), (633, 601), (642, 635), (1037, 1052), (749, 868), (1075, 1063), (729, 860)]
    values = dict(zip(yates(range(8)), order, strict=True))
    fit = fit_factorial(runs(TWO, values), TWO)
    published = {
        "A": -101.625,
        "B": 7.375,
        "C": 306.125,
        "A:B": -24.875,
        "A:C": -153.625,
        "B:C": -2.125,
        "A:B:C": 5.625,
    }
    assert {term.name: term.effects[0].interval.mean for term in fit.terms} == pytest.approx(published)
    squares = {"A": 41310.5625, "B": 217.5625, "C": 374850.0625, "A:C": 94402.5625}
    assert {name: fit.term(name).test.sum_of_squares for name in squares} == pytest.approx(squares)
    # The book does not block the replicates: its error holds our block too.
    assert fit.block is not None
    assert fit.block.sum_of_squares + fit.residual.sum_of_squares == pytest.approx(18020.50)
    assert fit.block.df + fit.residual.df == 8
    assert fit.lack_of_fit is None


def test_plasma_etch_single_replicate_pools_high_interactions() -> None:
    """Montgomery and Runger, Applied Statistics and Probability for Engineers, example 14-5, tables 14-20 and 14-21."""
    rates = [550, 669, 604, 650, 633, 642, 601, 635, 1037, 749, 1052, 868, 1075, 860, 1063, 729]
    fit = fit_factorial(runs(ETCH, yates(rates)), ETCH, order=2)
    published = {"A": -101.625, "B": -1.625, "C": 7.375, "D": 306.125, "A:D": -153.625, "B:C": -43.875, "A:C": -24.875}
    assert {name: fit.term(name).effects[0].interval.mean for name in published} == pytest.approx(published)
    # Residual: the squares of ABC, ABD, ACD, BCD and ABCD, each 4 effect².
    pooled = 4 * (15.625**2 + 4.125**2 + 5.625**2 + 25.375**2 + 40.125**2)
    assert (fit.residual.df, fit.residual.sum_of_squares) == (5, pytest.approx(pooled))
    error = 2 * math.sqrt(pooled / 5) / math.sqrt(16)
    effect = fit.term("D").effects[0]
    assert effect.error == pytest.approx(error)
    assert effect.interval.half == pytest.approx(stats.t.ppf(0.975, 5) * error)
    assert effect.p == pytest.approx(2 * stats.t.sf(306.125 / error, 5))
    assert effect.standardised == pytest.approx(306.125 / math.sqrt(pooled / 5))
    assert fit.term("D").test.f == pytest.approx((306.125 / error) ** 2)
    assert (fit.block, fit.lack_of_fit) == (None, None)


def test_penicillin_in_randomised_blocks() -> None:
    """Box, Hunter and Hunter, Statistics for Experimenters, ch. 4: four variants of a process, five blends."""
    factors = {"variant": ("A", "B", "C", "D")}
    yields = {("A",): (89, 84, 81, 87, 79), ("B",): (88, 77, 87, 92, 81), ("C",): (97, 92, 87, 89, 80)}
    fit = fit_factorial(runs(factors, yields | {("D",): (94, 79, 85, 84, 88)}), factors)
    term, block = fit.term("variant"), fit.block
    assert block is not None
    assert (term.test.df, term.test.sum_of_squares) == (3, pytest.approx(70))
    assert (block.df, block.sum_of_squares) == (4, pytest.approx(264))
    assert (fit.residual.df, fit.residual.sum_of_squares) == (12, pytest.approx(226))
    assert (round(term.test.f, 2), round(block.f, 2), round(fit.residual.sd**2, 1)) == (1.24, 3.50, 18.8)
    assert fit.level_means("variant") == pytest.approx({"A": 84, "B": 85, "C": 89, "D": 86})
    assert [effect.interval.mean for effect in term.effects] == pytest.approx([-2, -1, 3, 0])
    assert term.partial_eta_squared == pytest.approx(70 / 296)
    difference = fit.difference("variant", "C", "A")
    assert difference.interval.mean == pytest.approx(5)
    assert difference.error == pytest.approx(math.sqrt(226 / 12 * 2 / 5))
    assert (term.p_holm, fit.overall) == (term.test.p, term.test)


def test_battery_life_of_two_factors_with_three_levels() -> None:
    """Montgomery, Design and Analysis of Experiments, example 5.1: material and temperature, four replicates."""
    factors = {"material": (1, 2, 3), "temperature": (15, 70, 125)}
    lives = {
        (1, 15): (130, 155, 74, 180),
        (1, 70): (34, 40, 80, 75),
        (1, 125): (20, 70, 82, 58),
        (2, 15): (150, 188, 159, 126),
        (2, 70): (136, 122, 106, 115),
        (2, 125): (25, 70, 58, 45),
        (3, 15): (138, 110, 168, 160),
        (3, 70): (174, 120, 150, 139),
        (3, 125): (96, 104, 82, 60),
    }
    fit = fit_factorial(runs(factors, lives), factors)
    assert fit.block is not None
    published = {"material": 10683.72, "temperature": 39118.72, "material:temperature": 9613.78}
    assert {term.name: term.test.sum_of_squares for term in fit.terms} == pytest.approx(published, abs=0.01)
    assert fit.block.sum_of_squares + fit.residual.sum_of_squares == pytest.approx(18230.75)
    assert len(fit.term("material:temperature").effects) == 9
    assert fit.term("material:temperature").effects[1].name == "material=1:temperature=70"
    additive = fit.level_means("material")[1] + fit.level_means("temperature")[70] - fit.mean
    assert fit.term("material:temperature").effects[1].interval.mean == pytest.approx(57.25 - additive)
    # Without the interaction in the model it is what the cells lack of fit.
    flat = fit_factorial(runs(factors, lives), factors, order=1)
    assert flat.lack_of_fit is not None
    assert (flat.lack_of_fit.df, flat.lack_of_fit.sum_of_squares) == (4, pytest.approx(9613.78, abs=0.01))
    assert flat.lack_of_fit.p == pytest.approx(fit.term("material:temperature").test.p)
    assert any("above the model's order" in note for note in flat.notes)


def test_missing_runs_as_statsmodels_has_them() -> None:
    """Numbers of statsmodels 0.15: `ols("y ~ C(boundary, Sum) * C(gate, Sum) + C(seed, Sum)")`, `anova_lm(typ=3)`."""
    factors = {"boundary": ("periodic", "neumann", "dirichlet"), "gate": (False, True)}
    values = {
        ("periodic", False): (61, 63, 60),
        ("periodic", True): (64, 69, 62),
        ("neumann", False): (66, 65, math.nan),
        ("neumann", True): (71, 74, 70),
        ("dirichlet", False): (58, 62, 55),
        ("dirichlet", True): (60, math.inf, 57),
    }
    fit = fit_factorial(runs(factors, values), factors)
    squares = {"boundary": 180.433080808081, "gate": 63.353535353536, "boundary:gate": 21.469985569986}
    assert {term.name: term.test.sum_of_squares for term in fit.terms} == pytest.approx(squares)
    p = {"boundary": 3.637082456411e-05, "gate": 4.164357710543e-04, "boundary:gate": 2.948427593950e-02}
    assert {term.name: term.test.p for term in fit.terms} == pytest.approx(p)
    assert fit.block is not None
    assert (fit.block.sum_of_squares, fit.block.p) == pytest.approx((53.808080808081, 2.349926093516e-03))
    assert (fit.residual.df, fit.residual.sum_of_squares) == (8, pytest.approx(15.191919191919))
    gate, difference = fit.term("gate").effects[0], fit.difference("boundary", "neumann", "periodic")
    assert (gate.interval.low, gate.interval.high) == pytest.approx((2.4920341, 5.80426219))
    assert (difference.interval.low, difference.interval.high) == pytest.approx((2.84435847, 6.78190416))
    assert (difference.error, difference.p) == pytest.approx((0.85375946, 0.0004884163457067399))
    one = {effect.name: effect for effect in fit.term("boundary:gate").effects}["boundary=neumann:gate=True"]
    assert (one.interval.mean, one.p) == pytest.approx((1.61279461, 0.013337835771094))
    assert fit.missing == (
        "boundary=neumann gate=False at seed 2",
        "boundary=dirichlet gate=True at seed 1",
    )
    assert fit.notes[0].startswith("no score")
    assert fit.dropped == ()


def test_a_cell_without_any_run_aliases_the_highest_interaction() -> None:
    rng = np.random.default_rng(0)
    gone = {"A": 1, "B": 1, "C": 1}
    scores = [(cell, seed, float(rng.normal())) for cell in grid(TWO) for seed in range(3)]
    fit = fit_factorial([Observation(c, s, math.nan if c == gone else y) for c, s, y in scores], TWO)
    assert fit.dropped == ("A:B:C",)
    assert [term.name for term in fit.terms] == ["A", "B", "C", "A:B", "A:C", "B:C"]
    assert (fit.residual.df, len(fit.missing)) == (12, 3)
    # The empty cell's indicator is (1 + A)(1 + B)(1 + C)/8, so ABC = the sum of the others with their signs, -1 in all.
    assert all(term.effects[0].aliases == pytest.approx({"A:B:C": -1}) for term in fit.terms if len(term.factors) < 3)
    assert "A cannot be told apart from -1 A:B:C" in fit.notes
    with pytest.raises(InputError, match="A:B:C"):
        fit.term("A:B:C")


def test_part_of_an_interaction_missing_leaves_the_rest_tested() -> None:
    factors = {"a": (0, 1, 2), "b": (0, 1, 2)}
    rng = np.random.default_rng(1)
    cells = [cell for cell in grid(factors) if cell != {"a": 2, "b": 2}]
    fit = fit_factorial([Observation(cell, seed, float(rng.normal())) for cell in cells for seed in range(3)], factors)
    term = fit.term("a:b")
    assert (term.test.df, term.aliased, term.effects) == (3, ("a=2:b=2",), ())
    assert fit.dropped == ("a=2:b=2",)
    # Levels 0 and 1 were run at every b; the mean of level 2 leans on the cell that was not.
    assert fit.difference("a", 1, 0).aliases == {}
    assert fit.difference("a", 2, 0).aliases.keys() == {"a=2:b=2"}


def test_fraction_names_the_aliases_of_its_design() -> None:
    """Montgomery, example 8.1: the half fraction I = ABCD of the filtration experiment; [A] = 19, [AC] = -18.5 …"""
    factors = dict.fromkeys("ABCD", (-1, 1))
    rates = {"": 45, "AD": 100, "BD": 45, "AB": 65, "CD": 75, "AC": 60, "BC": 80, "ABCD": 96}
    design = fraction(factors, 1)
    observations = [
        Observation(cell, 0, rates["".join(name for name in factors if cell[name] > 0)]) for cell in design.cells
    ]
    fit = fit_factorial(observations, factors, order=2)
    published = {"A": 19.0, "B": 1.5, "C": 14.0, "D": 16.5, "A:B": -1.0, "A:C": -18.5, "A:D": 19.0}
    assert {term.name: term.effects[0].interval.mean for term in fit.terms} == pytest.approx(published)
    aliases = {term.name: dict(term.effects[0].aliases) for term in fit.terms if term.effects[0].aliases}
    assert aliases == {
        "A:B": pytest.approx({"C:D": 1}),
        "A:C": pytest.approx({"B:D": 1}),
        "A:D": pytest.approx({"B:C": 1}),
    }
    assert design.aliases(order=2) == (("A:B", "C:D"), ("A:C", "B:D"), ("A:D", "B:C"))
    assert fit.dropped == ("B:C", "B:D", "C:D")


def test_without_residual_freedom_intervals_are_infinite() -> None:
    """Box, Hunter and Hunter's pilot plant: temperature 23, concentration -5, catalyst 1.5, TC 1.5, TK 10, TCK 0.5."""
    fit = fit_factorial(runs(TWO, yates([60, 72, 54, 68, 52, 83, 45, 80])), TWO)
    estimates = [term.effects[0].interval.mean for term in fit.terms]
    assert estimates == pytest.approx([23, -5, 1.5, 1.5, 10, 0, 0.5])
    assert fit.residual.df == 0
    assert all(math.isinf(term.effects[0].interval.half) and term.effects[0].p == 1 for term in fit.terms)
    assert all(math.isnan(term.partial_eta_squared) and term.test.p == 1 and term.p_holm == 1 for term in fit.terms)
    assert fit.overall.p == 1
    assert any("infinite" in note for note in fit.notes)


def test_scores_that_never_vary_show_nothing() -> None:
    fit = fit_factorial([Observation(cell, seed, 0.8) for cell in grid(TWO) for seed in range(3)], TWO)
    assert all(term.effects[0].interval.mean == 0 and term.test.p == 1 for term in fit.terms)
    assert fit.overall.p == 1


def test_a_level_that_was_never_run_is_named() -> None:
    factors = {"a": (0, 1), "b": (0, 1, 2)}
    cells = [cell for cell in grid(factors) if cell["b"] != 2]
    rng = np.random.default_rng(2)
    fit = fit_factorial([Observation(cell, s, float(rng.normal())) for cell in cells for s in (0, 1)], factors, order=1)
    assert fit.dropped == ("b=2",)
    with pytest.raises(InputError, match="not all levels of b"):
        fit.level_means("b")
    with pytest.raises(InputError, match="a=9 is not known"):
        fit.difference("a", 9, 0)


@pytest.mark.parametrize(
    ("factors", "cells", "seeds", "order", "message"),
    [
        ({"a": (0,)}, [{"a": 0}], [0], 1, "two or more"),
        ({"a": (0, 0)}, [{"a": 0}], [0], 1, "all different"),
        ({"seed": (0, 1)}, [{"seed": 0}], [0], 1, "needs another name"),
        ({"a": (0, 1)}, [{"b": 0}], [0], 1, "has no 'b'"),
        ({"a": (0, 1)}, [{"a": 7}], [0], 1, "one of 0, 1"),
        ({"a": (0, 1)}, [{"a": 0}, {"a": 0}], [3, 3], 1, "two scores of a=0 at seed 3"),
        ({"a": (0, 1)}, [{"a": 0}], [0], 2, "order=2"),
        ({"a": (0, 1)}, [], [], 1, "no score to fit"),
    ],
)
def test_refusals(factors: Any, cells: Any, seeds: Any, order: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FactorialModel(factors, cells, seeds, order)


def test_scores_have_to_match_the_runs() -> None:
    model = FactorialModel({"a": (0, 1)}, [{"a": 0}, {"a": 1}], [0, 0], 1)
    with pytest.raises(InputError, match="for 2 runs"):
        model.fit([1.0])
    with pytest.raises(InputError, match="1 finite"):
        model.fit([1.0, math.nan])
    with pytest.raises(InputError, match="level=95"):
        model.fit([1.0, 2.0], level=95)
