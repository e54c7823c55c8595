"""Random fields and the trajectories that begin with them."""

import numpy as np
import pytest

from operators.errors import InputError
from tasks.fields.box import Box
from tasks.fields.draws import smooth
from tasks.fields.equations import EQUATIONS, get
from tasks.fields.solver import trajectory


@pytest.mark.parametrize("parity", [(1, 1), (-1, 1), (1, -1)])
@pytest.mark.parametrize("boundary", ["periodic", "reflecting"])
def test_a_field_is_the_same_on_every_grid(boundary: str, parity: tuple[int, int]) -> None:
    coarse, fine = (smooth(np.random.default_rng(3), Box(n, boundary), 2.0, parity) for n in (10, 30))
    np.testing.assert_allclose(fine[1::3, 1::3], coarse, atol=1e-13)  # centres of every third pixel are the same
    assert 0.9 < abs(smooth(np.random.default_rng(3), Box(64, boundary), 2.0, parity)).max() <= 1 + 1e-12


def test_the_spectrum_is_the_one_that_is_stated() -> None:
    waves, slope = 3.0, 1.0
    box = Box(32)
    power = np.zeros((32, 17))
    for seed in range(300):
        spectrum = abs(np.fft.rfft2(smooth(np.random.default_rng(seed), box, waves, slope=slope))) ** 2
        power += spectrum / spectrum.sum()
    rows, columns = (axis / (2 * np.pi) for axis in box.waves)
    square = rows**2 + columns**2
    band = (abs(rows) <= 6) & (columns <= 6)
    assert power[~band].max() < 1e-20 * power.max()
    assert power[0, 0] < 1e-20 * power.max()
    inside = band & (square > 0) & (square < 20)
    ratio = (power / np.where(square > 0, square**slope * np.exp(-square / waves**2), 1))[inside]
    assert 0.8 < ratio.min() / ratio.mean() <= ratio.max() / ratio.mean() < 1.2


@pytest.mark.parametrize("name", EQUATIONS)
def test_a_trajectory_depends_on_seed_split_and_index_alone(name: str) -> None:
    box = Box(16)

    def states(**changed: object) -> np.ndarray:
        return trajectory(get(name), box, 2, **{"seed": 0, "split": "train", "index": 4, **changed})  # type: ignore[arg-type]

    first = states()
    assert first.dtype == np.float32
    assert first.shape == (2, len(get(name).fields), 16, 16)
    np.testing.assert_array_equal(first, states())
    for changed in ({"seed": 1}, {"split": "val"}, {"index": 5}):
        assert (states(**changed) != first).any()


@pytest.mark.parametrize("name", EQUATIONS)
def test_an_equation_names_every_channel(name: str) -> None:
    equation = get(name)
    state = equation.draw(np.random.default_rng(0), Box(8))
    assert len(state) == len(equation.fields) == len(equation.units) == len(equation.parities)
    assert len(set(equation.fields)) == len(equation.fields)


def test_refusals() -> None:
    with pytest.raises(InputError, match="did you mean 'burgers'"):
        get("burger")
    with pytest.raises(InputError, match="boundary='reflect' is not known"):
        Box(8, "reflect")
    with pytest.raises(InputError, match="grid=3 must be an integer >= 4"):
        Box(3)
