"""Asking again what does not answer at the moment."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from ablations.scheduling.storage import StorageError, disk_is_full
from tasks.system.reading import UnreadableError
from tasks.system.signals import Stop

PAUSE = 3.0
"""Seconds between looks at a study in which nothing can be taken at the moment."""
TRIES = 7
"""How often a storage is asked that does not answer, a little later each time."""

T = TypeVar("T")


def patiently(stop: Stop, ask: Callable[[], T]) -> T:
    """What the storage answers, or a file holds, also where it cannot be read for a minute."""
    for tries in range(1, TRIES):
        try:
            return ask()
        except (StorageError, UnreadableError) as error:
            if disk_is_full(error) or getattr(error, "fatal", False) or stop.wait(PAUSE * tries):
                raise
            sys.stderr.write(f"{error}; trying again\n")
    return ask()
