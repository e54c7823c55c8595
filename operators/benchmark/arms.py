"""Mixers as arms of the benchmark: alone, in their shell, or in a whole block."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

import operators
from operators.benchmark.options import LEVELS
from operators.benchmark.workload import Shape, Target, Workload, leaf, noise
from operators.errors import check_choice, check_names
from operators.mixer import Mixer

FFN_RATIO = 4


class Subject(nn.Module):
    """A mixer, or with `block` x + mixer(norm(x)) followed by x + FFN(norm(x)); maps (B, H, W, C) to the same."""

    def __init__(self, mixer: Mixer, *, block: bool) -> None:
        super().__init__()
        self.mixer = mixer
        self.block = block
        if block:
            dim = mixer.dim
            self.norm_mixer, self.norm_ffn = nn.LayerNorm(dim), nn.LayerNorm(dim)
            self.ffn = nn.Sequential(nn.Linear(dim, FFN_RATIO * dim), nn.GELU(), nn.Linear(FFN_RATIO * dim, dim))

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        if not self.block:
            return self.mixer(x, cond)
        x = x + self.mixer(self.norm_mixer(x), cond)
        return x + self.ffn(self.norm_ffn(x))

    def macs(self, shape: Shape) -> float:
        """MACs of one forward call for the whole batch."""
        ffn = 2 * FFN_RATIO * shape.tokens * shape.dim**2 if self.block else 0
        return shape.batch * (self.mixer.cost(shape.height, shape.width).macs + ffn)


class Arm(Protocol):
    """Something to time: a mixer, a bare operation or a rival."""

    @property
    def label(self) -> str:
        """Its name in tables."""

    @property
    def kind(self) -> str:
        """`mixer`, `bare` or `rival`."""

    @property
    def judged(self) -> MixerArm | None:
        """The mixer that is compared with float64 before this is timed, if there is one."""

    def absent(self, shape: Shape, place: Target) -> str | None:
        """Why it cannot be timed there, or None."""

    def build(self, shape: Shape, place: Target) -> Workload:
        """Make it, with everything it needs in memory. Raises `InputError` where that is impossible."""


@dataclass(frozen=True)
class MixerArm:
    """A registered mixer with parameters of its own.

    Attributes:
        name: as registered.
        level: one of `LEVELS`.
        params: the mixer's parameters other than the defaults; also `backend` and, but for the core, `shell`.
    """

    name: str
    level: str = "mixer"
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        shown = ",".join(f"{key}={_shown(value)}" for key, value in sorted(self.params.items()))
        return f"{self.name}[{shown}]" if shown else self.name

    @property
    def kind(self) -> str:
        return "mixer"

    @property
    def judged(self) -> MixerArm:
        return self

    def absent(self, shape: Shape, place: Target) -> str | None:
        height, width = operators.describe(self.name).min_grid
        if shape.height < height or shape.width < width:
            return f"needs a grid of at least {height}x{width}"
        return None

    def module(self, shape: Shape, *, backend: str | None = None, seed: int = 0) -> Subject:
        """The mixer for a shape, in float32 on the CPU, drawn from `seed`; `backend` instead of its own if given."""
        params: dict[str, Any] = {"shell": operators.BARE if self.level == "core" else "common", **self.params}
        if backend is not None:
            params["backend"] = backend
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            grid = (shape.height, shape.width)
            mixer = operators.create(self.name, shape.dim, grid=grid, cond_dim=shape.dim, **params)
            return Subject(mixer, block=self.level == "block")

    def data(self, subject: Subject, shape: Shape, device: str) -> tuple[Tensor, ...]:
        """Random input (B, H, W, C), and a condition (B, C) for mixers that need one."""
        x = noise(shape.batch, shape.height, shape.width, shape.dim, device=device, seed=2)
        return (x, noise(shape.batch, shape.dim, device=device, seed=3)) if subject.mixer.core.needs_cond else (x,)

    def build(self, shape: Shape, place: Target) -> Workload:
        subject = self.module(shape).to(place.device)
        inputs = tuple(leaf(tensor) for tensor in self.data(subject, shape, place.device))
        return Workload(
            lambda: subject(*inputs),
            inputs,
            tuple(parameter for parameter in subject.parameters() if parameter.requires_grad),
            subject.macs(shape),
            subject.mixer.backend,
            tuple(subject.buffers()),
            asked=lambda: subject.mixer.backend,
        )


def mixer_arms(names: Sequence[str], level: str, settings: Mapping[str, Mapping[str, Sequence[Any]]]) -> list[Arm]:
    """One arm for each mixer and each combination of the values set for its parameters.

    Args:
        names: registered names.
        level: one of `LEVELS`.
        settings: by mixer and parameter, the values it takes.

    Raises:
        InputError: unknown names or parameters, or settings of a mixer that is not among the names.
    """
    check_choice("level", level, LEVELS)
    for name in names:
        check_choice("mixer", name, operators.names())
    check_names("set: this benchmark", settings, names)
    arms: list[Arm] = []
    for name in dict.fromkeys(names):
        chosen = settings.get(name, {})
        allowed = [*operators.describe(name).defaults, "backend", *([] if level == "core" else ["shell"])]
        check_names(f"set: mixer {name} (level {level})", chosen, allowed)
        for values in itertools.product(*chosen.values()):
            arms.append(MixerArm(name, level, dict(zip(chosen, values, strict=True))))
    return arms


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{' '.join(_shown(member) for member in value)}]"
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
