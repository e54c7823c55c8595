"""What a probe is: a two-dimensional task with one difficulty, an exact solver and a chance level.

A probe is a frozen dataclass whose fields are its dials. It draws one sample from a random generator, solves samples,
and knows the best answer that ignores the layout. Errors of a model, of the oracle and of chance are computed by one
function, on the same samples. To add a probe: a subclass of `Probe` in the folder of its family, and its class in
`tasks.probes.registry.PROBES`. `tests/tasks/probes/test_contract.py` then checks it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from operators import value_types
from operators.errors import check_number
from tasks.fields.rollout import Rollout

Array = npt.NDArray[Any]
Kind = Literal["cell_values", "cell_classes", "image_values", "image_class"]
Split = Literal["train", "val", "test"]

CELLS: tuple[Kind, ...] = ("cell_values", "cell_classes")
"""Kinds of targets of which each cell has one."""
MOST_SIDE = 256
"""Cells along a side: a mixer would see 65,536 tokens."""


class Sample(NamedTuple):
    """One sample.

    Attributes:
        input: float32 (C, H, W), C = `Probe.channels`.
        target: by the probe's `kind`, with V = `Probe.outputs`: cell_values float32 (V, H, W); cell_classes int64
            (H, W), in [0, V); image_values float32 (V,); image_class int64 (), in [0, V).
        mask: bool (H, W), the cells that are learned and scored; None for all of them, and per image.
    """

    input: Array
    target: Array
    mask: Array | None = None


class Samples(NamedTuple):
    """Samples in one batch: the arrays of `Sample` with a leading axis B; `mask` is (B, H, W), or None."""

    input: Array
    target: Array
    mask: Array | None = None


def stack(samples: Sequence[Sample]) -> Samples:
    """One batch of the samples, all of which or none have a mask."""
    masks = [sample.mask for sample in samples if sample.mask is not None]
    return Samples(
        np.stack([sample.input for sample in samples]),
        np.stack([sample.target for sample in samples]),
        np.stack(masks) if masks else None,
    )


@dataclass(frozen=True, kw_only=True)
class Probe(ABC):
    """Base class of the probes. A subclass is a frozen dataclass; its fields are the dials, all with defaults.

    Class attributes:
        name: in the configuration.
        kind: what a target is, see `Sample`.
        isolates: in a few words, what a mixer must be able to do.
        difficulties: dials of difficulty 0, 1, …, easiest first.
        depth: blocks of the trunk: 2, or 4 for iterative probes.
        positions: of the trunk: `none`, or `learned` where the answer depends on the place of a cell.

    Attributes:
        grid: cells along each side.

    Raises:
        InputError: a dial of a wrong type or out of range; the message begins with `probe.DIAL=`.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    isolates: ClassVar[str]
    difficulties: ClassVar[tuple[Mapping[str, Any], ...]]
    depth: ClassVar[int] = 2
    positions: ClassVar[str] = "none"

    grid: int = 16

    def __post_init__(self) -> None:
        for dial in fields(self):
            value_types.check(f"probe.{dial.name}", getattr(self, dial.name), dial.type)
        check_number("probe.grid", self.grid, least=4, most=MOST_SIDE, integer=True)

    @property
    def channels(self) -> int:
        """Channels C of the input."""
        return 1

    @property
    def outputs(self) -> int:
        """Values V, or classes V, of an answer."""
        return 1

    @property
    def exact(self) -> bool:
        """Whether the oracle makes no error but that of rounding."""
        return True

    @property
    def per_cell(self) -> bool:
        """Whether each cell has an answer; otherwise each image has one."""
        return self.kind in CELLS

    @property
    def classifies(self) -> bool:
        """Whether an answer is a class; otherwise it is V values."""
        return self.kind in ("cell_classes", "image_class")

    def at(self, split: Split) -> Probe:
        """The probe that draws the samples of a split; another one where testing differs from training."""
        return self

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Sample:
        """One sample. All its randomness comes from `rng`, which is keyed by (seed, split, epoch, index)."""

    @abstractmethod
    def solve(self, samples: Samples) -> Array:
        """The oracle's answers from inputs alone: shaped like `samples.target`, values in float64."""

    def constant(self, train: Samples) -> Array:
        """The best answer that ignores the layout, fitted to draws of the training split.

        Returns:
            the mean of each value, or the most frequent class, shaped to broadcast against one target: (V, 1, 1), (V,)
            or (). Only what the mask shows counts.
        """
        shown = self._shown(train, train.target)
        if self.classifies:
            return np.asarray(np.bincount(shown, minlength=self.outputs).argmax())
        mean: Array = shown.astype(np.float64).mean(axis=0)
        return mean[:, None, None] if self.per_cell else mean

    def error(self, answers: Array, samples: Samples) -> float:
        """Mean squared error of values, share of wrong classes, over what the mask shows of all samples.

        Args:
            answers: broadcast to the shape of the targets; classes are integers.
            samples: a whole split, or a part of it.
        """
        answers = np.broadcast_to(answers, samples.target.shape)
        given, right = self._shown(samples, answers), self._shown(samples, samples.target)
        if self.classifies:
            return float((given != right).mean())
        return float(np.square(given.astype(np.float64) - right).mean())

    def measures(self, answers: Array, samples: Samples) -> dict[str, float]:
        """Further scores of answers shaped like the targets, by name; for `metrics.json`, as `test/NAME`."""
        return {"accuracy": 1 - self.error(answers, samples)} if self.classifies else {}

    def rollout(self, answer: Callable[[Array], Array]) -> Rollout | None:
        """Forecasts of many steps, each from the one before; None where a probe has no time.

        Args:
            answer: maps inputs float32 (B, C, H, W) to answers.
        """
        return None

    def _shown(self, samples: Samples, array: Array) -> Array:
        """What the mask shows of an array shaped like the targets: classes (N,), values (N, V)."""
        if not self.per_cell:
            return array
        last = array if self.classifies else np.moveaxis(array, 1, -1)
        mask = np.ones(last.shape[:3], bool) if samples.mask is None else samples.mask
        return last[mask]


def score(error: float, oracle: float, chance: float) -> float:
    """(chance - error) / (chance - oracle): 1 for the oracle, 0 for chance, negative for worse."""
    return (chance - error) / (chance - oracle)


def threshold(oracle: float, chance: float, *, exact: bool) -> float:
    """The error half-way between chance and the oracle.

    On a logarithmic scale, √(chance · oracle); where the oracle is `exact`, whose logarithm says nothing, on a linear
    one: half of chance.
    """
    return chance / 2 if exact else float(np.sqrt(chance * oracle))
