"""The exponential of compiled kernels."""

import math

import numpy as np
import pytest
from numba import njit
from numba import types as kinds

from operators.cpu import exponential
from operators.testing.checks import assert_close


@njit(fastmath={"contract"})
def exponentials(x, y):
    for i in range(len(x)):
        y[i] = exponential.exp32(x[i])


def exp32(x):
    x = np.asarray(x, np.float32)
    y = np.empty_like(x)
    exponentials(x, y)
    return y


def test_exponential_is_right_to_a_unit_in_the_last_place():
    x = np.concatenate([np.linspace(-87.33, 88.7228, 2_000_001), np.linspace(-1, 1, 200_001)]).astype(np.float32)
    x = np.concatenate([x, np.geomspace(1e-45, 1, 10_001).astype(np.float32) * [[1], [-1]]], axis=None)
    exact = np.exp(x.astype(np.float64))
    units = np.abs(exp32(x) - exact) / np.spacing(exact.astype(np.float32))
    assert units.max() < 1


def test_exponential_at_the_ends_of_the_range():
    top = np.float32(88.72283)
    above = np.nextafter(top, np.float32(np.inf))
    assert exp32([top])[0] == pytest.approx(np.exp(np.float64(top)), rel=1e-6)
    assert np.exp(np.float64(above)) > np.finfo(np.float32).max
    assert np.isposinf(exp32([above, 89, 1e3, 3e38, np.inf])).all()
    # Below the least normal number it gives zero, off by no more than that number.
    low = np.linspace(-110, -87.3, 100_001)
    assert np.abs(exp32(low) - np.exp(low.astype(np.float32), dtype=np.float64)).max() < 1.2e-38
    assert (exp32([-104, -1e3, -3e38, -np.inf]) == 0).all()
    assert exp32([0.0])[0] == exp32([-0.0])[0] == 1


def test_exponential_of_every_nan_is_nan():
    bits = np.array([0x7FC00000, 0xFFC00000, 0x7FC00001, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF], np.uint32)
    assert np.isnan(exp32(bits.view(np.float32))).all()


def test_exponential_as_plain_python():
    x = np.linspace(-80, 80, 33, dtype=np.float32)
    with np.errstate(over="ignore"):  # integers wrap around where exponents are added
        assert_close(np.array([exponential.exp32.py_func(value) for value in x]), exp32(x), 1e-6, "exp")
        assert np.isinf(exponential.exp32.py_func(np.float32(100)))


def test_each_type_has_its_exponential():
    assert exponential._choose_exp(kinds.float32)(np.float32(1)) == exponential.exp32(np.float32(1))
    assert exponential._choose_exp(kinds.float64)(1.0) == math.e
