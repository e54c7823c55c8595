"""The contour probe."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from operators.errors import InputError
from tasks.probes.draws import draw
from tasks.probes.grouping.contour import SHORTER, STEP, UNLIKE, Contour

DIALS = {"grid": 32, "length": 20.0, "gap": 2.0, "distractors": 2}


def joined_by_growing(curves, marks, gap):
    """Whether the marks lie in one piece, once drawn cells have grown by half a gap and more; on a finer grid."""
    times = 8
    fine = np.kron(curves > 0.5, np.zeros((times, times)))
    fine[times // 2 :: times, times // 2 :: times] = curves > 0.5
    grown = ndimage.distance_transform_edt(fine == 0) <= times * (gap + STEP + np.sqrt(2)) / 2
    pieces, _ = ndimage.label(grown)
    first, second = (pieces[tuple(times * mark + times // 2)] for mark in np.argwhere(marks))
    return first == second


def test_labels_are_those_of_growing_the_curves():
    samples = draw(Contour(**DIALS), "test", range(30))
    found = [joined_by_growing(curves, marks, 2.0) for curves, marks in samples.input]
    np.testing.assert_array_equal(found, samples.target)
    assert 0 < samples.target.mean() < 1


def test_scenes_are_what_the_dials_say():
    probe = Contour(**DIALS)
    for seed in range(10):
        curves, ends = probe.scene(np.random.default_rng(seed))
        assert [len(curve) for curve in curves] == [41, 41, 21, 21]
        for number, curve in enumerate(curves):
            paces = np.linalg.norm(np.diff(curve, axis=0), axis=1)
            np.testing.assert_allclose(paces, STEP)
            assert curve.min() >= 0
            assert curve.max() <= 31
            for other in curves[:number]:
                assert cdist(np.rint(curve), np.rint(other)).min() >= probe.clearance
        own = np.linalg.norm(curves[0][0] - curves[0][-1])
        between = np.linalg.norm(curves[0][ends[0]] - curves[1][ends[1]])
        assert abs(own - between) <= UNLIKE * own
    assert SHORTER == 0.5


def test_bend_bends():
    def turned(bend):
        curves = [
            Contour(grid=64, length=16.0, bend=bend).scene(np.random.default_rng(seed))[0][0] for seed in range(40)
        ]
        paces = [np.diff(curve, axis=0) for curve in curves]
        return np.array([np.arctan2(*pace[-1]) - np.arctan2(*pace[0]) for pace in paces])

    assert np.abs(turned(0.0)).max() < 1e-9
    # random walks: 16 cells turn by bend · √16; wrapped angles are few at this bend
    angles = (turned(0.15) + np.pi) % (2 * np.pi) - np.pi
    assert abs(angles.std() - 0.6) < 4 * 0.6 / np.sqrt(2 * 40)


def test_neither_the_number_nor_the_distance_of_marks_tells_the_class():
    """The best threshold of the distance is right about as often as for labels drawn at random."""
    samples = draw(Contour(grid=16, length=10.0, gap=0.0), "train", range(400))
    marks = [np.argwhere(plane) for plane in samples.input[:, 1]]
    assert {len(mark) for mark in marks} == {2}
    distance = np.array([np.linalg.norm(mark[0] - mark[1]) for mark in marks])
    ranks = distance.argsort().argsort() + 1
    ones = samples.target == 1
    area = (ranks[ones].sum() - ones.sum() * (ones.sum() + 1) / 2) / (ones.sum() * (~ones).sum())
    assert abs(area - 0.5) < 4 * np.sqrt(401 / (12 * ones.sum() * (~ones).sum()))
    assert abs(ones.mean() - 0.5) < 4 * 0.5 / np.sqrt(400)


def test_dashes_gaps_and_noise():
    whole, dashed = (draw(Contour(grid=32, length=20.0, gap=gap), "test", range(10)) for gap in (0.0, 3.0))
    shares = [(samples.input[:, 0] > 0).sum(axis=(1, 2)).mean() for samples in (whole, dashed)]
    assert 0.45 < shares[1] / shares[0] < 0.75  # 3 of 6 cells, and the cells that dashes begin and end in
    assert ndimage.label(whole.input[0, 0], np.ones((3, 3)))[1] == 2
    assert ndimage.label(dashed.input[0, 0], np.ones((3, 3)))[1] > 4
    noisy = draw(Contour(grid=32, length=20.0, noise=0.4), "test", range(10)).input[:, 0]
    off = noisy - (noisy > 0.5)
    assert 0.39 < np.abs(off).max() <= 0.4 + 1e-6
    assert abs(off.std() - 0.4 / np.sqrt(3)) < 0.01


def test_refusals():
    with pytest.raises(InputError, match=r"^probe\.noise=0\.5 must be"):
        Contour(noise=0.5)
    with pytest.raises(InputError, match=r"^probe\.distractors=3: two curves of probe\.length=40 and so many"):
        draw(Contour(length=40.0, bend=0.0, distractors=3), "train", [0])
