"""What the contract tests run on, and the few things they all do with a mixer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import operators
from operators import Core, Mixer, MixerCard, ShellSpec
from operators.registry import core_class

CHANNELS = 16
COND = 6
GRIDS = ((4, 4), (5, 7), (8, 6))
Grid = tuple[int, ...]
Gradients = dict[str, Tensor | None]


@dataclass(frozen=True)
class Case:
    """A mixer as it is put on trial: registered name, shell and parameters other than the defaults."""

    name: str
    shell: str | ShellSpec = "common"
    params: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        shell = self.shell if isinstance(self.shell, str) else "bare" if self.shell == operators.BARE else "shell"
        return "-".join([self.name, shell, *(f"{key}={value}" for key, value in self.params.items())])

    @property
    def card(self) -> MixerCard:
        return operators.describe(self.name)

    @property
    def core(self) -> type[Core]:
        return core_class(self.name)

    @property
    def grids(self) -> list[Grid]:
        """Square, odd and oblong grids, none below the mixer's smallest."""
        return [self.at_least(*grid) for grid in GRIDS]

    def at_least(self, height: int, width: int) -> Grid:
        """The grid asked for, or larger where the mixer needs it."""
        return max(height, self.card.min_grid[0]), max(width, self.card.min_grid[1])

    def build(
        self,
        grid: Grid | None,
        *,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        backend: str = "auto",
        **more: Any,
    ) -> Mixer:
        """The mixer for `grid`, drawn from `seed`, in evaluation mode; `more` are further parameters of its own."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            mixer = operators.create(
                self.name,
                CHANNELS,
                grid=grid,
                cond_dim=COND,
                shell=self.shell,
                backend=backend,
                **{**self.params, **more},
            )
        return mixer.to(dtype).eval()

    def perturbed(
        self, grid: Grid | None, *, dtype: torch.dtype = torch.float64, seed: int = 0, backend: str = "auto"
    ) -> Mixer:
        """As `build`, with 0.3 randn added to each of the core's parameters, so that no symmetry is an accident."""
        mixer = self.build(grid, dtype=dtype, seed=seed, backend=backend)
        generator = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            for parameter in mixer.core.parameters():
                kick = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(0.3 * kick.to(dtype))
        return mixer


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 2) -> Tensor:
    """Standard normal numbers that depend on shape and seed alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def tokens(grid: Grid, *, batch: int = 2, dtype: torch.dtype = torch.float32, seed: int = 2) -> Tensor:
    """Random input (batch, H, W, CHANNELS) of a mixer."""
    return noise(batch, *grid, CHANNELS, dtype=dtype, seed=seed)


def call(mixer: Mixer, x: Tensor, *, through: Callable[..., Tensor] | None = None) -> Tensor:
    """`mixer(x)`, or `through(x)`, a compiled form of it, with a fixed random condition if the mixer needs one."""
    function = mixer if through is None else through
    if not mixer.core.needs_cond:
        return function(x)
    return function(x, noise(1, COND, dtype=x.dtype, seed=3).to(x.device).expand(len(x), COND))


def run(mixer: Mixer, x: Tensor) -> Tensor:
    """Output for x without gradients."""
    with torch.no_grad():
        return call(mixer, x)


def run_with_gradients(
    mixer: Mixer, x: Tensor, *, through: Callable[..., Tensor] | None = None
) -> tuple[Tensor, Gradients]:
    """Output, and its gradients by name, those of `input` among them, against a dense random gradient of the output."""
    x = x.clone().requires_grad_()
    y = call(mixer, x, through=through)
    wanted = {"input": x, **dict(mixer.named_parameters())}
    gradients = torch.autograd.grad(y, list(wanted.values()), noise(*y.shape, dtype=y.dtype, seed=4), allow_unused=True)
    return y.detach(), dict(zip(wanted, gradients, strict=True))


def shells(name: str) -> list[str | ShellSpec]:
    """Those in which a mixer is put on trial: the common one, its own and the bare one (unless that is its own)."""
    own = operators.describe(name).shells
    return ["common", *own, *([] if operators.BARE in own.values() else [operators.BARE])]
