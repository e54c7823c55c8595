"""MQAR-2D: multi-query associative recall on a grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from operators.errors import InputError, check_number
from tasks.probes.probe import Array, Kind, Probe, Sample, Samples


@dataclass(frozen=True, kw_only=True)
class MQAR2D(Probe):
    """Pairs of a key cell and a value cell at a fixed offset from it; query cells hold keys and ask for their values.

    Keys of an image are distinct; queries repeat them; all other cells are blank. One-hot channels: keys (of pairs and
    queries), values, and one that marks queries. After multi-query associative recall (arXiv 2312.04927), which is
    one-dimensional with values right behind their keys. The oracle looks up: no error. Chance is the most frequent
    value, 1 - 1/`values` in expectation.

    Attributes:
        pairs: m. A mixer that recalls all of them holds at least m log2(`values`) bits.
        queries: cells that are asked, with keys drawn from those of the pairs.
        keys, values: sizes of the vocabularies.
        offset: (rows, columns) from key to value.
    """

    name: ClassVar[str] = "mqar_2d"
    kind: ClassVar[Kind] = "cell_classes"
    isolates: ClassVar[str] = "recall by content, against the size of the state; beyond offset (0, 1): by place, too"
    positions: ClassVar[str] = "learned"
    difficulties: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"grid": 8, "pairs": 2, "queries": 16, "keys": 4, "values": 4},
        {"grid": 8, "pairs": 8, "queries": 16, "keys": 16, "values": 8},
        {"grid": 12, "pairs": 16, "queries": 32, "keys": 32, "values": 16, "offset": (1, 1)},
        {"grid": 16, "pairs": 32, "queries": 64, "keys": 64, "values": 64, "offset": (7, 5)},
    )

    pairs: int = 8
    queries: int = 16
    keys: int = 16
    values: int = 8
    offset: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        for dial in ("pairs", "queries", "keys", "values"):
            least = 2 if dial == "values" else 1
            check_number(f"probe.{dial}", getattr(self, dial), least=least, most=1024, integer=True)
        for step in self.offset:
            check_number("probe.offset", step, least=1 - self.grid, most=self.grid - 1, integer=True)
        if not any(self.offset):
            raise InputError("probe.offset=[0, 0] puts values on their keys: give another")
        check_number("probe.keys", self.keys, least=self.pairs)
        # A pair takes its cell from at most two others: its value lies on their key, or theirs on its.
        check_number("probe.pairs", self.pairs, most=(len(self._places) + 2) // 3)
        check_number("probe.queries", self.queries, most=self.grid**2 - 2 * self.pairs)

    @property
    def channels(self) -> int:
        return self.keys + self.values + 1

    @property
    def outputs(self) -> int:
        return self.values

    @property
    def _step(self) -> int:
        """From a key to its value, in cells counted row by row."""
        return self.offset[0] * self.grid + self.offset[1]

    @property
    def _places(self) -> Array:
        """Cells that a key may have, counted row by row: those whose value is on the grid."""
        rows, columns = (np.arange(max(0, -step), self.grid - max(0, step), dtype=np.int64) for step in (self.offset))
        return (rows[:, None] * self.grid + columns).reshape(-1)

    def draw(self, rng: np.random.Generator) -> Sample:
        cells = np.zeros((self.channels, self.grid**2), np.float32)
        target, mask = np.zeros(self.grid**2, np.int64), np.zeros(self.grid**2, bool)
        taken = np.zeros(self.grid**2, bool)
        homes: list[int] = []
        for place in rng.permutation(self._places):
            if len(homes) < self.pairs and not taken[[place, place + self._step]].any():
                taken[[place, place + self._step]] = True
                homes.append(place)
        keys = rng.permutation(self.keys)[: self.pairs]
        values = rng.integers(0, self.values, self.pairs)
        cells[keys, homes] = 1
        cells[self.keys + values, np.array(homes) + self._step] = 1
        asked = rng.choice(np.flatnonzero(~taken), self.queries, replace=False)
        about = rng.integers(0, self.pairs, self.queries)
        cells[keys[about], asked] = 1
        cells[-1, asked] = 1
        target[asked], mask[asked] = values[about], True
        shape = (self.grid, self.grid)
        return Sample(cells.reshape(-1, *shape), target.reshape(shape), mask.reshape(shape))

    def solve(self, samples: Samples) -> Array:
        answers = np.zeros((len(samples.input), self.grid**2), np.int64)
        for cells, answer in zip(samples.input.reshape(len(answers), self.channels, -1), answers, strict=True):
            key, value, asked = cells[: self.keys], cells[self.keys : -1], cells[-1] > 0
            known = {
                int(key[:, home].argmax()): int(value[:, home + self._step].argmax())
                for home in np.flatnonzero(key.any(axis=0) & ~asked)
            }
            answer[asked] = [known[number] for number in key[:, asked].argmax(axis=0)]
        return answers.reshape(samples.target.shape)
