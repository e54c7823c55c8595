"""The probes that copy an image to the readout square."""

from itertools import pairwise

import numpy as np
import pytest

from operators.errors import InputError
from tasks.data.sources.fashion_mnist import load_mini
from tasks.probes.draws import draw
from tasks.probes.items.colours import PALETTE, ColourConditioning, ColourSelection
from tasks.probes.items.copying import Copy, MaskSelection
from tasks.probes.items.images import border, completed, completion, resized


def test_corners_of_the_published_size_are_2145():
    corners = Copy(grid=64, item=16).corners
    assert len(corners) == 49**2 - 16**2
    assert corners.min() == 0
    assert corners.max() == 48
    assert not (corners > 32).all(axis=1).any()


def test_images_are_those_of_their_split_and_keep_their_mean():
    split = load_mini(None)["test"]
    at_own_size = resized("test", 28) * 0.3530 + 0.2860
    np.testing.assert_allclose(at_own_size * 255, split.images[:, 0], atol=1e-3)
    halved = split.images[:, 0].reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)) / 255
    assert np.corrcoef(resized("test", 14).ravel(), halved.ravel())[0, 1] > 0.99
    assert len(resized("train", 7)) == 10_000


@pytest.mark.parametrize("target", ["corner", "random"])
def test_copy_shows_one_image_of_the_split_and_wants_it_below(target):
    probe, images = Copy(grid=14, item=5, target=target), {split: resized(split, 5) for split in ("train", "test")}
    for split in ("train", "test"):
        samples = draw(probe, split, range(30))
        corners = set()
        for planes, label in zip(samples.input[:, 0], samples.target[:, 0, -5:, -5:], strict=True):
            assert (images[split] == label).all(axis=(1, 2)).any()
            (corner,) = [tuple(c) for c in probe.corners if (planes[probe.square(c)] == label).all()]
            corners.add(corner)
            assert (planes != 0).sum() == 25
        assert (corners == {(0, 0)}) == (target == "corner")
    again = draw(Copy(grid=14, item=5, images="train"), "test", range(5)).target[:, 0, -5:, -5:]
    assert all((images["train"] == label).all(axis=(1, 2)).any() for label in again)
    np.testing.assert_array_equal(samples.mask[0], samples.mask.all(axis=0))
    assert samples.mask[0].sum() == samples.mask[0][-5:, -5:].sum() == 25


def squares_of(planes, colours, item):
    """The corner of each frame outside the readout square, by its colour; found pixel by pixel."""
    found = {}
    for number, colour in enumerate(colours):
        cells = [tuple(cell) for cell in np.argwhere((planes == colour[:, None, None]).all(axis=0))]
        outside = [(i, j) for i, j in cells if min(i, j) < len(planes[0]) - item]
        if outside:
            found[number] = min(outside)
            assert len(outside) == 4 * (item - 1)
    return found


def test_masked_images_do_not_overlap_each_other_nor_the_readout():
    probe = MaskSelection(grid=24, item=6, items=3)
    samples = draw(probe, "test", range(40))
    squares = (samples.input[:, 0] != 0).sum(axis=(1, 2)) / 36
    assert (squares == 3).mean() > 0.9
    assert set(squares) <= {1, 2, 3}
    assert not samples.input[:, :, -6:, -6:].any()
    assert (samples.input[:, 1].sum(axis=(1, 2)) == 36).all()
    shown = samples.input[:, 0][samples.input[:, 1] == 1].reshape(-1, 6, 6)
    np.testing.assert_array_equal(shown, samples.target[:, 0, -6:, -6:])


def test_fewer_images_where_there_is_no_place():
    samples = draw(MaskSelection(grid=12, item=6, items=4), "test", range(20))
    squares = (samples.input[:, 0] != 0).sum(axis=(1, 2)) / 36
    assert squares.min() < 3
    assert squares.max() <= 3  # four squares of six fill twelve by twelve, and one is the readout


def test_the_frame_of_the_readout_is_that_of_the_target():
    selection, conditioning = (kind(grid=24, item=6) for kind in (ColourSelection, ColourConditioning))
    grey, coloured = (draw(probe, "test", range(40)) for probe in (selection, conditioning))
    np.testing.assert_array_equal(grey.input, coloured.input)
    wanted = set()
    for planes, label, product in zip(grey.input, grey.target, coloured.target, strict=True):
        frames = squares_of(planes, PALETTE, 6)
        assert 2 <= len(frames) <= 4
        assert all(
            max(abs(a[0] - b[0]), abs(a[1] - b[1])) >= 6 for a in frames.values() for b in frames.values() if a != b
        )
        (number,) = np.flatnonzero((planes[:, -1, -1] == PALETTE).all(axis=1))
        wanted.add(int(number))
        image = planes[:, *selection.square(frames[number])]
        for plane in image:
            np.testing.assert_array_equal(plane[~border(6)], label[0, -6:, -6:][~border(6)])
        np.testing.assert_allclose(product, label * PALETTE[number][:, None, None], rtol=1e-6)
    assert wanted == set(range(8))


@pytest.mark.parametrize("kind", [ColourSelection, ColourConditioning])
def test_the_oracle_of_framed_images_reaches_its_computed_error(kind):
    """On unseen images, within four standard errors; a completion by the mean is far from it."""
    probe = kind(grid=24, item=6)
    test = draw(probe, "test", range(600))
    each = [probe.error(answer, sample) for answer, sample in per_sample(probe.solve(test), test)]
    assert abs(np.mean(each) - probe.expected_error) < 4 * np.std(each) / np.sqrt(600)
    outer = border(6)
    spread = resized("train", 6)[:, outer].var(axis=0).mean() * outer.mean()
    assert probe.expected_error < 0.4 * spread * (1 if kind is ColourSelection else np.square(PALETTE).mean())


def per_sample(answers, samples):
    for index in range(len(answers)):
        yield answers[index : index + 1], type(samples)(*(part[index : index + 1] for part in samples))


def test_the_completion_beats_its_neighbours():
    """Least squares: any other weights do worse on the training images. And more pixels tell more."""
    known = resized("train", 6).astype(np.float64)
    outer = border(6)
    assert outer.sum() == 20
    best = np.square(completed(known) - known)[:, outer].mean()
    assert best == pytest.approx(completion(6).variance, rel=0.01)
    shifted = np.square(completed(known) + 0.01 - known)[:, outer].mean()
    assert shifted == pytest.approx(best + 1e-4)
    np.testing.assert_array_equal(completed(known)[:, ~outer], known[:, ~outer])
    variances = [completion(side).variance for side in (4, 8, 16)]
    assert all(more > less for more, less in pairwise(variances))


def test_chance_is_the_mean_of_labels_pixel_by_pixel():
    probe = ColourConditioning(grid=18, item=6)
    train = draw(probe, "train", range(50))
    chance = probe.constant(train)
    np.testing.assert_allclose(chance[:, -6:, -6:], train.target[..., -6:, -6:].mean(axis=0), atol=1e-6)
    single = probe.error(train.target[..., -6:, -6:].mean(axis=(0, 2, 3))[:, None, None], train)
    assert probe.error(chance, train) < single


def test_refusals():
    with pytest.raises(InputError, match=r"^probe\.item=13 must be an integer >= 3 and <= 12"):
        Copy(item=13)
    with pytest.raises(InputError, match="did you mean 'corner'"):
        Copy(target="corners")
    with pytest.raises(InputError, match=r"^probe\.images='tests'"):
        Copy(images="tests")
    with pytest.raises(InputError, match=r"^probe\.items=9 must be an integer >= 1 and <= 8"):
        ColourSelection(items=9)
