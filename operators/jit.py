"""Compilation by numba, which takes seconds, kept on disk where that can be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compile_cached(function: Callable[..., None], signature: Any) -> Callable[..., None]:
    """`function` compiled for numba's `signature`; it runs without the interpreter's lock."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(signature, cache=True, **options)(function)
    except RuntimeError as error:
        # Numba's "no locator available": neither the package's directory nor the user's cache can be written.
        if "cannot cache" not in str(error):
            raise
        return njit(signature, **options)(function)
