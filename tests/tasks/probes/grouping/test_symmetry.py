"""The symmetry probe."""

import numpy as np
import pytest

from operators.errors import InputError
from tasks.probes.draws import draw
from tasks.probes.grouping.symmetry import MIRRORS, Symmetry


def mirrored_by_loops(image, mirror):
    """The mirror image, cell by cell."""
    n = len(image)
    source = {
        "row": lambda i, j: (n - 1 - i, j),
        "column": lambda i, j: (i, n - 1 - j),
        "diagonal": lambda i, j: (j, i),
        "half_turn": lambda i, j: (n - 1 - i, n - 1 - j),
    }[mirror]
    return np.array([[image[source(i, j)] for j in range(n)] for i in range(n)])


@pytest.mark.parametrize("grid", [6, 7])
@pytest.mark.parametrize("mirror", MIRRORS)
def test_class_zero_differs_in_the_flipped_cells_of_one_half(mirror, grid):
    samples = draw(Symmetry(grid=grid, mirror=mirror, flipped=3), "test", range(40))
    for image, same in zip(samples.input[:, 0], samples.target, strict=True):
        assert (image != mirrored_by_loops(image, mirror)).sum() == (0 if same else 6)
    assert 0 < samples.target.mean() < 1


def test_classes_and_cells_are_balanced():
    """Within four standard errors."""
    count = 800
    samples = draw(Symmetry(grid=6, mirror="half_turn", flipped=6), "train", range(count))
    assert abs(samples.target.mean() - 0.5) < 4 * 0.5 / np.sqrt(count)
    for same in (0, 1):
        images = samples.input[samples.target == same]
        # 18 independent cells, each counted twice or, flipped, against each other
        assert abs(images.mean() - 0.5) < 4 * 0.5 / np.sqrt(18 * len(images))
        assert np.abs(images.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(len(images))


def test_refusals():
    with pytest.raises(InputError, match="did you mean 'half_turn'"):
        Symmetry(mirror="half_trun")
    with pytest.raises(InputError, match=r"^probe\.flipped=7 must be an integer >= 1 and <= 6"):
        Symmetry(grid=4, mirror="diagonal", flipped=7)
