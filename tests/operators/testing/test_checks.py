import math

import numpy as np
import pytest
import torch

from operators.testing.checks import assert_close, assert_differs, assert_finite, relative_error


def test_relative_error_is_rms_over_rms() -> None:
    # differences (0, 0, 0.3): rms 0.3/√3; expected (1, 2, 2): rms √3
    assert relative_error(torch.tensor([1.0, 2.0, 2.3]), torch.tensor([1.0, 2.0, 2.0])) == pytest.approx(0.1)


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e30, 1e200])
def test_relative_error_does_not_depend_on_scale(scale: float) -> None:
    expected = torch.tensor([3.0, 4.0], dtype=torch.float64) * scale
    assert relative_error(expected * 1.01, expected) == pytest.approx(0.01)


def test_against_zero_only_zero_is_close() -> None:
    zero = torch.zeros(3)
    assert relative_error(zero, zero) == 0
    assert relative_error(zero + 1e-30, zero) == math.inf


def test_measures_complex_numbers_by_modulus() -> None:
    assert relative_error(torch.tensor([1 + 0.1j]), torch.tensor([1 + 0j])) == pytest.approx(0.1)


def test_message_names_quantity_error_and_place() -> None:
    expected = torch.ones(2, 3)
    actual = expected.clone()
    actual[1, 2] = 2
    with pytest.raises(
        AssertionError, match=r"dq: relative RMS error 0\.408 > 0\.001; worst at \(1, 2\): 2, expected 1"
    ):
        assert_close(actual, expected, 1e-3, "dq")


def test_close_values_pass_and_zero_tolerance_means_equal() -> None:
    expected = torch.randn(5)
    assert_close(expected * (1 + 1e-7), expected, 1e-6, "scaled")
    assert_close(2.0, 2.0, 0, "a number")
    assert_close(np.ones(3), torch.ones(3, dtype=torch.float64), 0, "an array")
    assert_close(expected, expected.clone(), 0, "copy")
    with pytest.raises(AssertionError, match="relative RMS error"):
        assert_close(torch.nextafter(expected, expected + 1), expected, 0, "next number")


@pytest.mark.parametrize(
    ("actual", "expected", "complaint"),
    [
        (torch.ones(2), torch.ones(3), "shape"),
        (torch.ones(1), torch.ones(()), "shape"),
        (torch.ones(2), torch.ones(2, dtype=torch.float64), "dtype"),
        (torch.tensor([1.0, math.nan]), torch.ones(2), "not finite"),
        (torch.tensor([math.nan]), torch.tensor([math.nan]), "not finite"),
        (torch.ones(1), torch.tensor([math.nan]), "expected.*not finite"),
        (torch.tensor([math.inf]), torch.tensor([math.inf]), "not finite"),
        (torch.ones(0), torch.ones(0), "empty"),
    ],
)
def test_refuses_what_cannot_be_compared(actual: torch.Tensor, expected: torch.Tensor, complaint: str) -> None:
    for check in (assert_close, assert_differs):
        with pytest.raises(AssertionError, match=f"quantity.*{complaint}"):
            check(actual, expected, 1.0, "quantity")


def test_differs_needs_the_stated_difference() -> None:
    assert_differs(torch.tensor([1.1]), torch.tensor([1.0]), 0.05, "shifted")
    with pytest.raises(AssertionError, match=r"shifted: relative RMS difference 0\.01 < 0\.05"):
        assert_differs(torch.tensor([1.01]), torch.tensor([1.0]), 0.05, "shifted")


def test_finite_says_where() -> None:
    assert_finite(torch.zeros(2, 2), "zeros")
    with pytest.raises(AssertionError, match=r"grad: 1 of 4 elements are not finite, first at \(1, 0\)"):
        assert_finite(torch.tensor([[0.0, 1.0], [math.inf, 2.0]]), "grad")
