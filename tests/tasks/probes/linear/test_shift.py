"""The shift probe."""

import numpy as np
import pytest

from operators.errors import InputError
from tasks.probes.draws import draw
from tasks.probes.linear.shift import Shift


def test_whole_pixels_are_rolled() -> None:
    samples = draw(Shift(grid=9, distance=3.0), "test", range(2))
    rolled = np.roll(samples.input, (3, 3), axis=(2, 3))
    np.testing.assert_allclose(samples.target, rolled, atol=1e-6)


def test_two_half_pixels_are_one_but_for_the_nyquist_waves() -> None:
    probe = Shift(grid=9, distance=0.5)  # of odd length, which has none
    samples = draw(probe, "test", range(2))
    twice = probe.solve(samples._replace(input=probe.solve(samples)))
    np.testing.assert_allclose(twice, np.roll(samples.input, (1, 1), axis=(2, 3)), atol=1e-6)


def test_zeros_come_in_from_outside() -> None:
    samples = draw(Shift(grid=8, distance=3.0, boundary="zero"), "test", [0])
    assert not samples.target[:, :, :3].any()
    assert not samples.target[:, :, :, :3].any()
    np.testing.assert_array_equal(samples.target[:, :, 3:, 3:], samples.input[:, :, :-3, :-3])


def test_shifts_of_images_cover_all_distances() -> None:
    samples = draw(Shift(grid=8, distance=1.5, per_image=True), "test", range(200))
    assert set(np.unique(samples.input[:, 1:] * 1.5)) == {-1.5, -0.5, 0.5, 1.5}


def test_refusals() -> None:
    for dials in ({"distance": 0.3}, {"distance": 9.0}, {"distance": 2.5, "boundary": "zero"}, {"boundary": "wrapp"}):
        with pytest.raises(InputError, match=r"^probe\."):
            Shift(**dials)  # type: ignore[arg-type]
