"""Samples by number: sample i of a split is the same whatever the batch, worker or mixer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.data import keyed
from tasks.probes.probe import Probe, Samples, Split, stack


def draw(
    probe: Probe, split: Split, index: Sequence[int] | keyed.Index, *, seed: int = 0, epoch: int | keyed.Index = 0
) -> Samples:
    """The samples of a split at `index` (B,), each drawn from a generator keyed by (seed, split, epoch, index).

    `epoch` is one for all, or one for each (B,).
    """
    drawn = probe.at(split)
    keys = keyed.bits(seed, epoch, np.asarray(index, dtype=np.int64), f"probe/{split}", 2)
    return stack([drawn.draw(np.random.Generator(np.random.Philox(key=key))) for key in keys])
