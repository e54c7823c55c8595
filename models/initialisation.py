"""Initialisation that depends on the seed and on each parameter's name, and on nothing else.

Two models that differ in their mixers, in their depth or in the order of construction hold the same bits wherever they
hold the same parameter, so that the arms of a comparison start from the same trunk.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from operators import Mixer
from operators.errors import check_number
from operators.initialisation import STD, linear_std, truncated_normal_

_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.BatchNorm2d, nn.GroupNorm)

_turn = threading.RLock()
"""Of the threads that build models: torch's global generator is one for all."""


def stream(seed: int, name: str) -> int:
    """The generator seed that belongs to (seed, name): the first eight bytes of a SHA-256."""
    check_number("seed", seed, least=0, integer=True)
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big")


@contextmanager
def seeded(seed: int, name: str) -> Iterator[None]:
    """Within the block, torch's global generator (of the default device) draws from the stream (seed, name).

    The global state is as before afterwards, and threads take turns. Mixer i of a model is built in
    `seeded(seed, f"blocks.{i}.mixer")`.

    Raises:
        InputError: `seed` is not an integer >= 0.
    """
    key = stream(seed, name)
    generators = [torch.default_generator]
    device = torch.get_default_device()
    if device.type == "cuda":
        torch.cuda.init()  # until then torch has no default generators for it
        generators.append(torch.cuda.default_generators[device.index or 0])
    with _turn:
        states = [generator.get_state() for generator in generators]
        try:
            for generator in generators:
                generator.manual_seed(key)
            yield
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)


class FixedLinear(nn.Linear):
    """A linear layer whose weights start with the deviation `std`, not `linear_std`; at 0 they start at zero."""

    def __init__(self, in_features: int, out_features: int, *, std: float) -> None:
        super().__init__(in_features, out_features)
        self.std = std


class StillConv(nn.Conv2d):
    """A convolution of grids (B, H, W, C) that keeps their size, and whose weights start at zero."""

    std = 0.0

    def __init__(self, in_channels: int, channels: int, kernel: int, *, depthwise: bool = False) -> None:
        groups = channels if depthwise else 1
        super().__init__(in_channels, channels, kernel, padding=kernel // 2, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C)."""
        return super().forward(x.movedim(-1, 1)).movedim(1, -1)


class Constant(nn.Module):
    """Holds one parameter, `value`, all of whose numbers start as `start`."""

    def __init__(self, shape: tuple[int, ...], start: float) -> None:
        super().__init__()
        self.start = start
        self.value = nn.Parameter(torch.full(shape, start))

    def fill(self, value: Tensor) -> None:
        """Write what the parameter starts as into `value`."""
        value.fill_(self.start)

    def extra_repr(self) -> str:
        return f"{tuple(self.value.shape)}, start={self.start:g}"


class PowerRamp(Constant):
    """Holds one parameter, `value`, of numbers from 0 to 1, that start as (i / length)^power."""

    def __init__(self, length: int, power: float) -> None:
        super().__init__((length,), 0.0)
        self.power = power
        with torch.no_grad():
            self.fill(self.value)

    def fill(self, value: Tensor) -> None:
        """Write what the parameter starts as into `value`."""
        length = len(self.value)
        value.copy_((torch.arange(length, dtype=torch.float32, device=value.device) / length) ** self.power)

    def extra_repr(self) -> str:
        return f"{tuple(self.value.shape)}, power={self.power:g}"


def initialise(model: nn.Module, seed: int) -> None:
    """Draw every parameter of `model` outside its mixers, each from the stream (seed, its full name).

    Norm weights are one, biases zero, a `Constant` is what it says, everything else cut normal: linear layers (stem and
    head too) and convolutions with the deviation of `operators.initialisation.linear_std` (a `FixedLinear` with its
    own, 0 for zeros, which a `StillConv` is made of), learned positions and label embeddings with 0.02. Draws are made
    in float32 on the CPU, so they are the same on every device. Parameters on the meta device stay as they are.
    """
    mixing = {id(part) for mixer in model.modules() if isinstance(mixer, Mixer) for part in mixer.modules()}
    for prefix, module in model.named_modules():
        if id(module) in mixing:
            continue
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if not parameter.is_meta:
                _draw(module, name, parameter, seed)


@torch.no_grad()
def _draw(module: nn.Module, name: str, parameter: nn.Parameter, seed: int) -> None:
    std = _std(module)
    if isinstance(module, Constant):
        module.fill(parameter)
    elif name.endswith("bias") or std == 0:
        parameter.zero_()
    elif isinstance(module, _NORMS):
        parameter.fill_(1)
    else:
        generator = torch.Generator("cpu").manual_seed(stream(seed, name))
        values = torch.empty(parameter.shape, device="cpu", dtype=torch.float32)
        parameter.copy_(truncated_normal_(values, std, generator=generator))


def _std(module: nn.Module) -> float:
    """Deviation of the weights of a module."""
    if isinstance(module, FixedLinear | StillConv):
        return module.std
    if isinstance(module, nn.Linear):
        return linear_std(module)
    return (3 * module.weight[0].numel()) ** -0.5 if isinstance(module, nn.Conv2d) else STD
