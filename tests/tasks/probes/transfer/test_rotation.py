"""The rotation probe."""

import numpy as np
import pytest

from operators.errors import InputError
from tasks.probes.draws import draw
from tasks.probes.transfer.rotation import ANGLES, LEAST_SIDE, OFF, Rotation, catalogue, drawn


def test_quarter_turns_are_exact():
    for shape in range(4):
        upright = drawn(15, shape, 0, 1, -1)
        for turns in range(1, 4):
            np.testing.assert_array_equal(drawn(15, shape, 90 * turns, 1, -1), np.rot90(upright, turns))


def test_other_angles_are_those_of_an_interpolated_turn():
    from scipy import ndimage

    upright = drawn(64, 1, 0, 1, 1)
    for angle in (10, -30, 45):
        interpolated = ndimage.rotate(upright, angle, reshape=False, order=1)
        assert np.abs(drawn(64, 1, angle, 1, 1) - interpolated).mean() < 0.2 * np.abs(upright - interpolated).mean()


def test_a_place_moves_the_shape():
    np.testing.assert_array_equal(drawn(17, 2, 0, 1, -1), np.roll(drawn(17, 2, 0, 0, 0), (1, -1), (0, 1)))


@pytest.mark.parametrize("side", [LEAST_SIDE, 16])
def test_every_shape_lies_in_the_circle_and_differs_from_all_others(side):
    shapes, angles, templates = catalogue(side, 12, ANGLES)
    assert len(templates) == 12 * len(ANGLES) * (2 * OFF + 1) ** 2
    from_centre = np.hypot(*(np.indices((side, side)) - (side - 1) / 2))
    assert not templates[:, from_centre.ravel() > side / 2].any()
    upright = templates[angles == 0].reshape(12, -1, side**2)
    middle = upright[:, upright.shape[1] // 2]
    distance = np.square(middle[:, None] - templates).sum(axis=2)
    distance[shapes == np.arange(12)[:, None]] = np.inf
    assert distance.min() > 0.3


def test_training_is_upright_and_tests_are_turned_by_every_angle():
    probe, upright = Rotation(shapes=3), catalogue(16, 3, (0,))[2]
    for split in ("train", "val"):
        images = draw(probe, split, range(40)).input.reshape(40, -1)
        assert all(np.isclose(upright, image, atol=1e-6).all(axis=1).any() for image in images)
    test = draw(probe, "test", range(200))
    _, angles, templates = catalogue(16, 3, ANGLES)
    which = [np.isclose(templates, image, atol=1e-6).all(axis=1).argmax() for image in test.input.reshape(200, -1)]
    assert set(angles[which]) == set(ANGLES)
    assert set(test.target) == {0, 1, 2}
    untold = draw(Rotation(shapes=3, turned=False), "test", range(40)).input.reshape(40, -1)
    assert all(np.isclose(upright, image, atol=1e-6).all(axis=1).any() for image in untold)


def test_drops_are_told_by_angle():
    probe = Rotation(shapes=3)
    test = draw(probe, "test", range(200))
    scores = probe.measures(probe.solve(test), test)
    sizes = (0, 10, 20, 30, 45, 90, 180)
    assert scores == {"accuracy": 1} | {f"accuracy_{size}": 1 for size in sizes} | {
        f"drop_{size}": 0 for size in sizes[1:]
    }
    _, angles, templates = catalogue(16, 3, ANGLES)
    which = np.array([np.isclose(templates, x, atol=1e-6).all(axis=1).argmax() for x in test.input.reshape(200, -1)])
    wrong = np.where(np.abs(angles[which]) == 90, (test.target + 1) % 3, test.target)
    scores = probe.measures(wrong, test)
    assert (scores["accuracy_90"], scores["drop_90"], scores["drop_45"]) == (0, 1, 0)


def test_refusals():
    with pytest.raises(InputError, match=rf"^probe\.grid=8 must be a number >= {LEAST_SIDE}"):
        Rotation(grid=8)
    with pytest.raises(InputError, match=r"^probe\.shapes=1 must be an integer >= 2"):
        Rotation(shapes=1)
