"""What a benchmark is to measure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from operators.benchmark.arms import Arm, MixerArm
from operators.benchmark.bare import BareArm
from operators.benchmark.table import PACKAGE
from operators.benchmark.workload import Shape, Target


@dataclass(frozen=True)
class BenchmarkPlan:
    """What to measure.

    Attributes:
        arms: what is compared.
        shapes: at which sizes.
        places: on which devices and in which types.
        level: of the mixers, one of `operators.benchmark.arms.LEVELS`, or what they are part of.
        reference: label of the arm that times are divided by, or None.
        bare: whether each mixer is measured beside its own bare operations, by which its times are divided, and nothing
            else.
        repeats: samples of each time.
        threads: of torch, on CPU.
        out: directory of the tables.
        minutes: after which nothing new is begun.
        memory: bytes that an arm may take; None for most of what is free.
        packages: folders of source files; results of other ones are measured anew.
    """

    arms: Sequence[Arm]
    shapes: Sequence[Shape]
    places: Sequence[Target]
    level: str
    reference: str | None
    repeats: int
    threads: int
    out: Path
    minutes: float = math.inf
    memory: int | None = None
    packages: tuple[Path, ...] = (PACKAGE,)
    bare: bool = False

    def companies(self) -> list[tuple[Sequence[Arm], str | None]]:
        """The arms that are sampled in turn, and the label of that one by which their times are divided."""
        if not self.bare:
            return [(self.arms, self.reference)]
        pairs = [(arm, BareArm(arm)) for arm in self.arms if isinstance(arm, MixerArm)]
        return [(pair, pair[1].label) for pair in pairs]
