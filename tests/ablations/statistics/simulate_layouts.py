"""Simulated studies are of nine arms or of three factors; what they say is read from their answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ablations import plan as plans
from ablations.analysis import summary
from ablations.analysis.study import Record, Study
from ablations.layout import COMPLETE, DIVERGED
from ablations.plan import Plan
from tests.ablations.statistics.simulate_tables import ARMS

Table = npt.NDArray[np.float64]
NAMES = "abcdefghi"
CELLS = [dict(zip("abc", levels, strict=True)) for levels in product((0, 1), repeat=3)]
RUN = 0.01
"""Standard deviation of a run, in accuracy."""


@dataclass(frozen=True)
class Layout:
    """A study's plan, and the levels of its arms."""

    plan: Plan
    content: Mapping[str, Any]
    arms: tuple[Mapping[str, str], ...]

    def study(self, table: Table, states: npt.NDArray[np.bool_] | None = None, folder: Path | None = None) -> Study:
        """Of (arms, seeds) scores in multiples of `RUN`; of runs that diverged where `states` is true."""
        records = []
        for seed in range(table.shape[1]):
            for place, levels in enumerate(self.arms):
                gone = states is not None and bool(states[place, seed])
                number = len(records)
                records.append(
                    Record(
                        number=number,
                        block="main",
                        arm=" ".join(f"{name}={level}" for name, level in levels.items()),
                        seed=seed,
                        state=DIVERGED if gone else COMPLETE,
                        run_dir=None if folder is None else folder / str(number),
                        seconds=1.0,
                        levels=levels,
                        metrics={} if gone else {"test/accuracy": 0.8 + RUN * float(table[place, seed])},
                    )
                )
        return Study(folder or Path("none"), self.plan, self.content, tuple(records))

    def derive(self, table: Table, states: npt.NDArray[np.bool_] | None = None) -> dict[str, Any]:
        """What a study with these scores says."""
        return summary.derive(self.study(table, states))


@cache
def arms_layout(asks: bool = False) -> Layout:
    """Nine arms of one factor; the study may ask for their differences to the first."""
    factors = {"mixer": {"key": "mixer", "levels": list(NAMES)}}
    return _layout({"factors": factors, "asks": ["mixer"] if asks else []}, [{"mixer": name} for name in NAMES])


@cache
def factors_layout(control: bool = False) -> Layout:
    """Three factors of two levels, the first a negative control if asked for."""
    factors = {name: {"key": f"mixer.{name}", "levels": [0, 1]} for name in "abc"}
    block = {"factors": factors, "negative_controls": ["a"] if control else []}
    return _layout(block, [{name: str(level) for name, level in cell.items()} for cell in CELLS])


def _layout(block: Mapping[str, Any], arms: Sequence[Mapping[str, str]]) -> Layout:
    content = {
        "name": "simulated",
        "kind": "factorial",
        "question": "Which one is it?",
        "seeds": 3,
        "objectives": [{"metric": "test/accuracy", "direction": "maximize"}],
        "blocks": [{"name": "main", **block}],
    }
    return Layout(plans.read(dict(content)), content, tuple(arms))


def result(derived: Mapping[str, Any]) -> Any:
    """What the summary holds of the only objective of the only block."""
    return derived["blocks"][0]["objectives"][0]


def arms_told_apart(answer: str) -> int:
    """How many of the nine arms the answer tells apart from the best."""
    match = re.search(r"; not told apart from ([^;.]*?)(?: and (\d+) more)?[;.]", answer)
    return ARMS - 1 - (len(match[1].split(", ")) + int(match[2] or 0) if match else 0)


def effects_shown(answer: str, names: Sequence[str]) -> int:
    """How many of the effects the answer shows, interactions included."""
    shown = sum(f"no effect of {name}" not in answer.lower() for name in names)
    return shown + ("they interact" in answer)
