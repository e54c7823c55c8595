"""Studies that add seeds until they know enough: the rule, the looks that it plans, and what each look found."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ablations import nodes
from ablations.layout import LOOKS
from operators.errors import InputError, check_number
from tasks.system import results

DEFAULT_MOST, MOST = 20, 100
"""Seeds that a study goes up to unless it says otherwise, and that it can be told to go up to."""
WIDEST_SHARE = 0.1
"""Ten points of accuracy: a wider `halfwidth` was meant in points, and is given as a share."""

Ends = tuple[float, float, float | None]
"""Both ends of an interval, and the margin below which its effect does not matter, if its block declares one."""


@dataclass(frozen=True)
class Until:
    """Seeds are added after each look until the answer is known well enough, or the study has its `most` seeds.

    Attributes:
        first: seeds at the first look.
        most: seeds at the last look.
        add: seeds that are added after a look that does not end the study.
        halfwidth: enough is an interval of the answer that reaches at most so far from its estimate.
        decide: enough is an interval of the answer that leaves out zero, or lies within the margin.
    """

    first: int
    most: int
    add: int
    halfwidth: float | None = None
    decide: bool = False

    @classmethod
    def read(cls, node: Any, seeds: int, share: bool) -> Until:
        """From the study's `until`; `seeds` are those of the study, `share` says that its objective is at most 1."""
        allowed = [field.name for field in fields(cls) if field.name != "first"]
        given = nodes.mapping("until", node, allowed)
        if seeds < 2:
            raise InputError(f"until needs seeds: 2 or more for its first look, and seeds={seeds} gives no interval")
        most, add = given.get("most", DEFAULT_MOST), given.get("add", seeds)
        check_number("most of until", most, least=seeds + 1, most=MOST, integer=True)
        check_number("add of until", add, least=1, integer=True)
        decide, halfwidth = given.get("decide", False), given.get("halfwidth")
        if not isinstance(decide, bool):
            raise InputError(f"decide of until={nodes.short(decide)} must be true or false")
        if decide == (halfwidth is not None):
            raise InputError("until needs either halfwidth: NUMBER or decide: true, and may have most: and add: SEEDS")
        if halfwidth is not None:
            check_number("halfwidth of until", halfwidth, least=1e-12)
            if share and halfwidth > WIDEST_SHARE:
                raise InputError(
                    f"halfwidth of until={halfwidth:g} is wider than {WIDEST_SHARE:g}: it is a share, as the objective "
                    "is; half a percentage point is 0.005"
                )
        return cls(seeds, most, add, halfwidth, decide)

    @property
    def written(self) -> dict[str, Any]:
        """The rule as a node that `read` takes back, with the study's seeds."""
        rule: dict[str, Any] = {"decide": True} if self.decide else {"halfwidth": self.halfwidth}
        return {**rule, "most": self.most, "add": self.add}

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of seeds at which the study looks."""
        return (*range(self.first, self.most, self.add), self.most)

    @property
    def words(self) -> str:
        """Until when seeds are added."""
        if self.halfwidth is None:
            return "until each effect of the answer is shown, or shown to be within the margin"
        return f"until each interval of the answer reaches at most {self.halfwidth:g} to either side"

    def enough(self, ends: Ends) -> bool:
        """Whether an interval is narrow enough, or decides."""
        low, high, margin = ends
        if not (math.isfinite(low) and math.isfinite(high)):
            return False
        if self.halfwidth is not None:
            return (high - low) / 2 <= self.halfwidth
        return low > 0 or high < 0 or (margin is not None and -margin <= low and high <= margin)

    def look(self, seeds: int, intervals: Sequence[Ends], code: str) -> Look:
        """What follows from the `intervals` of the answer at so many seeds."""
        enough = sum(map(self.enough, intervals))
        halves = [(high - low) / 2 for low, high, _ in intervals]
        known = bool(intervals) and enough == len(intervals)
        return Look(
            seeds=seeds,
            intervals=len(intervals),
            enough=enough,
            widest=max(halves) if halves and all(map(math.isfinite, halves)) else None,
            stop=known or seeds >= self.most,
            code=code,
        )

    def finding(self, look: Look) -> str:
        """What a look found, in words."""
        enough = (
            f"{look.enough} of {look.intervals} {'intervals decide' if self.decide else 'intervals are narrow enough'}"
        )
        if not look.stop:
            return f"at {look.seeds} seeds, {enough}: more seeds"
        why = (
            "the most that it was to have" if look.enough < look.intervals or not look.intervals else "which is enough"
        )
        return f"at {look.seeds} seeds, {enough}: it stops, {why}"

    def account(self, looks: Sequence[Look]) -> str:
        """How often the study looked, and why it stopped, or that it goes on; in a sentence or two."""
        promise = (
            f"Intervals and p-values hold at all {len(self.looks)} planned looks together, up to {self.most} seeds."
        )
        rule = f"Seeds are added {self.words}"
        if not looks:
            return f"{rule}: the study has not looked yet, and its first look is at {self.first} seeds. {promise}"
        seeds = ", ".join(str(look.seeds) for look in looks)
        last, number = looks[-1], "once" if len(looks) == 1 else f"{len(looks)} times"
        counted = f"{last.enough} of {last.intervals} {'decide' if self.decide else 'are so narrow'}"
        if not last.stop:
            course = f"it has looked {number}, at {seeds} seeds, and goes on, since {counted}"
        elif last.intervals and last.enough == last.intervals:
            course = f"it looked {number}, at {seeds} seeds, and stopped, since all {counted}"
        else:
            course = f"it looked {number}, at {seeds} seeds, and stopped at its most seeds, where {counted}"
        return f"{rule}: {course}. {promise}"

    def after(self, looks: Sequence[Look]) -> int:
        """The seeds of the study once it has made these looks."""
        if not looks:
            return self.first
        return (
            looks[-1].seeds
            if looks[-1].stop
            else min((n for n in self.looks if n > looks[-1].seeds), default=self.most)
        )


@dataclass(frozen=True)
class Look:
    """A look at the first `seeds` seeds, and whether the study stops there.

    `enough` of its `intervals` satisfied the rule; `widest` is the largest half width, None where one has no end.
    `code` is the digest of the code that analysed.
    """

    seeds: int
    intervals: int
    enough: int
    widest: float | None
    stop: bool
    code: str

    @classmethod
    def read(cls, node: Any) -> Look:
        """From what `written` gives.

        Raises:
            InputError: it is something else.
        """
        names = [field.name for field in fields(cls)]
        given = nodes.mapping("a look", node, names, names)
        for name in ("seeds", "intervals", "enough"):
            check_number(f"{name} of a look", given[name], least=0, integer=True)
        if given["widest"] is not None:
            check_number("widest of a look", given["widest"], least=0)
        if not isinstance(given["stop"], bool) or not isinstance(given["code"], str):
            raise InputError("stop of a look must be true or false, and its code a text")
        return cls(**given)

    @property
    def written(self) -> dict[str, Any]:
        """The look as `looks.json` has it."""
        return asdict(self)


def read_looks(directory: Path) -> tuple[Look, ...]:
    """The looks in `looks.json` of a study's directory, in order; none where there is no such file.

    Raises:
        InputError: it is damaged.
    """
    text = results.read(directory / LOOKS)
    if text is None:
        return ()
    try:
        return tuple(Look.read(node) for node in nodes.items(LOOKS, json.loads(text)))
    except (InputError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{directory / LOOKS} is damaged ({reason}): without it, the looks are made again") from error


def written_looks(looks: Sequence[Look]) -> str:
    """The text of `looks.json`."""
    return json.dumps([look.written for look in looks], indent=1, allow_nan=False) + "\n"
