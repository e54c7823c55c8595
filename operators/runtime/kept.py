"""What a module makes of its parameters alone, kept from one call to the next where nothing asks for a gradient."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from operators.runtime.differentiation import transformed
from operators.runtime.fakes import valueless


class Kept(NamedTuple):
    """What was made and from what, in one record: threads that share a module swap it as a whole."""

    key: Hashable
    numbers: tuple[Tensor, ...]
    made: tuple[Any, ...]

    def serves(self, key: Hashable, numbers: Sequence[Tensor]) -> bool:
        """Whether the same would be made. By value, since version counters miss what is written through `.data`."""
        same = self.key == key and len(self.numbers) == len(numbers)
        pairs = zip(self.numbers, numbers, strict=True) if same else ()
        return same and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def may_keep(u: Tensor) -> bool:
    """Whether a call with u may keep something, and take what an earlier one has kept."""
    looked_into = torch.is_grad_enabled() or torch.compiler.is_compiling() or transformed()
    return not looked_into and u.device.type == "cpu" and not valueless(u)


def keep(key: Hashable, numbers: Sequence[Tensor], made: tuple[Any, ...], u: Tensor) -> Kept | None:
    """A record of what was made for u; None if it takes more than twice the memory of u."""
    fits = sum(part.nbytes for part in made if part is not None) <= 2 * u.nbytes
    return Kept(key, tuple(number.clone() for number in numbers), made) if fits else None
