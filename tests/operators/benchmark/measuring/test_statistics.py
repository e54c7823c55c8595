import math

import pytest

from operators.benchmark.measuring.statistics import fit_power, quartiles


@pytest.mark.parametrize(
    ("values", "expected"),
    [([3.0], (3, 3, 3)), ([2, 1], (1.25, 1.5, 1.75)), ([5, 1, 3], (2, 3, 4)), ([4, 1, 3, 2], (1.75, 2.5, 3.25))],
)
def test_quartiles(values, expected):
    assert quartiles(values) == expected


@pytest.mark.parametrize("exponent", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_a_power_law_is_found_exactly(exponent):
    sizes = [64, 256, 1000, 4096]
    fit = fit_power(sizes, [3e-4 * size**exponent for size in sizes])
    assert fit.exponent == pytest.approx(exponent, abs=1e-12)
    assert fit.error == pytest.approx(0, abs=1e-7)
    assert fit.points == 4


def test_the_standard_error_is_that_of_the_textbook():
    # Over x = 0, 1, 2 (in logarithms), y = 0, 0, 3: slope 3/2, residuals ½, -1, ½, so s² = 3/2 and se = √(3/2 / 2).
    fit = fit_power([1, math.e, math.e**2], [1, 1, math.e**3])
    assert fit.exponent == pytest.approx(1.5)
    assert fit.error == pytest.approx(math.sqrt(0.75))


def test_two_points_have_no_error_and_one_has_no_exponent():
    fit = fit_power([10, 1000], [1, 100])
    assert (fit.exponent, fit.error, fit.points) == (pytest.approx(1), None, 2)
    assert fit_power([10], [1]) is None
    assert fit_power([10, 10], [1, 2]) is None
    assert fit_power([], []) is None
