"""The one exception that means "the user asked for something that cannot be"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, TypeVar

T = TypeVar("T")
MOST_LISTED, CLOSE = 30, 8
"""Of more names than the first, a refusal lists as many as the second, those most like the one that was given."""


class InputError(ValueError):
    """Wrong input. The message is one line: what is wrong, what is allowed, the nearest valid name."""


def nearest(value: object, allowed: Iterable[object]) -> str:
    """`" (did you mean 'x'?)"` for the closest of `allowed`, or an empty string when nothing is close."""
    match = difflib.get_close_matches(str(value), [str(a) for a in allowed], n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


def listed(value: object, allowed: Iterable[object]) -> str:
    """What is allowed, in words; of many names, those most like `value` and how many there are."""
    options = [str(option) for option in allowed]
    if len(options) <= MOST_LISTED:
        return ", ".join(options) or "none"
    like = difflib.get_close_matches(str(value), options, n=CLOSE, cutoff=0)
    return f"{len(options)} names, such as {', '.join(like)}"


def check_choice(what: str, value: T, allowed: Iterable[Any]) -> T:
    """Return `value` if it is one of `allowed`; raise `InputError` naming the nearest otherwise."""
    options = list(allowed)
    if value not in options:
        raise InputError(
            f"{what}={value!r} is not known: allowed are {listed(value, options)}{nearest(value, options)}"
        )
    return value


def check_names(what: str, given: Iterable[str], allowed: Iterable[str]) -> None:
    """Raise `InputError` if any of the `given` names is not `allowed`."""
    options = sorted(allowed)
    for name in given:
        if name not in options:
            raise InputError(f"{what} has no {name!r}: allowed are {listed(name, options)}{nearest(name, options)}")


def check_number(
    what: str, value: Any, *, least: float | None = None, most: float | None = None, integer: bool = False
) -> None:
    """Raise `InputError` unless `value` is a finite number (an `int` if `integer`) in `[least, most]`."""
    kind = "an integer" if integer else "a number"
    right_type = isinstance(value, int if integer else (int, float)) and not isinstance(value, bool)
    bounds = [f">= {_short(least)}"] if least is not None else []
    bounds += [f"<= {_short(most)}"] if most is not None else []
    in_range = right_type and value == value and abs(value) != float("inf")
    in_range = in_range and (least is None or value >= least) and (most is None or value <= most)
    if not in_range:
        raise InputError(f"{what}={value!r} must be {kind}{' ' if bounds else ''}{' and '.join(bounds)}")


def _short(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"
