"""Generated and real images in one form: uint8 (N, C, H, W), what an image file would hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from operators.errors import InputError
from tasks.data import Augment, ImageData, keyed, workers
from tasks.data.files.corrupt import Corrupt
from tasks.data.sampler import Loader, Pairs
from tasks.data.sources.photographs import Photographs
from tasks.data.splits import SplitImages
from tasks.system.signals import shield

Split = Literal["train", "val", "test"]
_CHUNK = 256


def quantised(samples: Tensor) -> Tensor:
    """Samples (B, C, H, W) as uint8: those in floating point, nominally in [-1, 1], are clipped and rounded.

    Real images have 256 levels; a feature network could tell them from samples that have more.

    Raises:
        InputError: another shape or dtype, or a value that is not finite.
    """
    if samples.ndim != 4:
        raise InputError(f"samples of shape {tuple(samples.shape)} must be (batch, channels, height, width)")
    if samples.dtype == torch.uint8:
        return samples
    if not samples.is_floating_point():
        raise InputError(f"samples of type {samples.dtype} must be uint8, or floating point in [-1, 1]")
    if not torch.isfinite(samples).all():
        raise InputError("samples hold values that are not finite: the model or the sampler has diverged")
    return ((samples.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def signed(pixels: Tensor) -> Tensor:
    """float32 in [-1, 1] of uint8 pixels."""
    return pixels.float() / 127.5 - 1


def real(data: ImageData, split: Split, first: int | None = None) -> Tensor:
    """Images of a split at the resolution of `data`, as uint8 (N, C, H, W).

    Args:
        data: loaded if need be.
        split: train, val or test.
        first: that many images, drawn without replacement in an order that is the same for every run; None takes
            all of them in their own order.

    Raises:
        InputError: photographs, of which there may be too many to hold.
    """
    whole = getattr(data.whole, split)
    if not isinstance(whole, SplitImages):
        raise InputError(f"data={data.name} does not lie in memory: its photographs are read in a stream")
    images = whole.images if first is None else whole.images[_order(len(whole), split)[:first]]
    pixels = torch.from_numpy(np.ascontiguousarray(images))
    if tuple(pixels.shape[-2:]) == data.image_size:
        return pixels
    # as `tasks.data` shows them to the model, then rounded
    return F.interpolate(pixels.float(), data.image_size, mode="bilinear", antialias=True).round().to(torch.uint8)


def in_memory(data: ImageData) -> bool:
    """Whether `real` can give the images of `data`, and not only `stream`."""
    return isinstance(data.whole.train, SplitImages)


def stream(data: ImageData, split: Split, first: int | None = None) -> tuple[int, list[bytes], Iterator[Tensor]]:
    """The images of `real`, photographs too, without holding all of them.

    Returns:
        how many; what identifies them; and the images themselves, uint8 (up to 256, C, H, W) at a time.
    """
    whole = getattr(data.whole, split)
    if isinstance(whole, Photographs):
        index = np.arange(len(whole)) if first is None else _order(len(whole), split)[:first]
        view = f"{split} {first} {whole.size} {whole.share!r}"
        return len(index), [data.fingerprint.encode(), view.encode()], _decoded(data, whole, split, index)
    images = real(data, split, first)
    return len(images), [repr(tuple(images.shape)).encode(), images.numpy().tobytes()], iter(images.split(_CHUNK))


def _order(size: int, split: Split) -> keyed.Index:
    return keyed.permutation(0, 0, size, f"measures/{split}")


class _Decoded(Dataset[dict[str, Any]]):
    def __init__(self, split: Photographs) -> None:
        self._split = split

    def __getitems__(self, pairs: Pairs) -> dict[str, Any]:
        epoch, index = np.ascontiguousarray(np.array(pairs, dtype=np.int64).T)
        fetched = self._split.fetch(0, epoch, index, Augment())
        return {"image": torch.from_numpy(fetched.pixels), "corrupt": dict(fetched.corrupt)}


def _decoded(data: ImageData, split: Photographs, name: str, index: keyed.Index) -> Iterator[Tensor]:
    batches: Any = [[(0, i) for i in index[at : at + _CHUNK].tolist()] for at in range(0, len(index), _CHUNK)]
    loader = Loader(
        _Decoded(split),
        batch_sampler=batches,
        num_workers=data.num_workers,
        collate_fn=workers.send,
        worker_init_fn=shield,
    )
    loader.corrupt = Corrupt(name, len(split), split.tolerated, split.max_corrupt, None)
    for batch in loader:
        yield batch["image"]
