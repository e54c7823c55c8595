"""What is drawn: mixers, each with tokens that it is given; and what a pulse among them becomes, as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from operators import pictures
from operators.mixer import Mixer
from operators.registry import core_class, create
from operators.response import PULSE, plainest
from operators.shell.spec import BARE, ShellSpec

START, TRAINED = "at initialisation", "trained"
SAMPLES = 8
"""Random inputs behind a receptive field."""


@dataclass(frozen=True)
class State:
    """A mixer as it is at one time, among tokens that it is given.

    Attributes:
        name: of the time, empty where there is only one.
        mixer: in its shell.
        x: the tokens (H, W, C).
        cond: conditioning vector (cond_dim,), or None.
    """

    name: str
    mixer: Mixer
    x: Tensor
    cond: Tensor | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return self.x.shape[0], self.x.shape[1]

    @cached_property
    def response(self) -> Tensor:
        """Change of the output per unit of a small pulse at the middle token, in all channels, (H, W, C).

        Of a mixer that is linear as it stands it is the kernel, whatever the tokens are.
        """
        return pictures.impulse_response(self.mixer, self.grid, size=PULSE, background=self.x, cond=self.cond)

    @cached_property
    def field(self) -> Tensor:
        """Effective receptive field of the middle output, (H, W): see `operators.pictures.receptive_field`."""
        return pictures.receptive_field(self.mixer, self.grid, samples=SAMPLES, cond=self.cond)

    @cached_property
    def named(self) -> dict[str, Tensor]:
        """What `mixer.inspect` gives of these tokens."""
        with torch.no_grad():
            return self.mixer.inspect(self.x[None], None if self.cond is None else self.cond[None])


@dataclass(frozen=True)
class Layer:
    """A place in a model, or a mixer alone.

    Attributes:
        title: what it is called in pictures.
        states: the mixer there, as it was at the start and as it is; or as it is alone.
        pixels: side of a token in pixels of the image, down and across; None where there is no image.
    """

    title: str
    states: Sequence[State]
    pixels: tuple[float, float] | None = None


def uncompiled(name: str) -> str:
    """A backend of mixer `name` that is usable here, compiles nothing and is not the slow definition, if there is one.

    Else the plainest there is.
    """
    slow = ("reference", "cpu", "compiled", "compiled_fft")
    usable = [backend for backend, reason in core_class(name).availability().items() if reason is None]
    plain = [backend for backend in usable if backend not in slow]
    return plain[-1] if plain else plainest(name)


def fresh(
    name: str,
    *,
    dim: int,
    grid: tuple[int, int],
    shell: str | ShellSpec = BARE,
    backend: str | None = None,
    seed: int = 0,
    params: Mapping[str, Any] | None = None,
) -> Layer:
    """Mixer `name` at its start, among tokens of normal noise; the global generator stays as it is.

    Args:
        name: one of `operators.names()`.
        dim: channels.
        grid: rows and columns of tokens.
        shell: as `operators.create` takes it; without one the core is drawn alone.
        backend: as there; None for one that needs nothing compiled.
        seed: of the parameters and of the tokens.
        params: the mixer's own parameters.

    Raises:
        InputError: what `operators.create` refuses, or a grid that the mixer does not serve.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        chosen = uncompiled(name) if backend is None else backend
        mixer = create(name, dim, grid=grid, cond_dim=dim, shell=shell, backend=chosen, **(params or {}))
        x = torch.randn(*grid, dim)
    cond = torch.zeros(dim) if mixer.core.needs_cond else None
    return Layer(name, [State("", mixer.eval(), x, cond)])


def gain(response: Tensor) -> Tensor:
    """Size |G(k)| of the Fourier transform of a response (H, W, C) to a pulse in the middle, (H, W, C).

    Wave numbers are those of `torch.fft.fft2`. It is the gain of waves where shifted tokens give shifted outputs; for
    any other mixer that of the linear, shift-equivariant operator with this response.
    """
    height, width = response.shape[:2]
    centred = response.roll((-(height // 2), -(width // 2)), (0, 1))
    return torch.fft.fft2(centred.to(torch.promote_types(centred.dtype, torch.float32)), dim=(0, 1)).abs()


def mixing_distance(magnitude: Tensor, pixels: tuple[float, float] = (1.0, 1.0)) -> float:
    """Mean distance from the middle, weighted by magnitudes (H, W) of a response: 0 of the identity, d of a shift by d.

    Args:
        magnitude: of the response at each token, not negative; where it is zero everywhere, so is the result.
        pixels: side of a token, down and across; the distance is in the same unit.
    """
    height, width = magnitude.shape
    rows = (torch.arange(height) - height // 2) * pixels[0]
    columns = (torch.arange(width) - width // 2) * pixels[1]
    weight = magnitude.detach().cpu().double()
    distance = torch.hypot(rows[:, None].double(), columns[None].double())
    total = float(weight.sum())
    return float((weight * distance).sum()) / total if total else 0.0
