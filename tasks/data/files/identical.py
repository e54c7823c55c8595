"""Photographs that are byte for byte the same in two splits: a score on them is not one on unseen images.

Sizes are known of all images, since the fingerprint needs them. Only images of one size can be the same: a piece from
the middle of these is read, and all of those whose pieces are the same. At most `PIECES` files are opened and `BYTES`
read in full, whatever the data set: a second or two. Held-out images are looked at in an order of their own that is
always the same, so that in a large data set those looked at are a random sample, whose size is given beside the count.
"""

from __future__ import annotations

import hashlib
import logging

import numpy as np

from tasks.data import keyed
from tasks.data.decode import CorruptError
from tasks.data.sources.photographs import Photographs
from tasks.data.splits import Splits

PIECES = 4096
BYTES = 2**28
_PIECE = 4096
_log = logging.getLogger(__name__)


class _Reader:
    """Digests of pieces and of whole images, as long as there is something left to spend."""

    def __init__(self) -> None:
        self.pieces, self.bytes = PIECES, BYTES
        self._known: dict[tuple[int, int, bool], bytes | None] = {}

    def digest(self, split: Photographs, index: int, size: int, *, whole: bool) -> bytes | None:
        """None where the image cannot be read."""
        position = int(split.positions[index])
        key = (id(split.store), position, whole)
        if key not in self._known:
            self.pieces, self.bytes = self.pieces - 1, self.bytes - (size if whole else 0)
            try:
                with split.store.open(position) as file:
                    file.seek(0 if whole else max(0, size // 2 - _PIECE // 2))
                    self._known[key] = hashlib.sha256(file.read(size if whole else _PIECE)).digest()
            except (OSError, CorruptError):
                self._known[key] = None
        return self._known[key]

    @property
    def exhausted(self) -> bool:
        return self.pieces <= 0 or self.bytes <= 0


def count(splits: Splits) -> dict[str, int] | None:
    """How many held-out images are in another split too: of the test split in train or val, of val in train.

    Returns:
        `images`, how many are; `examined` and `held_out`, of how many; None if the images lie in memory.
    """
    train, val, test = splits.train, splits.val, splits.test
    if not (isinstance(train, Photographs) and isinstance(val, Photographs) and isinstance(test, Photographs)):
        return None
    reader = _Reader()
    pairs: list[tuple[str, str]] = []
    examined = 0
    for held, others, purpose in ((test, [train, val], "test"), (val, [train], "val")):
        pairs_met, seen = _shared(held, others, purpose, reader)
        pairs, examined = pairs + pairs_met, examined + seen
    held_out = len(test) + len(val)
    if pairs:
        sample = "" if examined == held_out else f" {examined} looked at of the"
        first, other = pairs[0]
        _log.warning(
            "%d of the%s %d test and validation images are byte for byte in another split too, such as %s and %s",
            len(pairs), sample, held_out, first, other,
        )  # fmt: skip
    return {"images": len(pairs), "examined": examined, "held_out": held_out}


def _shared(
    held: Photographs, others: list[Photographs], purpose: str, reader: _Reader
) -> tuple[list[tuple[str, str]], int]:
    """Names of images of `held` with those that they equal, and how many of `held` were looked at."""
    sizes = held.store.sizes(held.positions)
    pool = [(other, other.store.sizes(other.positions)) for other in others]
    orders = [np.argsort(known, kind="stable") for _, known in pool]
    ordered = [known[order] for (_, known), order in zip(pool, orders, strict=True)]
    pairs: list[tuple[str, str]] = []
    for seen, index in enumerate(keyed.permutation(0, 0, len(held), f"identical/{purpose}").tolist()):
        if reader.exhausted:
            return pairs, seen
        size = int(sizes[index])
        for (other, _), order, values in zip(pool, orders, ordered, strict=True):
            first, last = (int(np.searchsorted(values, size, side)) for side in ("left", "right"))
            mates = [mate for mate in order[first:last].tolist() if size and not _same(held, index, other, mate)]
            twin = next((mate for mate in mates if _equal(held, index, other, mate, size, reader)), None)
            if twin is not None:
                pairs.append((_name(held, index), _name(other, twin)))
                break
    return pairs, len(held)


def _same(first: Photographs, index: int, second: Photographs, mate: int) -> bool:
    """Whether one split serves both roles, as `data.splits` may ask for."""
    return first.store is second.store and bool(first.positions[index] == second.positions[mate])


def _equal(first: Photographs, index: int, second: Photographs, mate: int, size: int, reader: _Reader) -> bool:
    for whole in (False, True):
        own = None if reader.exhausted else reader.digest(first, index, size, whole=whole)
        if own is None or own != reader.digest(second, mate, size, whole=whole):
            return False
    return True


def _name(split: Photographs, index: int) -> str:
    return split.store.names(split.positions[index : index + 1])[0]
