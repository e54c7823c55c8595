"""Compilation takes seconds, and threads may ask for the same code at the same time: one compiles, the others wait."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_turn = threading.RLock()


def once(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function of hashable arguments that is to be called once for each of them, whatever threads do."""
    kept: Any = lru_cache(maxsize=None)(function)

    @wraps(function)
    def in_turn(*args: P.args, **kwargs: P.kwargs) -> R:
        with _turn:
            return kept(*args, **kwargs)

    in_turn.cache_info = kept.cache_info  # type: ignore[attr-defined]
    return in_turn


def _renew() -> None:
    global _turn
    _turn = threading.RLock()


# In a forked process the thread that held the lock is gone.
os.register_at_fork(after_in_child=_renew)
