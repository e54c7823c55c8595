"""Comparisons that name what they compare and say by how much, and where, it is off."""

from __future__ import annotations

import math

import torch
from numpy.typing import ArrayLike
from torch import Tensor

Value = Tensor | ArrayLike


def relative_error(actual: Value, expected: Value) -> float:
    """RMS of `actual - expected` over RMS of `expected`, in double precision; 0 or inf where `expected` is all zero."""
    a, e = _wide(actual), _wide(expected)
    difference, scale = _rms(a - e), _rms(e)
    if scale == 0:
        return 0.0 if difference == 0 else math.inf
    return difference / scale


def assert_close(actual: Value, expected: Value, tolerance: float, name: str) -> None:
    """Fail unless the relative RMS error of `actual` is at most `tolerance` (0: the same bits up to the sign of zero).

    Also fails on another shape or dtype, on nothing to compare, and on any NaN or infinity, in either of the two.
    """
    a, e = torch.as_tensor(actual), torch.as_tensor(expected)
    _comparable(a, e, name)
    error = relative_error(a, e)
    assert error <= tolerance, f"{name}: relative RMS error {error:.3g} > {tolerance:g}; {_worst(a, e)}"


def assert_differs(actual: Value, other: Value, least: float, name: str) -> None:
    """Fail unless `actual` is off `other` by at least `least` in relative RMS error; refuses as `assert_close` does."""
    a, o = torch.as_tensor(actual), torch.as_tensor(other)
    _comparable(a, o, name)
    error = relative_error(a, o)
    assert error >= least, f"{name}: relative RMS difference {error:.3g} < {least:g}, where a difference was expected"


def assert_finite(value: Tensor, name: str) -> None:
    """Fail if `value` holds a NaN or an infinity, or nothing at all."""
    assert value.numel() > 0, f"{name}: is empty"
    bad = (~torch.isfinite(value)).nonzero()
    assert len(bad) == 0, (
        f"{name}: {len(bad)} of {value.numel()} elements are not finite, first at {tuple(bad[0].tolist())}"
    )


def _comparable(a: Tensor, e: Tensor, name: str) -> None:
    assert a.shape == e.shape, f"{name}: shape {tuple(a.shape)}, expected {tuple(e.shape)}"
    assert a.dtype == e.dtype, f"{name}: dtype {a.dtype}, expected {e.dtype}"
    assert_finite(a, name)
    assert_finite(e, f"{name} (expected)")


def _wide(value: Value) -> Tensor:
    tensor = torch.as_tensor(value).detach().cpu()
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _rms(tensor: Tensor) -> float:
    # Scaled by the largest element first, so that squares of tiny or huge numbers neither vanish nor overflow.
    size = tensor.abs()
    largest = size.max().item()
    return largest * (size / largest).square().mean().sqrt().item() if largest > 0 else 0.0


def _worst(a: Tensor, e: Tensor) -> str:
    difference = (_wide(a) - _wide(e)).abs()
    where = tuple(int(i) for i in torch.unravel_index(difference.argmax(), difference.shape))
    return f"worst at {where}: {a[where].item():.6g}, expected {e[where].item():.6g}"
