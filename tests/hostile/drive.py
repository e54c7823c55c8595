"""Driving many cases, some at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.case import Case
from tests.hostile.judge import Outcome, faults
from tests.hostile.start import start
from tests.hostile.store import Store

AT_ONCE = 2


@dataclass(frozen=True)
class Verdict:
    """A case, what it did, and what is wrong with that."""

    case: Case
    outcome: Outcome
    faults: tuple[str, ...]


class Drive:
    """Cases under way, in folders below `scratch`."""

    def __init__(self, cases: Iterable[Case], scratch: Path, store: Store, at_once: int = AT_ONCE) -> None:
        self._pool = ThreadPoolExecutor(at_once)
        numbers = itertools.count()

        def carry_out(case: Case) -> Verdict:
            outcome = start(case, scratch / f"{next(numbers):04}", store)
            return Verdict(case, outcome, tuple(faults(case, outcome)))

        self.verdicts: dict[str, Future[Verdict]] = {case.label: self._pool.submit(carry_out, case) for case in cases}

    def close(self) -> None:
        """Begin no further case, and wait for those under way."""
        self._pool.shutdown(cancel_futures=True)
