"""What `model.match` may say, in plain numbers; needs no torch. What meets it is found by `models.match`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from operators.errors import InputError, check_names, check_number

STATE, TIME, MEASURED = "state", "time", "measured"
"""`model.match.measured` is what was found for `model.match.time`, so that nobody measures again."""

_BUDGETS = ("params", "macs", STATE, TIME)
_SUFFIXES = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([KMG]?)", re.IGNORECASE)
_UNITS = {"": 1, "s": 1, "ms": 1e-3, "us": 1e-6}
_SECONDS = re.compile(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*(s|ms|us|)")
_FACTS = ("hidden", "seconds", "low", "high", "repeats", "device")


def parse(match: Any) -> dict[str, Any]:
    """`{params: N}`, `{macs: N}` or `{state: N}` with N as a whole number, from a number or a text such as `5M`; or
    `{time: T}` with T in seconds, from a number or a text such as `20ms`, which `measured` may go with.

    Raises:
        InputError: something else.
    """
    if not isinstance(match, Mapping) or len(set(match) - {MEASURED}) != 1:
        raise InputError(
            f"model.match={match!r} must be one budget: {{params: 5M}}, {{macs: 1.2G}}, {{state: 4K}} or {{time: 20ms}}"
        )
    budget, target = asked(match)
    check_names("model.match", [budget], _BUDGETS)
    if MEASURED in match and budget != TIME:
        raise InputError(f"model.match.{MEASURED} goes with model.match.{TIME}, not with model.match.{budget}")
    if budget == TIME:
        seconds = _quantity(budget, target, _SECONDS, _UNITS, "a time, with s, ms or us if need be: 20ms, 0.5s")
        check_number(f"model.match.{budget}", seconds, least=1e-6, most=3600)
        measured = match.get(MEASURED)
        if measured is None:
            return {budget: seconds}
        if not isinstance(measured, Mapping) or sorted(measured) != sorted(_FACTS):
            raise InputError(f"model.match.{MEASURED}={measured!r} is what a run has found: leave it out")
        check_number(f"model.match.{MEASURED}.hidden", measured["hidden"], least=1, integer=True)
        check_number(f"model.match.{MEASURED}.seconds", measured["seconds"], least=0)
        return {budget: seconds, MEASURED: dict(measured)}
    number = _quantity(budget, target, _NUMBER, _SUFFIXES, "a number, with K, M or G if need be: 5M, 1.2G")
    check_number(f"model.match.{budget}", number, least=1)
    return {budget: round(number)}


def asked(match: Mapping[str, Any]) -> tuple[str, Any]:
    """Which budget, and how much of it, `match` asks for."""
    ((budget, target),) = ((str(key), value) for key, value in match.items() if key != MEASURED)
    return budget, target


def unmeasured(match: Mapping[str, Any] | None) -> bool:
    """Whether a budget is a time for which nobody has measured yet."""
    return match is not None and TIME in match and MEASURED not in match


def _quantity(
    budget: str, given: Any, pattern: re.Pattern[str], units: Mapping[str, float], allowed: str
) -> int | float | Any:
    if not isinstance(given, str):
        return given
    parts = pattern.fullmatch(given.strip())
    if parts is None:
        raise InputError(f"model.match.{budget}={given!r} must be {allowed}")
    return float(parts[1]) * units[parts[2].upper() if parts[2].upper() in units else parts[2]]
