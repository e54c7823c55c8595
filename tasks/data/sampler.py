"""Which samples make up which batch, on which rank; and a loader that can resume within an epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Sampler

from operators.errors import InputError
from tasks.data import keyed, workers
from tasks.data.files.corrupt import Corrupt

Pairs = list[tuple[int, int]]


def _pairs(epoch: int, index: keyed.Index) -> Pairs:
    return [(epoch, i) for i in index.tolist()]


class TrainBatches(Sampler[Pairs]):
    """Lists of (epoch, index) pairs: rank r's contiguous slice of every global batch.

    The permutation is keyed by (seed, epoch), so the union over the ranks is the batch that a single process
    would take. The last incomplete batch is dropped. Pairs carry the epoch, so persistent workers need not be
    told about it.

    Args:
        size: images in the split.
        batch_size: global batch; must be divisible by `world_size` and not exceed `size`.
        seed: of the permutation.
        rank, world_size: this process among all.

    Raises:
        InputError: the batch does not divide, or is larger than the split.
    """

    def __init__(self, size: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size % world_size:
            raise InputError(f"data.batch_size={batch_size} must be divisible by the {world_size} devices of this run")
        if batch_size > size:
            raise InputError(f"data.batch_size={batch_size} must be at most {size}, the number of train images")
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.delivered = 0
        self._resume_at = 0

    def __len__(self) -> int:
        return self.size // self.batch_size

    def __iter__(self) -> Iterator[Pairs]:
        start, self._resume_at = self._resume_at, 0
        self.delivered = start
        epoch = self.epoch
        order = keyed.permutation(self.seed, epoch, self.size, "order")
        local = self.batch_size // self.world_size
        for batch in range(start, len(self)):
            first = batch * self.batch_size + self.rank * local
            yield _pairs(epoch, order[first : first + local])

    @property
    def sampler(self) -> TrainBatches:
        """Itself: Lightning calls `set_epoch` on `loader.batch_sampler.sampler`, never on the batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; a position loaded for another epoch is forgotten."""
        if epoch != self.epoch:
            self.epoch, self.delivered, self._resume_at = epoch, 0, 0

    def state_dict(self) -> dict[str, int]:
        """The next batch to train on, {"epoch", "batch"}; `batch` counts those the loader has handed out."""
        if self.delivered == len(self):
            return {"epoch": self.epoch + 1, "batch": 0}
        return {"epoch": self.epoch, "batch": self.delivered}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at a state from `state_dict`; the next iteration yields what is left of that epoch."""
        self.epoch = state["epoch"]
        self.delivered = self._resume_at = state["batch"]


class EvalBatches(Sampler[Pairs]):
    """Lists of (0, index) pairs over a split in its order, every image exactly once.

    Rank r takes the r-th contiguous shard. Nothing is padded or repeated, so shard lengths differ by at most one;
    every shard is cut into the same number of nearly equal batches, because collective operations in the forward
    pass (buffer broadcasts) need all ranks to take the same number of steps.

    Args:
        size: images in the split.
        batch_size: global upper bound on a batch (one more per rank where that would be a single image).
        rank, world_size: this process among all.

    Raises:
        InputError: there are more ranks than images.
    """

    def __init__(self, size: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if size < world_size:
            raise InputError(f"{size} images cannot be evaluated on {world_size} devices")
        self._shard = np.arange(rank * size // world_size, (rank + 1) * size // world_size)
        longest = math.ceil(size / world_size)
        # no more batches than the shortest shard has images: an empty batch would break the model
        self._batches = min(math.ceil(longest / max(1, batch_size // world_size)), size // world_size)

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[Pairs]:
        for index in np.array_split(self._shard, self._batches):
            yield _pairs(0, index)


class Loader(DataLoader[Any]):
    """A `DataLoader` that takes "corrupt" out of the batches and has it counted, in the main process.

    With `workers.send` as its `collate_fn`, what is kept of a batch, but for the images, holds no file open.

    Attributes:
        corrupt: counts.
        checkpoint: what the run continues from, should its workers fail.
    """

    corrupt: Corrupt | None = None
    checkpoint: Path | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for sent in self._sent():
            batch = workers.receive(sent)
            if self.corrupt is not None and "corrupt" in batch:
                try:
                    self.corrupt.note(batch.pop("corrupt"))
                except InputError:
                    workers.end(self)
                    raise
            yield batch

    def _sent(self) -> Iterator[Any]:
        try:
            with workers.explained(self.checkpoint), workers.watched(self.checkpoint, self.num_workers):
                batches = super().__iter__()
            while True:
                with workers.explained(self.checkpoint):
                    try:
                        batch = next(batches)
                    except StopIteration:
                        return
                yield batch
        except Exception:
            workers.end(self)
            raise


class TrainLoader(Loader):
    """A `DataLoader` over `TrainBatches` that Lightning can checkpoint and resume within an epoch.

    It counts the batches it hands out: the sampler itself runs ahead of training by what the workers prefetch.
    """

    batch_sampler: TrainBatches

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator starts at the first `next`, which is after Lightning has set the epoch; it creates the
        # iterator before.
        for batch in super().__iter__():
            self.batch_sampler.delivered += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where training stands, as `TrainBatches.state_dict` says it."""
        return self.batch_sampler.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from there, as `TrainBatches.load_state_dict` does."""
        self.batch_sampler.load_state_dict(state)
