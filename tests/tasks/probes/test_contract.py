"""What every probe promises, at every difficulty."""

import numpy as np
import pytest

from operators.errors import InputError
from tasks.probes import registry
from tasks.probes.draws import draw
from tasks.probes.probe import Probe, score, threshold

EVERY = [(name, level) for name, kind in registry.PROBES.items() for level in range(len(kind.difficulties))]
SHAPES = {
    "cell_values": lambda v, n: (v, n, n),
    "cell_classes": lambda v, n: (n, n),
    "image_values": lambda v, n: (v,),
    "image_class": lambda v, n: (),
}
SMALL = {"field_forecast": {"grid": 16, "trajectories": 4, "frames": 5}}
"""Dials of probes whose samples take long to draw."""


@pytest.fixture(params=EVERY, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def probe(request: pytest.FixtureRequest) -> Probe:
    name, level = request.param
    return registry.create(name, level, **SMALL.get(name, {}))


def test_a_sample_has_the_promised_shapes(probe: Probe) -> None:
    samples, side = draw(probe, "test", range(3)), probe.at("test").grid
    assert samples.input.shape == (3, probe.channels, side, side)
    assert samples.input.dtype == np.float32
    assert samples.target.shape == (3, *SHAPES[probe.kind](probe.outputs, side))
    assert samples.target.dtype == (np.int64 if probe.classifies else np.float32)
    assert samples.mask is None or (samples.mask.shape == (3, side, side) and samples.mask.any())
    if probe.classifies:
        assert samples.target.min() >= 0
        assert samples.target.max() < probe.outputs


def test_the_oracle_scores_one_and_a_constant_scores_zero(probe: Probe) -> None:
    train, test = draw(probe, "train", range(128)), draw(probe, "test", range(64))
    oracle, chance = probe.error(probe.solve(test), test), probe.error(probe.constant(train), test)
    assert 0 <= oracle < 0.9 * chance
    assert score(oracle, oracle, chance) == 1
    assert score(chance, oracle, chance) == 0
    assert not probe.exact or oracle < 1e-6 * chance
    assert oracle < threshold(oracle, chance, exact=probe.exact) < chance


def test_the_oracle_reads_inputs_alone(probe: Probe) -> None:
    test = draw(probe, "test", range(4))
    np.testing.assert_array_equal(probe.solve(test), probe.solve(test._replace(target=np.zeros_like(test.target))))


def test_a_sample_depends_on_seed_split_epoch_and_index_alone(probe: Probe) -> None:
    chosen = list(range(9, 15))
    together, alone = draw(probe, "train", [5, *chosen], epoch=2), draw(probe, "train", chosen, epoch=2)
    np.testing.assert_array_equal(together.input[1:], alone.input)
    np.testing.assert_array_equal(together.target[1:], alone.target)
    for other in (
        draw(probe, "train", chosen, seed=1, epoch=2),
        draw(probe, "train", chosen),
        draw(probe, "val", chosen, epoch=2),
        draw(probe, "train", range(15, 21), epoch=2),
    ):
        assert (other.input != alone.input).any()


def test_refusals_name_what_is_nearest() -> None:
    with pytest.raises(InputError, match="shift"):
        registry.create("shfit")
    with pytest.raises(InputError, match="did you mean 'distance'"):
        registry.create("shift", distanc=3)
    with pytest.raises(InputError, match=r"probe\.difficulty=99 must be an integer >= 0 and <= "):
        registry.create("shift", 99)
    with pytest.raises(InputError, match=r"probe\.per_image='yes' must be true or false"):
        registry.create("shift", per_image="yes")
