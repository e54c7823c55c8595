"""All private interfaces of torch that this project uses: what an upgrade of torch breaks, it breaks here.

`tests/operators/runtime/test_torch_private.py` names the one that is gone, and `tests/private_interfaces.py` keeps
private names out of every other file. What is imported within functions brings in torch's compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack
from torch._compile import _disable_dynamo
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["FakeTensor", "FakeTensorMode", "TorchDispatchMode", "tree_leaves", "tree_map"]

F = TypeVar("F", bound=Callable[..., Any])


class Killable(Protocol):
    """A worker process of a loader."""

    def kill(self) -> None:
        """End the process at once."""


def transforms_active() -> bool:
    """Whether a transform of `torch.func` is under way."""
    return torch._C._are_functorch_transforms_active()


def only_vmap_active() -> bool:
    """Whether every transform of `torch.func` that is under way is `vmap`."""
    return all(level.key() == TransformType.Vmap for level in get_interpreter_stack() or ())


def forward_levels() -> int:
    """How many levels of forward-mode differentiation are under way, by a count that all threads share."""
    return forward_ad._current_level + 1


@contextmanager
def without_modes() -> Iterator[None]:
    """Within the block no function transform and no dispatch mode, such as that of fake tensors, is active."""
    from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
    from torch.utils._python_dispatch import _disable_current_modes

    with temporarily_clear_interpreter_stack(), _disable_current_modes():
        yield


def mark_constant(function: F) -> F:
    """Do as `torch.compiler.assume_constant_result`, without importing the compiler."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def disable_compiler(function: F) -> F:
    """Do as `torch.compiler.disable`; the compiler is imported by the first call."""
    wrapped: Any = _disable_dynamo(function)
    return wrapped


def operator_name(function: Any) -> str:
    """The name of an operator as `__torch_dispatch__` gets it, such as `aten::mm`."""
    return str(function._schema.name)


def writes_in_place(function: Any) -> bool:
    """Whether an operator as `__torch_dispatch__` gets it changes one of its arguments."""
    return bool(function._schema.is_mutable)


def functional(function: Any) -> Any:
    """The operator of torch that does the same as one with a trailing underscore, and leaves its arguments alone."""
    name = operator_name(function).removeprefix("aten::")
    if not name.endswith("_"):
        return function
    return getattr(getattr(torch.ops.aten, name.removesuffix("_")), function._overloadname)


def storage_key(storage: torch.UntypedStorage) -> int:
    """What tells storages that are alive from one another."""
    return storage._cdata


def lerp_(values: list[Tensor], ends: list[Tensor], weight: float) -> None:
    """Move all `values` by `weight` of the way to `ends` at once."""
    torch._foreach_lerp_(values, ends, weight)


def take_workers(loader: torch.utils.data.DataLoader[Any]) -> list[Killable]:
    """The worker processes of a loader, of which torch knows nothing from now on."""
    from torch.utils.data._utils import signal_handling

    iterator: Any = loader._iterator
    loader._iterator = None
    if getattr(iterator, "_worker_pids_set", False):
        # Else torch would find them dead on behalf of the next loader.
        signal_handling._remove_worker_pids(id(iterator))  # type: ignore[attr-defined]
        iterator._worker_pids_set = False
    return list(getattr(iterator, "_workers", ()))


def write_settings(writer: Any, settings: Mapping[str, Any], scores: Mapping[str, float]) -> None:
    """Add `settings` to the event file of a `SummaryWriter`, whose own method would begin a folder of its own."""
    from torch.utils.tensorboard.summary import hparams

    for summary in hparams(dict(settings), dict(scores)):
        writer._get_file_writer().add_summary(summary)
