"""Networks of coordinates, and what they take: against formulas written out number by number."""

import math

import pytest
import torch

from operators.spectral.coordinates import SineNetwork, centred, fractions, hyena_features, plane, sinusoids
from operators.testing.cases import noise
from operators.testing.checks import assert_close

LIKE = torch.zeros((), dtype=torch.float64)


def test_places_run_from_zero_to_one():
    assert fractions(5, LIKE).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert fractions(1, LIKE).tolist() == [0]
    assert centred(3, 0.5, LIKE).tolist() == [-1, -0.5, 0, 0.5, 1]


@pytest.mark.parametrize("bands", [1, 3])
def test_features_of_hyena(bands):
    frequencies = [1e-4 + (bands - 1 - 1e-4) * k / (bands - 1) for k in range(bands)] if bands > 1 else [1e-4]
    expected = []
    for i in range(6):
        phases = [f * 2 * math.pi * i / 6 for f in frequencies]
        expected.append([i / 5, *map(math.cos, phases), *(-math.sin(p) for p in phases)])
    assert_close(hyena_features(6, bands, LIKE), torch.tensor(expected, dtype=torch.float64), 1e-14, "features")


def test_sinusoids_of_columns_then_rows():
    made = sinusoids(8, 5)
    assert made.shape == (5, 5, 8)
    for row in range(5):
        for column in range(5):
            angles = [place * 10000 ** (-2 * i / 4) for place in (column, row) for i in range(2)]
            expected = [f(angle) for angle in angles for f in (math.sin, math.cos)]
            assert made[row, column].tolist() == pytest.approx(expected, abs=1e-6)


def test_all_pairs():
    rows, columns = noise(3, 2), noise(4, 1)
    made = plane(rows, columns)
    assert made.shape == (3, 4, 3)
    assert torch.equal(made[2, 1], torch.cat([rows[2], columns[1]]))


@pytest.mark.parametrize("frequencies", [0, 1, 2])
def test_a_network_of_sines(frequencies):
    network = SineNetwork([2, 5, 5, 3], frequencies=frequencies, bias=False).double()
    with torch.no_grad():
        for number, parameter in enumerate(network.frequencies):
            parameter.copy_(noise(5, dtype=torch.float64, seed=number))
    first, second, last = network.layers
    factors = [*network.frequencies, *network.frequencies][:2] if frequencies else [1, 1]
    places = noise(7, 2, dtype=torch.float64)
    for place, value in zip(places, network(places), strict=True):
        hidden = torch.sin(factors[0] * (first.weight @ place + first.bias))
        hidden = torch.sin(factors[1] * (second.weight @ hidden + second.bias))
        assert_close(value, last.weight @ hidden, 1e-13, "value")
    assert last.bias is None
    assert all((parameter == 1).all() for parameter in SineNetwork([2, 5, 5, 3], frequencies=2, bias=True).frequencies)
