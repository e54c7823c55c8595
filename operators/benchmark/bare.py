"""The bare operations that a mixer's equation needs, recorded from the mixer itself.

A pass forward and back is watched from below autograd. Of all that runs, what `operators.testing.counter` counts
(products, convolutions, transforms, scans), its gradients, and what evaluates exponentials or sines is kept with its
operands; copies, element-wise arithmetic, norms and sums are left out. What was kept runs again on operands that lie in
one piece each, and takes the time that an implementation can hope for.

In place of a selective scan stand its exponentials, one for each token, channel and state, forward and once more on the
way back, for which nobody keeps them. Backends in which operations are not to be seen are recorded as plain ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from operators.benchmark.arms import MixerArm
from operators.benchmark.workload import Shape, Target, Workload, leaf, noise
from operators.errors import InputError
from operators.precision import full_precision
from operators.runtime.torch_private import TorchDispatchMode, functional, operator_name, tree_map, writes_in_place
from operators.testing.counter import FORMULAS, unaccounted

PLAIN: Mapping[str, str] = {
    "compiled": "separable",
    "compiled_fft": "fft",
    "fla": "chunked",
    "mamba_ssm": "chunked",
    "xformers": "sdpa",
}
"""Backends that hide their operations, and those that are recorded in their place."""
EXPONENTIALS = frozenset(
    f"aten::{name}"
    for name in (
        "exp", "exp2", "expm1", "log", "sin", "cos", "sigmoid", "tanh", "elu", "gelu", "gelu_backward", "silu",
        "silu_backward", "softplus", "softplus_backward", "log_sigmoid_forward", "log_sigmoid_backward", "_softmax",
    )
)  # fmt: skip
"""What evaluates an exponential, a logarithm, a sine or a cosine for each number, and gradients that do so again."""
SCANS: Mapping[str, tuple[tuple[int, int], ...]] = {
    "selective_scan": ((1, 2),),
    "lattice_scan": ((1, 3), (2, 4)),
    "two_step_scan": ((1, 2),),
    "roesser_scan": ((1, 3), (1, 4), (2, 5), (2, 6)),
}
"""Scans, and which of their operands are steps and the rates that multiply them."""

Call = Callable[[], object]


class Recorder(TorchDispatchMode):
    """Keeps the bare operations that run inside `with Recorder() as recorder:`, with copies of their operands.

    Attributes:
        calls: the operations, each as a function of no arguments.
        macs: multiply-accumulates of all of them that are no gradients.

    Raises:
        InputError: an operator that looks like a product, or a custom one of the zoo, is not known.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.macs = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = operator_name(func)
        given = _operands(name, args), _operands(name, kwargs)  # before the operator may write to them
        out = func(*args, **kwargs)
        if name.startswith("aten::") and writes_in_place(func):
            name, func = name.removesuffix("_"), functional(func)
        if self._needed(name, out, args, kwargs):
            pairs = SCANS.get(name.removeprefix("operator_zoo::").removesuffix("_fwd").removesuffix("_bwd"))
            self.calls.append(_exponentials(args, pairs) if pairs else partial(func, *given[0], **given[1]))
        return out

    def _needed(self, name: str, out: Any, args: Any, kwargs: Any) -> bool:
        """Whether it is a bare operation; adds up its MACs."""
        if name in FORMULAS:
            macs = FORMULAS[name](out, *args, **kwargs)
            self.macs += macs
            return macs > 0
        if name.removesuffix("_backward").replace("_bwd", "_fwd") in FORMULAS or name in EXPONENTIALS:
            return True
        if unaccounted(name):
            raise InputError(f"bare: {name} is not known; enter it in FORMULAS of operators.testing.counter")
        return False


def _operands(name: str, given: Any) -> Any:
    """What was given to an operator, with copies of tensors in the memory that suits it best.

    That is row by row; axes to be transformed come last. Convolutions and pooling may have channels as neighbours.
    """
    kept = torch.preserve_format if "conv" in name or "pool" in name else torch.contiguous_format
    copied = tree_map(lambda t: t.clone(memory_format=kept) if isinstance(t, Tensor) else t, given)
    if name.startswith("aten::_fft_") and isinstance(given, tuple):
        x, axes, *others = copied
        last = list(range(x.ndim - len(axes), x.ndim))
        return (x.movedim(axes, last).contiguous(), last, *others)
    return copied


def _exponentials(args: Sequence[Any], pairs: Sequence[tuple[int, int]]) -> Call:
    """Those of a scan with steps (B, D, N) or (B, H, W, D) and rates (D, S), whatever else it does."""
    exponents = []
    for step, rate in pairs:
        steps, rates = args[step], args[rate].abs()
        exponents.append(-steps.abs()[..., None] * (rates[:, None] if steps.ndim == 3 else rates))
    return partial(_exponential_of_each, exponents)


def _exponential_of_each(exponents: Sequence[Tensor]) -> None:
    for exponent in exponents:
        torch.exp(exponent)


@dataclass(frozen=True)
class BareArm:
    """The bare operations of a mixer.

    Attributes:
        mixer: whose.
    """

    mixer: MixerArm

    @property
    def label(self) -> str:
        return f"bare {self.mixer.label}"

    @property
    def kind(self) -> str:
        return "bare"

    @property
    def judged(self) -> None:
        return None

    def absent(self, shape: Shape, place: Target) -> str | None:
        return self.mixer.absent(shape, place)

    def build(self, shape: Shape, place: Target) -> Workload:
        """Record the mixer at a shape.

        Raises:
            InputError: nothing of what the mixer does is a bare operation, or something is unknown.
        """
        subject = self.mixer.module(shape).to(place.device)
        backend = PLAIN.get(subject.mixer.backend)
        if backend is not None:
            # A mixer with a `method` takes its backend's name for that.
            params = {key: value for key, value in self.mixer.params.items() if key != "method"}
            subject = replace(self.mixer, params=params).module(shape, backend=backend).to(place.device)
        inputs = tuple(leaf(tensor) for tensor in self.mixer.data(subject, shape, place.device))
        with Recorder() as forward, place.autocast():
            y = subject(*inputs)
        gradient = noise(*y.shape, device=place.device, seed=1).to(y.dtype)
        with Recorder() as backward:
            y.backward(gradient)
        if not forward.calls:
            raise InputError(f"bare: mixer {self.mixer.name} has no product, transform, scan or exponential")
        x = leaf(noise(1, device=place.device))
        return Workload(lambda: _Replay.apply(x, forward.calls, backward.calls), (x,), (), forward.macs, "recorded")


class _Replay(torch.autograd.Function):
    """Runs some operations forward and others on the way back; what goes through it has no meaning."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: Sequence[Call], backward: Sequence[Call]) -> Tensor:
        ctx.calls = backward
        _run(forward, x)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        _run(ctx.calls, gradient)
        return gradient, None, None


def _run(calls: Sequence[Call], x: Tensor) -> None:
    with torch.no_grad(), full_precision(x):
        for call in calls:
            call()
