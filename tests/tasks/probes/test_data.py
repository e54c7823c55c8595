"""The samples of a probe as data of a run."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import yaml

import conf
from operators.errors import InputError
from tasks import data
from tasks.probes.data import ProbeData

PROBE = {"name": "mqar_2d", "difficulty": 0}


def epoch_of(made: ProbeData, epoch: int) -> dict[int, tuple[np.ndarray, ...]]:
    """Every sample that training sees in an epoch, by index."""
    loader = made.train_dataloader()
    loader.batch_sampler.set_epoch(epoch)
    batches = list(loader)
    columns = (np.concatenate([batch[name].numpy() for batch in batches]) for name in ("image", "target", "mask"))
    index = np.concatenate([batch["index"].numpy() for batch in batches])
    return dict(zip(index.tolist(), zip(*columns, strict=True), strict=True))


def test_samples_are_the_same_in_any_batch_and_worker() -> None:
    alone = epoch_of(ProbeData(PROBE, batch_size=4, train=16, val=1, test=1), 3)
    shared = epoch_of(ProbeData(PROBE, batch_size=8, train=16, val=1, test=1, num_workers=2), 3)
    assert alone.keys() == shared.keys() == set(range(16))
    for number in alone:
        for own, other in zip(alone[number], shared[number], strict=True):
            np.testing.assert_array_equal(own, other)


def test_training_is_new_in_every_epoch_and_keyed_by_the_seed() -> None:
    def first(epoch: int, seed: int) -> np.ndarray:
        return epoch_of(ProbeData(PROBE, batch_size=4, train=4, val=1, test=1, seed=seed), epoch)[0][0]

    assert (first(0, 0) != first(1, 0)).any()
    assert (first(0, 0) != first(0, 1)).any()


def test_evaluation_is_the_same_for_every_seed() -> None:
    one, other = (ProbeData(PROBE, train=64, val=3, test=5, seed=seed) for seed in (0, 1))
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != ProbeData({**PROBE, "pairs": 3}, train=64, val=3, test=5).fingerprint
    shown = [number for batch in other.test_dataloader() for number in batch["index"].tolist()]
    assert shown == list(range(5))


def test_the_configuration_file_has_the_defaults() -> None:
    node = yaml.safe_load((Path(conf.__file__).parent / "data" / "probe.yaml").read_text())
    assert (node.pop("name"), node.pop("probe")) == ("probe", "${probe}")
    defaults = {key: value.default for key, value in inspect.signature(ProbeData).parameters.items()}
    assert node == {key: value for key, value in defaults.items() if key not in ("probe", "seed")}


def test_refusals() -> None:
    with pytest.raises(InputError, match="did you mean 'pairs'"):
        data.create("probe", probe={**PROBE, "pair": 3})
    with pytest.raises(InputError, match=r"data\.train=0 must be"):
        data.create("probe", probe=PROBE, train=0)
    with pytest.raises(InputError, match="data has no 'resolution'"):
        data.create("probe", probe=PROBE, resolution=3)
