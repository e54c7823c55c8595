"""What a computation would allocate and move, found by carrying it out on tensors without storage.

Torch's fake tensors go through autograd and autocast and allocate nothing: the same calls as on the CPU, in the same
order, with the same lifetimes. Counted are the storages alive at any moment, each once, whoever shares it. Scratch
space inside a single operation is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from operators.runtime.torch_private import (
    FakeTensorMode,
    TorchDispatchMode,
    storage_key,
    tree_leaves,
    writes_in_place,
)

M = TypeVar("M", bound=nn.Module)


class Ledger(TorchDispatchMode):
    """Follows storages and operations while it is entered.

    Attributes:
        live, peak: bytes alive now, and the most so far.
        traffic: bytes that operations read and wrote, views apart.
        calls: number of those operations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = self.traffic = self.calls = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs, outputs = _tensors((args, kwargs)), _tensors(result)
        before = {storage_key(tensor.untyped_storage()) for tensor in inputs}
        fresh = [tensor for tensor in outputs if storage_key(tensor.untyped_storage()) not in before]
        if fresh or writes_in_place(func):
            self.calls += 1
            self.traffic += sum(tensor.nbytes for tensor in (*inputs, *fresh))
        for tensor in outputs:
            self._enter(tensor.untyped_storage())
        return result

    def _enter(self, storage: torch.UntypedStorage) -> None:
        key, size = storage_key(storage), storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._leave, key, size)

    def _leave(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


@contextmanager
def simulated() -> Iterator[Ledger]:
    """Within the block tensors are fake, and what happens to them is in the ledger."""
    with FakeTensorMode(allow_non_fake_inputs=True), Ledger() as ledger:
        yield ledger


def materialise(module: M, device: str | torch.device) -> M:
    """Give the parameters and buffers of `module` (on the meta device) a device, in place; for `simulated`.

    Args:
        module: whatever its tensors are.
        device: where the fakes claim to be.
    """

    def fake(tensor: Tensor) -> Tensor:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)

    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            setattr(part, name, nn.Parameter(fake(parameter), requires_grad=parameter.requires_grad))
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, fake(buffer))
    return module


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
