"""Numbers that take long to compute and depend on files alone, kept in the cache of `tasks.data`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from tasks.data import cache


def kept(name: str, key: Sequence[bytes], shape: tuple[int, ...], make: Callable[[], Tensor]) -> Tensor:
    """The float32 tensor that `make()` returns, see `tasks.data.cache.decoded`.

    Args:
        name: folder in the cache.
        key: everything that the result depends on.
        shape: of the result.
        make: called where the cache holds nothing under that key.
    """

    def bytes_of_it() -> np.ndarray:
        return make().cpu().contiguous().numpy().astype("<f4").reshape(-1).view(np.uint8)

    raw = cache.decoded(name, key, (4 * math.prod(shape),), bytes_of_it)
    return torch.from_numpy(raw.view("<f4").astype(np.float32).reshape(shape))
