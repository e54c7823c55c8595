"""What is known of a split's corrupt images."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from operators.errors import InputError

_log = logging.getLogger(__name__)


class Corrupt:
    """Names the corrupt images of one split as they are met, counts them, and stops the run at too many.

    While an epoch lasts, a process of a distributed run counts what it meets itself, and what all of them have met in
    earlier epochs; at the end of an epoch of any split, `unite` makes every count that of all of them together. So
    the bound holds for the whole run, but a run may go on to the end of the epoch after reaching it.

    Args:
        split: train, val or test.
        size: images in the split.
        tolerated: corrupt images that are.
        setting: `data.max_corrupt`, for the message.
        path: file that gets a line (split, name, reason) for each; None writes none.

    Attributes:
        found: the reason by name.
    """

    def __init__(self, split: str, size: int, tolerated: int, setting: float, path: Path | None) -> None:
        self._split, self._size, self._tolerated, self._setting, self._path = split, size, tolerated, setting, path
        self.found: dict[str, str] = {}

    def note(self, met: Mapping[str, str]) -> None:
        """Take in the corrupt images of a batch.

        Raises:
            InputError: more than tolerated.
        """
        new = {name: reason for name, reason in met.items() if name not in self.found}
        self.found |= new
        if self._path is not None and new:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8", errors="surrogateescape") as file:
                file.writelines(f"{self._split}\t{name}\t{reason}\n" for name, reason in new.items())
        self._check()
        for name, reason in new.items():
            _log.warning("corrupt image in %s, replaced by another: %s (%s)", self._split, name, reason)

    def unite(self, met: Iterable[Mapping[str, str]]) -> None:
        """Take in what every process has found, in the same order everywhere: they have named it already.

        Raises:
            InputError: more than tolerated.
        """
        self.found = {name: reason for reasons in met for name, reason in reasons.items()}
        self._check()

    def _check(self) -> None:
        if len(self.found) > self._tolerated:
            shown = "; ".join(f"{name} ({reason})" for name, reason in list(self.found.items())[:3])
            raise InputError(
                f"data.max_corrupt={self._setting:g} tolerates {self._tolerated} corrupt images among the {self._size} "
                f"of {self._split}; found {len(self.found)}: {shown}{'; …' if len(self.found) > 3 else ''}"
            )
