"""A small data set."""

import numpy as np

from tasks import data
from tasks.data.splits import Source, SplitImages


def toy_data(shape=(1, 8, 8), classes=3, sizes=(300, 60, 120), **options):
    """Noise whose mean brightness is the class."""
    rng = np.random.default_rng(0)

    def images(count):
        labels = np.arange(count) % classes
        brightness = 255 * (labels + 0.5) / classes
        pixels = rng.normal(brightness[:, None, None, None], 10, (count, *shape)).clip(0, 255)
        return SplitImages(pixels.round().astype(np.uint8), labels.astype(np.int64))

    loaded = {split: images(count) for split, count in zip(("train", "val", "test"), sizes, strict=True)}
    names = tuple("abcdefgh"[:classes])
    middle = (0.5,) * shape[0]
    source = Source("toy", names, shape, middle, middle, None, lambda root: None, lambda root: loaded)
    return data.ImageData(source, **options)
