"""The one way by which compiled code is called: `CpuOp`, an operation and its gradients as operators of torch.

Nothing here imports numba, which takes half a second, before compiled code is run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from operators.cpu.availability import refusal
from operators.errors import InputError
from operators.runtime.differentiation import refuse_forward_mode
from operators.runtime.tensors import check_tensors

Tensors = tuple[Tensor, ...]
Blank = Callable[[Mapping[str, Any]], Tensors]
DTYPES = {torch.float32: "float32", torch.float64: "float64"}
"""What compiled code calls the types that it serves."""
LANES = 16
"""Channels that compiled code takes as one vector."""


class CpuOp(ABC):
    """An operation with compiled code and its gradients: the operators `operator_zoo::NAME_fwd` and `…_bwd` of torch.

    Autograd, `torch.compile`, fake tensors, the counter of operations see these two and nothing within. A subclass says
    names and shapes, and fills the records of its kernels, `forward` and `backward` of a module of `operators.cpu`.

    Attributes:
        name: NAME.
        title: what messages call it.
        instead: what to do where it has no forward-mode derivative, or no compiled code.
        once_only: why it cannot be differentiated twice, and what to do.
        module: the module of `operators.cpu`.
        tensors: the names of the tensors that it takes. The first one's type is that of all.
        options: what it takes after them, by type and name, as in a schema of torch.
        results: the names of what it returns.
        kept: which of `tensors` and `results` the backward pass takes; they are followed by the gradients of the other
            results, by name `grad_RESULT`, and by the options. It returns the gradients of `tensors`.
        multiple: of which the number of channels is, the last axis of all: they are filled up with zeros.
        thread_least: work below which a thread costs more than it saves.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    instead: ClassVar[str]
    once_only: ClassVar[str]
    module: ClassVar[str]
    tensors: ClassVar[tuple[str, ...]]
    options: ClassVar[tuple[str, ...]] = ()
    results: ClassVar[tuple[str, ...]]
    kept: ClassVar[tuple[str, ...]] = ()
    multiple: ClassVar[int] = 1
    thread_least: int

    def __init__(self) -> None:
        self.saved = self.kept or self.tensors
        self.backward_tensors = (*self.saved, *(f"grad_{name}" for name in self.results if name not in self.saved))
        self._option_names = tuple(option.split()[-1] for option in self.options)
        self._modules: dict[str, Any] = {}
        self.operator = self._register("fwd", self._forward, self.tensors, len(self.results), self.blank_results)
        self.operator.register_autograd(self._differentiate, setup_context=self._keep)
        self.gradient = self._register(
            "bwd", self._backward, self.backward_tensors, len(self.tensors), self.blank_gradients
        )
        self.gradient.register_autograd(self._refuse_twice)

    @abstractmethod
    def shapes(self, given: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Shapes of all tensors and results by name, from what either pass takes by name."""

    @abstractmethod
    def forward(self, *given: Any) -> Tensors:
        """The results, from `tensors` and `options`."""

    @abstractmethod
    def backward(self, *given: Any) -> Tensors:
        """The gradients of `tensors`, from `kept`, the gradients of results, and `options`."""

    def blank_results(self, given: Mapping[str, Any]) -> Tensors:
        """Make results without values, in the layout of memory that they have."""
        shapes = self.shapes(given)
        return tuple(given[self.tensors[0]].new_empty(shapes[name]) for name in self.results)

    def blank_gradients(self, given: Mapping[str, Any]) -> Tensors:
        """Make gradients without values, in the layout of memory that they have."""
        return tuple(given[name].new_empty(given[name].shape) for name in self.tensors)

    def check(self, given: Mapping[str, Any], tensors: Sequence[str]) -> None:
        """Raise `InputError` where compiled code would leave its arrays: sizes, types and devices that do not fit."""
        shapes = self.shapes(given)
        expected = {name: (given[name], shapes[name.removeprefix("grad_")]) for name in tensors}
        check_tensors(self.title, given[self.tensors[0]], expected)

    # ------------------------------------------------------------ for subclasses

    def load(self, module: str) -> Any:
        """A module of `operators.cpu`, or `InputError` where no compiled code runs."""
        if module not in self._modules:
            self._modules[module] = self._imported(module)
        return self._modules[module]

    def _imported(self, module: str) -> Any:
        reason = refusal()
        if reason is None:
            try:
                return import_module(f"operators.cpu.{module}")
            except ImportError as error:
                reason = f"needs numba, which does not import ({' '.join(str(error).split())})"
        raise InputError(f"{self.title} {reason}: {self.instead}")

    def threads(self, tasks: int, work: int) -> int:
        """How many of torch's threads are worth it."""
        return max(1, min(torch.get_num_threads(), tasks, work // self.thread_least))

    def run(self, kernel: str, tasks: int, work: int, **fields: Any) -> None:
        """Do the tasks of a kernel of `module` whose record has these fields; `work` says how much that is."""
        dtype = DTYPES[fields[self.tensors[0]].dtype]
        getattr(self.load(self.module), kernel)(dtype, tasks, self.threads(tasks, work), **fields)

    # ------------------------------------------------------------ torch's operators

    def _register(
        self, suffix: str, function: Callable[..., Any], tensors: Sequence[str], count: int, blank: Blank
    ) -> Any:
        given = ", ".join([*(f"Tensor {name}" for name in tensors), *self.options])
        made = ", ".join(["Tensor"] * count)
        schema = f"({given}) -> {made if count == 1 else f'({made})'}"
        operator = torch.library.custom_op(
            f"operator_zoo::{self.name}_{suffix}", function, mutates_args=(), schema=schema
        )
        operator.register_fake(lambda *given: _bare(blank(self._named(tensors, given))))
        return operator

    def _named(self, tensors: Sequence[str], given: Sequence[Any]) -> dict[str, Any]:
        return dict(zip((*tensors, *self._option_names), given, strict=True))

    def _forward(self, *given: Any) -> Any:
        return self._computed(self.tensors, given, self.forward, self.blank_results)

    def _backward(self, *given: Any) -> Any:
        return self._computed(self.backward_tensors, given, self.backward, self.blank_gradients)

    def _computed(
        self, names: Sequence[str], given: Sequence[Any], work: Callable[..., Tensors], blank: Blank
    ) -> Tensor | Tensors:
        refuse_forward_mode(self.title, self.instead)
        named = self._named(names, given)
        self.check(named, names)
        tensors, options = given[: len(names)], given[len(names) :]
        if not tensors[0].numel():
            return _bare(tuple(made.zero_() for made in blank(named)))
        channels = tensors[0].shape[-1]
        missing = -channels % self.multiple
        if not missing:
            return _bare(work(*given))
        wide = (F.pad(tensor.detach(), (0, missing)) for tensor in tensors)
        return _bare(tuple(made[..., :channels].contiguous() for made in work(*wide, *options)))

    def _keep(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        results = dict(zip(self.results, _several(output), strict=True))
        named = {**self._named(self.tensors, inputs), **results}
        ctx.save_for_backward(*(named[name] for name in self.saved))
        ctx.options = inputs[len(self.tensors) :]

    def _differentiate(self, ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        own = [each for name, each in zip(self.results, gradients, strict=True) if name not in self.saved]
        return (*self.differentiate(ctx.saved_tensors, own, ctx.options), *(None for _ in self.options))

    def differentiate(self, kept: Sequence[Tensor], gradients: Sequence[Tensor], options: Sequence[Any]) -> Tensors:
        """Compute the gradients of `tensors` from what the backward pass takes."""
        return _several(self.gradient(*kept, *gradients, *options))

    def _refuse_twice(self, ctx: Any, *gradients: Tensor) -> None:
        raise InputError(self.once_only)


def _bare(made: Tensors) -> Tensor | Tensors:
    return made if len(made) > 1 else made[0]


def _several(made: Any) -> Tensors:
    return (made,) if isinstance(made, Tensor) else tuple(made)


# ---------------------------------------------------------------- for records


def channels_together(x: Tensor) -> Tensor:
    """It, or a copy whose channels are neighbours in memory."""
    return x if x.stride(-1) == 1 else x.contiguous()


def strides(name: str, x: Tensor) -> dict[str, int]:
    """The fields NAME_image, NAME_row and NAME_column of a record: how far apart neighbours of x (B, H, W, D) are."""
    image, row, column, _ = x.stride()
    return {f"{name}_image": image, f"{name}_row": row, f"{name}_column": column}
