"""What values a configuration can hold at all, whatever they are for, and what Lightning's options take. No torch."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from operators.errors import InputError, check_choice, check_names, check_number

DEEPEST = 50
"""Levels of mappings and lists in a configuration."""
LARGEST = 2**63 - 1
"""What 64 bits hold."""

MOST_WORKERS = max(32, 4 * (os.cpu_count() or 1))
"""Most workers of a process: beyond a few for each core they only wait for one another."""

MOST_PIXELS = 178_956_970
"""Most pixels that are ever held in memory: the bound at which Pillow itself refuses. JPEGs are scaled before."""

MOST_SIDE = math.isqrt(MOST_PIXELS)
"""Largest resolution in pixels."""

DATA_NUMBERS = ("batch_size", "num_workers", "resolution", "val_size", "subset")
"""What of a data set `check_data` checks."""

_UNITS = ("days", "hours", "minutes", "seconds")
_TIME = re.compile(r"\d+(:\d{1,2}){3}")


def check_values(value: Any, where: str = "", depth: int = 0) -> None:
    """Refuse what no part of a configuration can be.

    Args:
        value: plain containers and what they hold.
        where: its key, with the keys above.
        depth: levels above it.

    Raises:
        InputError: a number that is not finite or that 64 bits do not hold, a text that no file could hold, a key that
            is no text, something that is neither number nor text nor container, or too many levels.
    """
    if depth > DEEPEST:
        raise InputError(f"{where[:100]}… has more than {DEEPEST} levels: a configuration has no use for that")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise InputError(f"{where or 'the configuration'} has the key {key!r}: keys must be names")
            check_values(inner, f"{where}.{key}" if where else key, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            check_values(inner, where, depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"{where}={value} must be finite")
    elif isinstance(value, int):
        if abs(value) > LARGEST:
            raise InputError(f"{where}={_start(str(value))} must be between -2^63 and 2^63: larger integers overflow")
    elif isinstance(value, str):
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise InputError(f"{where}={_start(repr(value))} holds a character that no file name or text can hold")
    elif value is not None:
        raise InputError(
            f"{where}={_start(repr(value))} must be a number, a text, true, false, null, a list or a mapping"
        )


def check_path(what: str, value: Any) -> None:
    """Raise `InputError` unless `value`, called `what`, can be the path of a file."""
    if not isinstance(value, str):
        named = f": ./{value} is a file of that name" if isinstance(value, int) else ""
        raise InputError(f"{what}={value!r} must be the path of a file{named}")
    if not value or "\0" in value:
        raise InputError(f"{what}={value!r} must be the path of a file")


@contextmanager
def overflow_refused() -> Iterator[None]:
    """Where a size overflows what torch can count in, nothing could hold it.

    Raises:
        InputError: instead of torch's error.
    """
    try:
        yield
    except (RuntimeError, OverflowError, TypeError) as error:
        if "verflow" not in str(error):
            raise
        raise InputError("the sizes of model, mixer and data multiply to more than any memory holds") from error


def check_lightning(name: str, value: Any) -> None:
    """Raise `InputError` unless `lightning.Trainer` takes `value` as the argument `name`, and the run makes sense."""
    _LIGHTNING[name](f"trainer.{name}", value)


def _switch(what: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InputError(f"{what}={value!r} must be true or false")


def _optional_switch(what: str, value: Any) -> None:
    if value is not None:
        _switch(what, value)


def _deterministic(what: str, value: Any) -> None:
    if value != "warn":
        _optional_switch(f"{what} (or warn)", value)


def _choice(*allowed: Any) -> Callable[[str, Any], None]:
    def check(what: str, value: Any) -> None:
        if value is not None:
            check_choice(f"{what} (or null)", value, allowed)

    return check


def _count(least: int, *, optional: bool = False) -> Callable[[str, Any], None]:
    def check(what: str, value: Any) -> None:
        if value is not None or not optional:
            check_number(f"{what} (or null)" if optional else what, value, least=least, integer=True)

    return check


def _part(least: int) -> Callable[[str, Any], None]:
    """A number of batches, from `least`, or a share of them."""

    def check(what: str, value: Any) -> None:
        if isinstance(value, float) and (0 < value <= 1 or value == least == 0):
            return
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise InputError(f"{what}={value!r} must be an integer >= {least}, batches, or a share of them in (0, 1]")

    return check


def _time(what: str, value: Any) -> None:
    if isinstance(value, Mapping):
        check_names(what, map(str, value), _UNITS)
        for unit, number in value.items():
            check_number(f"{what}.{unit}", number, least=0, most=1e6)
        if any(value.values()):
            return
    elif value is None or (isinstance(value, str) and _TIME.fullmatch(value) and value.strip("0:")):
        return
    raise InputError(f"{what}={value!r} must be a time: DD:HH:MM:SS, or a mapping of {', '.join(_UNITS)}")


def _interval(what: str, value: Any) -> None:
    if isinstance(value, str | Mapping):
        _time(what, value)
    else:
        _part(1)(what, value)


_LIGHTNING: dict[str, Callable[[str, Any], None]] = {
    "benchmark": _optional_switch,
    "check_val_every_n_epoch": _count(1, optional=True),
    "detect_anomaly": _switch,
    "deterministic": _deterministic,
    "enable_autolog_hparams": _switch,
    "gradient_clip_algorithm": _choice("norm", "value"),
    "inference_mode": _switch,
    "limit_predict_batches": _part(1),
    "limit_test_batches": _part(1),
    "limit_train_batches": _part(1),
    "limit_val_batches": _part(1),
    "max_time": _time,
    "min_epochs": _count(1, optional=True),
    "min_steps": _count(1, optional=True),
    "overfit_batches": _part(0),
    "profiler": _choice("simple", "advanced", "pytorch"),
    "reload_dataloaders_every_n_epochs": _count(0),
    "sync_batchnorm": _switch,
    "val_check_interval": _interval,
}
"""The arguments of `lightning.Trainer` that a run may be given, each with its check."""
LIGHTNING = frozenset(_LIGHTNING)


def _start(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


def check_data(
    *, batch_size: Any = 1, num_workers: Any = 0, resolution: Any = None, val_size: Any = None, subset: Any = None
) -> None:
    """Raise `InputError` for a number that `tasks.data.ImageData` cannot use, whatever the data set is."""
    check_number("data.batch_size", batch_size, least=1, integer=True)
    check_number("data.num_workers", num_workers, least=0, most=MOST_WORKERS, integer=True)
    if resolution is not None:
        check_number("data.resolution", resolution, least=1, most=MOST_SIDE, integer=True)
    if val_size is not None:
        check_number("data.val_size", val_size, least=1, integer=True)
    if subset is not None:
        check_number("data.subset", subset, most=1)
        if subset <= 0:
            raise InputError(f"data.subset={subset:g} must be above 0, the share of the train images to learn from")
