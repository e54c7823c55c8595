"""What a check compared, what differs, and what it could not compare."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from io import StringIO
from itertools import zip_longest
from typing import Any

CLOSE = 1e-9
"""Relative difference up to which derived numbers are the same: other processors add in another order."""
LONGEST = 80
"""Characters of a value in print."""
ABSENT = "nothing"
_TAGS = re.compile(r"(<[^>]*>)")
_NUMBER = re.compile(r"\d")


@dataclass(frozen=True)
class Difference:
    """A value of a file that is not the one that follows from other files."""

    file: str
    key: str
    recorded: Any
    derived: Any

    @property
    def line(self) -> str:
        """The difference in one line."""
        return f"{self.file}: {self.key}: recorded {_short(self.recorded)}, derived {_short(self.derived)}"


@dataclass
class Check:
    """Comparisons of one kind; `unchecked` counts what could not be compared, by the reason."""

    name: str
    checked: int = 0
    differences: list[Difference] = field(default_factory=list)
    unchecked: Counter[str] = field(default_factory=Counter)

    def compare(self, file: str, key: str, recorded: Any, derived: Any, close: float = 0.0) -> None:
        """Note whether two values are the same; numbers, when they differ by no more than the share `close`."""
        self.checked += 1
        if not same(recorded, derived, close):
            self.differences.append(Difference(file, key, recorded, derived))

    def compare_trees(self, file: str, recorded: Any, derived: Any, close: float, key: str = "") -> None:
        """Compare nested mappings and lists leaf by leaf."""
        if isinstance(recorded, Mapping) and isinstance(derived, Mapping):
            for name in {**recorded, **derived}:
                inner = f"{key}.{name}" if key else str(name)
                self.compare_trees(file, recorded.get(name, ABSENT), derived.get(name, ABSENT), close, inner)
        elif isinstance(recorded, list) and isinstance(derived, list):
            for place, (left, right) in enumerate(zip_longest(recorded, derived, fillvalue=ABSENT)):
                self.compare_trees(file, left, right, close, f"{key}[{place}]")
        else:
            self.compare(file, key, recorded, derived, close)

    def compare_texts(self, file: str, recorded: str, derived: str, close: float) -> None:
        """Compare two texts piece by piece: entries of a CSV, what stands between tags, or lines."""
        if file.endswith(".csv"):
            self.compare_trees(file, _entries(recorded), _entries(derived), close)
            return
        left, right = (_pieces(file, text) for text in (recorded, derived))
        self.checked += sum(_NUMBER.search(piece) is not None for piece in right)
        for first, last, begin, end in _changed(left, right):
            pairs = zip_longest(left[first:last], right[begin:end], fillvalue=ABSENT)
            for place, (old, new) in enumerate(pairs, first):
                if not same(number(old), number(new), close):
                    self.differences.append(Difference(file, f"piece {place}", old.strip(), new.strip()))

    def skip(self, reason: str, count: int = 1) -> None:
        """Note what could not be compared."""
        self.unchecked[reason] += count


def same(left: Any, right: Any, close: float = 0.0) -> bool:
    """Whether two values are the same; texts and other kinds only when they are equal, nan equals nan."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return math.isclose(left, right, rel_tol=close, abs_tol=close) or (math.isnan(left) and math.isnan(right))
    return bool(left == right)


def number(text: str) -> float | str:
    """The number that a text is; else the text."""
    try:
        return float(text)
    except ValueError:
        return text


def _pieces(file: str, text: str) -> Sequence[str]:
    if file.endswith((".html", ".svg")):
        return [piece for piece in _TAGS.split(text) if piece]
    return text.splitlines()


def _changed(left: Sequence[str], right: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """Where two sequences differ: begin and end in the left one, and in the right one."""
    if len(left) == len(right):
        return [(0, len(left), 0, len(right))]
    blocks = SequenceMatcher(None, left, right).get_opcodes()
    return [(first, last, begin, end) for tag, first, last, begin, end in blocks if tag != "equal"]


def _entries(text: str) -> list[dict[str, float | str]]:
    return [{str(key): number(str(value)) for key, value in row.items()} for row in csv.DictReader(StringIO(text))]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
