"""The flood fill probe."""

from collections import deque

import numpy as np
import pytest

from operators.errors import InputError
from tasks.probes.draws import draw
from tasks.probes.grouping.flood_fill import FloodFill
from tasks.probes.grouping.passages import cell_of, steps


def reached_by_queue(walls, start):
    """Cells reached and the steps to them, cell by cell."""
    length, queue = {start: 0}, deque([start])
    while queue:
        row, column = queue.popleft()
        for cell in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= cell[0] < len(walls) and 0 <= cell[1] < len(walls)
            if inside and not walls[cell] and cell not in length:
                length[cell] = length[row, column] + 1
                queue.append(cell)
    return length


def test_labels_and_steps_are_those_of_a_queue():
    samples = draw(FloodFill(grid=9, walls=0.4), "test", range(20))
    for (walls, start), target, free in zip(samples.input, samples.target, samples.mask, strict=True):
        length = reached_by_queue(walls, cell_of(start))
        assert {tuple(cell) for cell in np.argwhere(target)} == set(length)
        np.testing.assert_array_equal(free, walls == 0)
        (distance,) = steps(free, cell_of(start))
        assert {cell: distance[cell] for cell in length} == length
        assert np.isinf(distance[target == 0]).all()


@pytest.mark.parametrize(
    ("grid", "walls", "share", "longest"),
    [
        (8, 0.3, 0.82, 10.7),
        (8, 0.4, 0.56, 8.3),
        (8, 0.45, 0.47, 7.0),
        (16, 0.3, 0.84, 24.8),
        (16, 0.4, 0.48, 18.4),
        (16, 0.45, 0.30, 13.3),
    ],
)
def test_shares_and_paths_are_those_measured_before(grid, walls, share, longest):
    """Against means of 300 other draws: four standard errors of the difference, and half a unit of rounding."""
    count, before = 150, 300
    samples = draw(FloodFill(grid=grid, walls=walls), "train", range(count))
    pairs = zip(samples.input, samples.mask, strict=True)
    distances = [steps(free, cell_of(start))[0] for (_, start), free in pairs]
    shares = [np.isfinite(distance).sum() / free.sum() for distance, free in zip(distances, samples.mask, strict=True)]
    lengths = [distance[np.isfinite(distance)].max() for distance in distances]
    for values, known, rounding in ((shares, share, 0.005), (lengths, longest, 0.05)):
        error = np.std(values) * np.sqrt(1 / count + 1 / before)
        assert abs(np.mean(values) - known) < 4 * error + rounding
        assert error < known / 5  # so that the test could fail


def test_dials():
    samples = draw(FloodFill(grid=12, walls=0.4, least_path=20), "train", range(10))
    for (_, start), free in zip(samples.input, samples.mask, strict=True):
        (distance,) = steps(free, cell_of(start))
        assert distance[np.isfinite(distance)].max() >= 20
    cells = draw(FloodFill(grid=16, walls=0.2), "train", range(100)).input[:, 0]
    assert abs(cells.mean() - 0.2) < 4 * np.sqrt(0.2 * 0.8 / cells.size) + 1 / 16**2  # the start is free


def test_the_error_is_balanced():
    probe = FloodFill(grid=8, walls=0.3)
    samples = draw(probe, "test", range(50))
    assert samples.target[samples.mask].mean() > 0.7
    for constant in (0, 1):
        assert probe.error(np.array(constant), samples) == 0.5
    only = samples._replace(target=samples.mask.astype(np.int64))  # one class
    assert probe.error(np.array(1), only) == 0
    measures = probe.measures(np.ones_like(samples.target), samples)
    assert measures == pytest.approx({"accuracy": samples.target[samples.mask].mean(), "balanced_accuracy": 0.5})


def test_refusals():
    with pytest.raises(InputError, match=r"^probe\.walls=0\.95 must be"):
        FloodFill(walls=0.95)
    with pytest.raises(InputError, match=r"^probe\.least_path=32: none of 1000 grids"):
        draw(FloodFill(grid=8, walls=0.0, least_path=32), "train", [0])
