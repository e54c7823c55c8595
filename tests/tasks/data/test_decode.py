"""Decoding photographs: every odd kind, the crops, and how close scaled decoding comes to full decoding."""

import io
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from tasks.data import keyed
from tasks.data.decode import CorruptError, centre_box, decode, random_box

ROOT = os.environ.get("OPERATOR_ZOO_DATA")
PHOTOGRAPHS = sorted(Path(ROOT or "/nowhere").glob("imagenet-sample/val/*/*.JPEG"))
photographs = pytest.mark.skipif(not PHOTOGRAPHS, reason="OPERATOR_ZOO_DATA has no imagenet-sample")


def whole(width, height):
    return 0, 0, width, height


def encode(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(encoded, size=8, place=whole):
    return decode(io.BytesIO(encoded), size, place)


def reason(encoded, size=8):
    with pytest.raises(CorruptError) as caught:
        pixels(encoded, size)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def psnr(one, other):
    return 10 * np.log10(255**2 / max(1e-9, np.square(one.astype(float) - other).mean()))


RED, GREY = (200, 40, 30), (90, 90, 90)


def palette(**info):
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, *RED, 9, 9, 9])
    image.info.update(info)
    return image


KINDS = {
    "greyscale PNG": (encode(Image.new("L", (16, 16), 90)), GREY),
    "greyscale JPEG": (encode(Image.new("L", (16, 16), 90), "JPEG"), GREY),
    "CMYK JPEG": (encode(Image.new("RGB", (16, 16), RED).convert("CMYK"), "JPEG", quality=95), RED),
    "palette": (encode(palette()), RED),
    "palette, transparent": (encode(palette(), transparency=1), (255, 255, 255)),
    "palette, half transparent": (encode(palette(), transparency=bytes([255, 127, 255])), (228, 147, 142)),
    "RGB, a transparent colour": (encode(Image.new("RGB", (16, 16), RED), transparency=RED), (255, 255, 255)),
    "alpha": (encode(Image.new("RGBA", (16, 16), (*RED, 51))), (244, 212, 210)),
    "grey and alpha": (encode(Image.new("LA", (16, 16), (90, 51))), (222, 222, 222)),
    "16 bits": (encode(Image.fromarray(np.full((16, 16), 90 * 257, np.uint16))), GREY),
    "32 bits": (encode(Image.fromarray(np.full((16, 16), 90 * 257, np.int32)), "TIFF"), GREY),
    "1 bit": (encode(Image.new("1", (16, 16), 1)), (255, 255, 255)),
    "GIF": (encode(palette(), "GIF"), RED),
    "animated GIF": (encode(palette(), "GIF", save_all=True, append_images=[Image.new("P", (16, 16))]), RED),
    "WebP": (encode(Image.new("RGB", (16, 16), RED), "WEBP", lossless=True), RED),
    "BMP": (encode(Image.new("RGB", (16, 16), RED), "BMP"), RED),
    "TIFF": (encode(Image.new("RGB", (16, 16), RED), "TIFF"), RED),
    "Lab": (encode(Image.new("LAB", (16, 16), (255, 128, 128)), "TIFF"), (255, 255, 255)),
    "1 pixel PNG": (encode(Image.new("RGB", (1, 1), RED)), RED),
    "1 pixel JPEG": (encode(Image.new("L", (1, 1), 90), "JPEG"), GREY),
    "1 pixel wide": (encode(Image.new("RGB", (1, 3000), RED)), RED),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("crop", ["whole", "centre", "random"])
def test_odd_kinds(kind, crop):
    encoded, colour = KINDS[kind]
    draws = keyed.uniform(0, 0, np.array([3]), "draws", 40)[0]
    place = {
        "whole": whole,
        "centre": lambda w, h: centre_box(w, h, 0.875),
        "random": lambda w, h: random_box(w, h, draws, 0.08),
    }[crop]
    result = pixels(encoded, 8, place)
    assert result.shape == (3, 8, 8)
    assert result.dtype == np.uint8
    assert np.abs(result.astype(int) - np.array(colour)[:, None, None]).max() <= 3


def test_floating_point_pixels_are_named():
    assert "floating-point" in reason(encode(Image.new("F", (8, 8), 0.5), "TIFF"))


# What the camera did: the inverse of what EXIF 2.3, section 4.6.4, asks the viewer to do.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(kind, orientation):
    upright = Image.new("RGB", (96, 64), "white")
    ImageDraw.Draw(upright).rectangle((8, 8, 40, 24), fill=RED)
    stored = upright if orientation == 1 else upright.transpose(STORED[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    encoded = encode(stored, kind, exif=exif, **options)

    def place(width, height):
        assert (width, height) == (96, 64)
        return 0, 0, 48, 32

    # a crop, and small: the scale at which it is decoded has to follow the rotation too
    expected = pixels(encode(upright), 8, place)
    assert psnr(pixels(encoded, 8, place), expected) > 35


def test_damaged_exif_says_nothing_about_the_pixels():
    encoded = encode(Image.new("RGB", (16, 16), RED), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(5))
    assert psnr(pixels(encoded), np.broadcast_to(np.array(RED)[:, None, None], (3, 8, 8))) > 30


def large_jpeg(width, height):
    """A valid grey baseline JPEG, written directly: every block is the bits 00 (no change) and 1010 (its end)."""
    small = encode(Image.new("L", (8, 8), 128), "JPEG", optimize=False)
    frame, scan = small.index(b"\xff\xc0"), small.index(b"\xff\xda")
    data = scan + 2 + struct.unpack(">H", small[scan + 2 : scan + 4])[0]
    head = small[: frame + 5] + struct.pack(">HH", height, width) + small[frame + 9 : data]
    blocks = -(-width // 8) * -(-height // 8)
    return head + b"\x28\xa2\x8a" * (-(-blocks // 4)) + b"\xff\xd9"


@pytest.mark.parametrize("size", [8, 224])
def test_a_600_megapixel_jpeg_is_decoded_at_an_eighth(size):
    encoded = large_jpeg(30_000, 20_000)
    assert (pixels(encoded, size, lambda w, h: centre_box(w, h, 0.875)) == 128).all()


def png_header(width, height):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + checksum + struct.pack(">I", 99) + b"IDAT"


def test_other_600_megapixel_images_are_named():
    assert "600000000 pixels" in reason(png_header(30_000, 20_000))
    encoded = encode(Image.new("L", (64, 64), 90), "JPEG", progressive=True)
    frame = encoded.index(b"\xff\xc2")
    encoded = encoded[: frame + 5] + struct.pack(">HH", 20_000, 30_000) + encoded[frame + 9 :]
    assert "600 megapixels, of which at most 179" in reason(encoded)


def noise(width=64, height=48, kind="JPEG", **options):
    rng = np.random.default_rng(0)
    return encode(Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)), kind, **options)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
@pytest.mark.parametrize("left", [0, 3, 40, 0.5])
def test_truncated_files_are_named(kind, left):
    encoded = noise(kind=kind)
    assert reason(encoded[: int(left * len(encoded)) if left < 1 else left])


def test_what_is_no_image_is_named():
    assert "cannot identify" in reason(b"<html>not found</html>")
    damaged = bytearray(noise(kind="PNG"))
    damaged[30] ^= 255  # in the checksum of the header
    assert reason(bytes(damaged))


def test_decoding_is_scaled_only_as_far_as_the_crop_allows():
    """A pattern of single pixels survives where the crop needs full resolution, and averages out where it does not."""
    board = Image.fromarray(np.indices((256, 256)).sum(0).astype(np.uint8) % 2 * 255)
    encoded = encode(board, "JPEG", quality=100)
    fine = pixels(encoded, 64, lambda w, h: (96, 96, 160, 160))
    assert fine.std() > 100
    assert pixels(encoded, 16).std() < 2


@photographs
@pytest.mark.parametrize(("size", "share"), [(224, 0.875), (56, 0.875), (256, 1.0)])
def test_scaled_decoding_comes_close_to_full_decoding(size, share):
    values = []
    for path in PHOTOGRAPHS[:20]:
        ours = decode(io.BytesIO(path.read_bytes()), size, lambda w, h: centre_box(w, h, share))
        with Image.open(path) as image:
            box = centre_box(*image.size, share)
            full = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, box)
        values.append(psnr(np.asarray(full).transpose(2, 0, 1), ours))
    assert np.median(values) > 38
    assert min(values) > 30


def test_the_centre_is_what_resizing_and_cropping_gives():
    rng = np.random.default_rng(0)
    blocks = Image.fromarray(rng.integers(0, 256, (16, 20, 3), dtype=np.uint8))
    image = blocks.resize((640, 512), Image.Resampling.BICUBIC)
    full = image.resize((320, 256), Image.Resampling.BICUBIC).crop((48, 16, 272, 240))
    ours = pixels(encode(image), 224, lambda w, h: centre_box(w, h, 0.875))
    assert psnr(ours, np.asarray(full).transpose(2, 0, 1)) > 50


@photographs
def test_every_photograph_is_decoded():
    for path in PHOTOGRAPHS:
        assert decode(io.BytesIO(path.read_bytes()), 32, lambda w, h: centre_box(w, h, 1)).std() > 5, path


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40_000), st.integers(1, 40_000), st.integers(0, 10**6), st.floats(0.001, 1), st.floats(0.01, 1))
def test_crops_stay_inside(width, height, index, least, share):
    draws = keyed.uniform(0, 0, np.array([index]), "draws", 40)[0]
    for left, top, right, bottom in (random_box(width, height, draws, least), centre_box(width, height, share)):
        assert 0 <= left < right <= width + 1e-6
        assert 0 <= top < bottom <= height + 1e-6


def test_random_crops_have_the_published_distribution():
    draws = keyed.uniform(0, 0, np.arange(4000), "draws", 40)
    boxes = np.array([random_box(1000, 1000, u, 0.08) for u in draws])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area, ratio = width * height / 1e6, np.log(width / height)
    assert 0.078 < area.min() < 0.1
    assert area.max() > 0.9
    assert np.abs(ratio).max() < np.log(4 / 3) + 0.01
    assert abs(ratio.mean()) < 0.01
    # small areas always fit, so below half the image the distribution is uniform
    small = np.sort(area[area < 0.5])
    assert np.abs((small - 0.08) / 0.42 - np.linspace(0, 1, len(small))).max() < 0.04
    loose = width < 900
    assert abs((boxes[loose, 0] / (1000 - width[loose])).mean() - 0.5) < 0.02


def test_random_crops_of_a_strip_are_its_middle():
    draws = keyed.uniform(0, 0, np.array([1]), "draws", 40)[0]
    assert random_box(10, 1000, draws, 0.5) == (0, 493, 10, 506)
    assert random_box(1000, 9, draws, 0.5) == (494, 0, 506, 9)
    assert random_box(1, 1, draws, 0.5) == (0, 0, 1, 1)


def test_messages_of_the_readers_fit_one_line():
    assert not re.search(r"\s{2}", reason(b"\xff\xd8\xff\xe0"))
