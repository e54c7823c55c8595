"""Augmentation: right, keyed per sample, the same whatever the batch."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from operators.errors import InputError
from tasks.data import Augment, BatchMix, RandAugment
from tasks.data.augment import Transform, random_crop, random_erase, random_flip
from tasks.data.mix import draw_mix
from tasks.data.randaugment import OPERATIONS, rand_augment

KINDS = {
    "flip": {"flip": True},
    "crop": {"crop_pad": 3},
    "randaugment": {"randaugment": {"ops": 2, "magnitude": 9}},
    "erasing": {"erasing": 0.7},
    "all": {"flip": True, "crop_pad": 2, "randaugment": {"ops": 3, "magnitude": 5}, "erasing": 0.5},
}


def pictures(count, channels=3, size=20):
    """Smooth pictures with every grey level."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (count, channels, 5, 5)))
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return smooth.round().to(torch.uint8).numpy()


def apply(images, index, epoch=0, seed=0, resolution=None, **augment):
    channels = images.shape[1]
    transform = Transform((0.5,) * channels, (0.25,) * channels, resolution, Augment.parse(augment), seed)
    return transform(images, np.full(len(index), epoch), index)["image"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_what_becomes_of_an_image_does_not_depend_on_its_batch(kind, channels):
    images, index = pictures(48, channels), np.arange(48) + 1000
    whole = apply(images, index, epoch=2, **KINDS[kind])
    order = np.random.default_rng(1).permutation(48)
    assert torch.equal(apply(images[order], index[order], epoch=2, **KINDS[kind]), whole[order])
    for i in range(0, 48, 7):
        assert torch.equal(apply(images[i : i + 1], index[i : i + 1], epoch=2, **KINDS[kind]), whole[i : i + 1])
    changed = (whole != apply(images, index)).flatten(1).any(1).float().mean()
    assert changed > 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_and_seeds_differ(kind):
    images, index = pictures(32), np.arange(32)
    first = apply(images, index, **KINDS[kind])
    assert not torch.equal(apply(images, index, epoch=1, **KINDS[kind]), first)
    assert not torch.equal(apply(images, index, seed=1, **KINDS[kind]), first)
    assert torch.equal(apply(images, index, **KINDS[kind]), first)


def test_normalise_and_resize():
    images = pictures(4)
    plain = apply(images, np.arange(4))
    assert plain.dtype == torch.float32
    assert torch.allclose(plain, (torch.from_numpy(images) / 255 - 0.5) / 0.25, atol=1e-6)
    assert apply(images, np.arange(4), resolution=32).shape == (4, 3, 32, 32)
    # antialiased: halving a one-pixel checkerboard leaves grey, not the sampled black or white
    board = np.indices((20, 20)).sum(0) % 2 * 255
    half = apply(np.tile(board.astype(np.uint8), (1, 3, 1, 1)), np.arange(1), resolution=10)
    assert half[..., 2:-2, 2:-2].abs().max() < 0.1


def test_flip_mirrors_half_the_images():
    images = pictures(400)
    flipped = random_flip(images, 0, np.zeros(400, np.int64), np.arange(400))
    mirrored = (flipped == images[..., ::-1]).all(axis=(1, 2, 3))
    same = (flipped == images).all(axis=(1, 2, 3))
    assert (mirrored ^ same).all()
    assert 160 < mirrored.sum() < 240


def test_crop_reaches_every_shift_and_pads_with_black():
    images = np.full((2000, 1, 6, 6), 9, np.uint8)
    cropped = random_crop(images, 0, np.zeros(2000, np.int64), np.arange(2000), pad=2)
    assert cropped.shape == images.shape
    assert set(np.unique(cropped)) == {0, 9}
    # the number of black rows and columns tells the shift up to its sign: 0, 1, 1, 2, 2 of five
    rows = (cropped == 0).all(axis=(1, 3)).sum(1)
    assert stats.chisquare(np.bincount(rows, minlength=3), 2000 * np.array([0.2, 0.4, 0.4])).pvalue > 1e-3


def test_erasing_boxes_noise_and_probability():
    image = np.zeros((3000, 1, 24, 24), np.float32)
    random_erase(image, 0, np.zeros(3000, np.int64), np.arange(3000), probability=0.25)
    hit = (image != 0).any(axis=(1, 2, 3))
    assert 0.21 < hit.mean() < 0.29
    noise = image[image != 0]
    assert stats.kstest(noise[:20_000], "norm").pvalue > 1e-3
    for one in image[hit][:50, 0]:
        rows, columns = np.flatnonzero(one.any(1)), np.flatnonzero(one.any(0))
        box = one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (box != 0).all()
        assert 0.01 < box.size / 576 < 0.37


PILLOW = {
    "auto_contrast": lambda im, level: ImageOps.autocontrast(im),
    "equalize": lambda im, level: ImageOps.equalize(im),
    "invert": lambda im, level: ImageOps.invert(im),
    "posterize": lambda im, level: ImageOps.posterize(im, 4 - int(level * 4)),
    "solarize": lambda im, level: ImageOps.solarize(im, 256 - int(level * 256)),
    "color": lambda im, level: ImageEnhance.Color(im).enhance(1 + 0.9 * level),
    "contrast": lambda im, level: ImageEnhance.Contrast(im).enhance(1 + 0.9 * level),
    "brightness": lambda im, level: ImageEnhance.Brightness(im).enhance(1 + 0.9 * level),
    "sharpness": lambda im, level: ImageEnhance.Sharpness(im).enhance(1 + 0.9 * level),
    "rotate": lambda im, level: im.rotate(30 * level, Image.Resampling.BILINEAR, fillcolor=(128,) * 3),
    "translate_x": lambda im, level: im.transform(im.size, Image.Transform.AFFINE, (1, 0, 9 * level, 0, 1, 0)),
    "translate_y": lambda im, level: im.transform(im.size, Image.Transform.AFFINE, (1, 0, 0, 0, 1, 9 * level)),
}


@pytest.mark.parametrize("name", PILLOW)
def test_operations_agree_with_pillow(name):
    level = 2 / 3
    images = pictures(6)
    fill = torch.full((1, 3, 1, 1), 0.0 if "translate" in name else 128 / 255)
    levels, signs = torch.full((6,), level), torch.ones(6)
    ours = OPERATIONS[name](torch.from_numpy(images) / 255, levels, signs, fill).clamp(0, 1) * 255
    theirs = np.stack([
        np.asarray(PILLOW[name](Image.fromarray(im.transpose(1, 2, 0)), level)).transpose(2, 0, 1) for im in images
    ])  # fmt: skip
    gap = (ours.round() - torch.from_numpy(theirs).float()).abs()
    if name == "rotate":  # Pillow takes the border of a rotated image differently
        gap = gap[..., 5:-5, 5:-5]
    assert gap.max() <= (3 if name == "rotate" else 1), gap.max()
    assert gap.mean() < 0.6


def test_shears_and_solarize_add():
    picture = torch.zeros(1, 1, 11, 11)
    picture[..., 5] = 0.5
    level, sign, fill = torch.tensor([1.0]), torch.tensor([1.0]), torch.zeros(1, 1, 1, 1)
    sheared = OPERATIONS["shear_x"](picture, level, sign, fill)[0, 0]
    centre = (sheared * torch.arange(11)).sum(1) / sheared.sum(1)
    assert torch.allclose(centre, 5 - 0.3 * (torch.arange(11) - 5.0), atol=1e-5)
    sheared = OPERATIONS["shear_y"](picture.mT, level, sign, fill)[0, 0].mT
    centre = (sheared * torch.arange(11)).sum(1) / sheared.sum(1)
    assert torch.allclose(centre, 5 - 0.3 * (torch.arange(11) - 5.0), atol=1e-5)
    grey = torch.tensor([100.0, 127, 128, 200]).view(1, 1, 2, 2) / 255
    added = OPERATIONS["solarize_add"](grey, level, sign, fill) * 255
    assert torch.allclose(added.flatten(), torch.tensor([210.0, 237, 128, 200]), atol=1e-3)


def test_randaugment_does_not_touch_the_global_generator():
    images = pictures(8)
    state = torch.get_rng_state()
    out = rand_augment(images, 0, np.zeros(8, np.int64), np.arange(8), 2, 9, (0.5, 0.5, 0.5))
    assert out.dtype == np.uint8
    assert torch.equal(torch.get_rng_state(), state)


def mixed(batch, mixup=0.0, cutmix=0.0, probability=1.0, switch=0.5, size=16):
    index = np.arange(batch)
    rows = draw_mix(0, np.zeros(batch, np.int64), index, (size, size), (mixup, cutmix), probability, switch)
    image = torch.rand(batch, 3, size, size)
    label = torch.arange(batch) % 10
    return image, rows, BatchMix(10)({"image": image, "label": label, "mix": rows})


def test_mixup_blends_pairs():
    image, rows, out = mixed(64, mixup=0.8)
    assert torch.equal(rows[::2], rows[1::2])
    assert (rows[:, 1:] == 0).all()
    weight = rows[:, 0].view(-1, 1, 1, 1)
    partner = image[torch.arange(64) ^ 1]
    assert torch.allclose(out["image"], weight * image + (1 - weight) * partner)
    assert torch.allclose(out["target"].sum(1), torch.ones(64))
    assert torch.allclose(out["target"][torch.arange(64), torch.arange(64) % 10], rows[:, 0])
    assert rows[:, 0].unique().numel() == 32


def test_cutmix_takes_a_box_and_its_actual_area():
    image, rows, out = mixed(256, cutmix=1.0)
    assert (rows[:, 0] == 1).all()
    partner = image[torch.arange(256) ^ 1]
    own, other = (out["image"] == image).all(1), (out["image"] == partner).all(1)
    assert (own | other).all()
    share = own.float().mean((1, 2))
    assert torch.allclose(out["target"][torch.arange(256), torch.arange(256) % 10], share, atol=1e-6)
    # a box that the border cuts off is smaller than λ says; without the correction the mean would be 1/2
    assert 0.5 < share.mean() < 0.8
    assert share.min() < 0.4


def test_mix_probability_and_switch():
    _, rows, _ = mixed(4000, mixup=1.0, cutmix=1.0, probability=0.5, switch=0.25)
    cut = (rows[::2, 2] > rows[::2, 1]).float().mean()
    blend = (rows[::2, 0] < 1).float().mean()
    assert abs(cut - 0.125) < 0.03
    assert abs(blend - 0.375) < 0.04


def test_pairs_mix_alike_on_every_rank():
    epoch, index = np.zeros(16, np.int64), np.random.default_rng(0).permutation(16)
    arguments = ((16, 16), (0.8, 1.0), 1.0, 0.5)
    whole = draw_mix(0, epoch, index, *arguments)
    assert torch.equal(draw_mix(0, epoch[8:], index[8:], *arguments), whole[8:])


def test_without_mixing_the_target_is_one_hot():
    batch = {"image": torch.rand(3, 1, 4, 4), "label": torch.tensor([2, 0, 1])}
    out = BatchMix(3)(batch)
    assert torch.equal(out["target"], torch.eye(3)[[2, 0, 1]])
    assert out["image"] is batch["image"]


def test_parse_accepts_what_configuration_gives():
    assert Augment.parse(None) == Augment.parse({}) == Augment()
    assert Augment.parse({"randaugment": 0}).randaugment is None
    parsed = Augment.parse({"flip": True, "randaugment": {"ops": 2, "magnitude": 9}})
    assert parsed == Augment(flip=True, randaugment=RandAugment(2, 9))
    assert Augment.parse(parsed) is parsed
    assert not Augment(mixup=0.8, mixup_prob=0.0).mixes


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"flop": True}, "did you mean 'flip'"),
        ({"flip": 1}, "flip=1 must be true or false"),
        ({"crop_pad": -1}, "crop_pad=-1 must be an integer >= 0"),
        ({"crop_pad": 1.5}, "crop_pad=1.5"),
        ({"erasing": 1.5}, "erasing=1.5"),
        ({"mixup": -0.1}, "mixup=-0.1"),
        ({"cutmix": float("nan")}, "cutmix=nan"),
        ({"mixup_switch": 2}, "mixup_switch=2"),
        ({"randaugment": {"ops": 2}}, "both ops and magnitude"),
        ({"randaugment": {"ops": 0, "magnitude": 9}}, "ops=0"),
        ({"randaugment": {"ops": 10**9, "magnitude": 9}}, "ops=1000000000 must be an integer >= 1 and <= 100"),
        ({"randaugment": {"ops": 2, "magnitude": 11}}, "magnitude=11"),
        ({"randaugment": {"opps": 2, "magnitude": 9}}, "did you mean 'ops'"),
        ({"randaugment": 9}, "randaugment=9 must be a mapping"),
        ("flip", "must be a mapping"),
    ],
)
def test_wrong_augmentations_are_refused(augment, message):
    with pytest.raises(InputError) as caught:
        Augment.parse(augment)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
