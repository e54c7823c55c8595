"""The samples of a probe as data of a run: drawn when they are needed, and never the same twice in training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from operators.errors import check_number
from tasks.data.augment import Augment
from tasks.data.loading import Batch, KeyedData
from tasks.data.sampler import Pairs
from tasks.probes import registry
from tasks.probes.draws import draw
from tasks.probes.probe import Array, Probe, Samples, Split, score

FITTED = 1024
"""Samples of the first epoch that the constant answer, chance, is fitted to."""
MOST_SAMPLES = 10_000_000


class ProbeSizes(NamedTuple):
    """The samples of an epoch, and of the two splits that stay the same."""

    train: range
    val: range
    test: range


class Levels(NamedTuple):
    """The errors between which a score lies, on certain samples."""

    oracle: float
    chance: float

    def score(self, error: float) -> float:
        """1 for the oracle, 0 for chance."""
        return score(error, self.oracle, self.chance)


class ProbeSplit(Dataset[Batch]):
    """One split: of training, sample i of epoch e is drawn when asked for; the others are `kept`."""

    def __init__(self, probe: Probe, seed: int, kept: Samples | None) -> None:
        self._probe, self._seed, self._kept = probe, seed, kept

    def __getitems__(self, pairs: Pairs) -> Batch:
        """The batch of these (epoch, index) pairs, see `ProbeData`."""
        epoch, index = np.ascontiguousarray(np.array(pairs, dtype=np.int64).T)
        if self._kept is None:
            samples = draw(self._probe, "train", index, seed=self._seed, epoch=epoch)
        else:
            samples = chosen(self._kept, index)
        columns = {"image": samples.input, "target": samples.target, "index": index, "epoch": epoch}
        if samples.mask is not None:
            columns["mask"] = samples.mask
        return {name: torch.from_numpy(column) for name, column in columns.items()}


class ProbeData(KeyedData):
    """Train, validation and test samples of one probe.

    A batch is a dict: "image" float32 (B, C, H, W), the input; "target" and, where the probe has one, "mask", as in
    `tasks.probes.probe.Samples`; "index" and "epoch" int64 (B,). Sample i of training depends on (seed, epoch, i) and
    is new in every epoch; validation and test depend on neither and are the same in every run of the probe.

    Args:
        probe: `name`, `difficulty` and dials, as `tasks.probes.registry.create` takes them; or the probe.
        batch_size: global batch, over all devices, which must divide it.
        num_workers: loader processes per device.
        seed: of the training samples and their order.
        train: samples of an epoch.
        val: samples of validation.
        test: samples of testing.

    Raises:
        InputError: a value out of range, an unknown probe or dial.
    """

    def __init__(
        self,
        probe: Mapping[str, Any] | Probe,
        *,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        train: int = 1024,
        val: int = 256,
        test: int = 1024,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        for name, size in (("train", train), ("val", val), ("test", test)):
            check_number(f"data.{name}", size, least=1, most=MOST_SAMPLES, integer=True)
        self.probe = probe if isinstance(probe, Probe) else registry.create(**probe)
        self.name = self.probe.name
        self.class_names = [str(number) for number in range(self.probe.outputs)]
        self.num_classes, self.channels = self.probe.outputs, self.probe.channels
        self.image_size = (self.probe.grid, self.probe.grid)
        self.mean, self.std = (0.0,) * self.channels, (1.0,) * self.channels
        self.augment, self.subset = Augment(), None
        self._sizes = ProbeSizes(range(train), range(val), range(test))
        self._levels: dict[bytes, Levels] = {}
        self._kept: dict[Split, Samples] = {}

    @property
    def splits(self) -> ProbeSizes:
        """Numbers of the samples; nothing is drawn."""
        return self._sizes

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the probe's dials and the samples of validation and test."""
        digest = hashlib.sha256(repr(self.probe).encode())
        for samples in (self.kept("val"), self.kept("test")):
            for column in samples:
                if column is not None:
                    digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()

    def kept(self, split: Split) -> Samples:
        """All samples of validation or test, drawn the first time."""
        if split not in self._kept:
            self._kept[split] = draw(self.probe, split, getattr(self._sizes, split))
        return self._kept[split]

    def serve(self, split: str) -> ProbeSplit:
        """The samples of a split; those of validation and test are drawn here, once."""
        if split == "train":
            return ProbeSplit(self.probe, self.seed, None)
        return ProbeSplit(self.probe, self.seed, self.kept("val" if split == "val" else "test"))

    @cached_property
    def constant(self) -> Array:
        """The answer of chance, fitted to samples of training; the same in every run of the probe."""
        return self.probe.constant(draw(self.probe, "train", range(FITTED)))

    def levels(self, split: Split, index: Array) -> Levels:
        """Errors of the oracle and of chance on the samples `index` (N,) of validation or test, computed once."""
        key = split.encode() + index.tobytes()
        if key not in self._levels:
            probe, samples = self.probe.at(split), chosen(self.kept(split), index)
            self._levels[key] = Levels(probe.error(probe.solve(samples), samples), probe.error(self.constant, samples))
        return self._levels[key]


def chosen(samples: Samples, index: Array) -> Samples:
    """The samples at these places, in that order."""
    mask = None if samples.mask is None else samples.mask[index]
    return Samples(samples.input[index], samples.target[index], mask)
