"""The two classes every mixer is made of: a `Core` mixes tokens, a `Mixer` is a core in its shell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from operators.card import MixerCard, Site
from operators.cost import Cost
from operators.errors import InputError
from operators.shell.shell import Shell
from operators.shell.spec import ShellSpec


class Core(nn.Module):
    """Base class of cores: `core(u, x=x, cond=cond)`, with u (B, H, W, D) and x (B, H, W, C), returns (B, H, W, D).

    A subclass takes `(site, *, backend="auto", **own_parameters)`, owns its data-dependent maps, and is entered into
    the registry by `operators.registry.register(card)`.
    """

    card: ClassVar[MixerCard]
    no_weight_decay: frozenset[str] = frozenset()
    """Names of parameters (as in `named_parameters`) that an optimiser must not decay."""

    def __init__(self, site: Site, *, backend: str = "auto") -> None:
        super().__init__()
        self.site = site
        self.requested_backend = backend

    @classmethod
    def availability(cls) -> dict[str, str | None]:
        """For each backend of the card: None if it is usable on this machine, else the reason why not."""
        return dict.fromkeys(cls.card.backends)

    @property
    def backend(self) -> str:
        """The backend that serves a call on the device where the parameters are."""
        return self.card.backends[0] if self.requested_backend == "auto" else self.requested_backend

    @property
    def permutation_equivariant(self) -> bool:
        """Whether permuting tokens permutes outputs: what the card says of the defaults, for this core's parameters."""
        return self.card.permutation_equivariant

    @property
    def needs_cond(self) -> bool:
        """Whether a call without `cond` is refused."""
        return False

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mix tokens of the value field u (B, H, W, D); x (B, H, W, C) and cond (B, cond_dim) are read-only."""
        raise NotImplementedError

    def core_cost(self, height: int, width: int) -> Cost:
        """Cost for one image, parameters left at zero (the mixer counts them)."""
        raise NotImplementedError

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """What pictures need: kernels, coefficients, maps. Empty where there is nothing to show."""
        return {}


class Mixer(nn.Module):
    """A token mixer on an image grid: `mixer(x, cond=None)` maps (B, H, W, C) to (B, H, W, C)."""

    def __init__(
        self,
        core: type[Core],
        spec: ShellSpec,
        *,
        dim: int,
        grid: tuple[int, int] | None,
        cond_dim: int | None,
        backend: str,
        params: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.dim = dim
        self.grid = grid
        self.cond_dim = cond_dim
        # The shell first: its random draws are then the same whatever core follows.
        self.shell = Shell(dim, spec)
        site = Site(dim=dim, width=self.shell.width, grid=grid, cond_dim=cond_dim)
        self.core = core(site, backend=backend, **params)

    @property
    def card(self) -> MixerCard:
        """What the core declares about itself, in every shell."""
        return self.core.card

    @property
    def backend(self) -> str:
        """What serves a call on the device where the mixer is."""
        return self.core.backend

    @property
    def permutation_equivariant(self) -> bool:
        """Whether permuting tokens permutes outputs, shell included."""
        return self.core.permutation_equivariant and not self.shell.spec.conv

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mix the tokens of x (B, H, W, C), given cond (B, cond_dim) where the mixer takes one.

        Raises:
            InputError: a grid or a conditioning vector that this mixer cannot serve, or a core that breaks its
                contract: its output is no tensor of its input's shape.
        """
        self._check(x, cond)
        u, z = self.shell.enter(x)
        mixed = self.core(u, x=x, cond=cond)
        if not isinstance(mixed, Tensor) or mixed.shape != u.shape:
            made = tuple(mixed.shape) if isinstance(mixed, Tensor) else type(mixed).__name__
            raise InputError(f"mixer {self.card.name}: its core made {made} of {tuple(u.shape)}, not the same shape")
        return self.shell.leave(mixed, z).to(x.dtype)

    def inspect(self, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """What pictures need of a call with x and cond: kernels, coefficients, maps."""
        self._check(x, cond)
        u, _ = self.shell.enter(x)
        return self.core.inspect(u, x=x, cond=cond)

    def cost(self, height: int, width: int) -> Cost:
        """Cost of the whole mixer for one image of height × width tokens."""
        own = sum(parameter.numel() for parameter in self.core.parameters())
        cost = self.core.core_cost(height, width)
        if not isinstance(cost, Cost):
            raise InputError(f"mixer {self.card.name}: its core_cost gives {cost!r}, not a Cost")
        return self.shell.cost(height, width) + replace(cost, parameters=own)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that an optimiser must not decay."""
        return {f"core.{name}" for name in self.core.no_weight_decay}

    def _check(self, x: Tensor, cond: Tensor | None) -> None:
        name = self.card.name
        if x.ndim != 4 or x.shape[-1] != self.dim:
            raise InputError(f"mixer {name} takes (B, H, W, {self.dim}), not {tuple(x.shape)}")
        height, width = x.shape[1:3]
        if self.card.fixed_grid and (height, width) != self.grid:
            raise InputError(f"mixer {name} was made for a {self.grid} grid and cannot serve {(height, width)}")
        least = self.card.min_grid
        if height < least[0] or width < least[1]:
            raise InputError(f"mixer {name} needs a grid of at least {least}, not {(height, width)}")
        if self.core.needs_cond and cond is None:
            raise InputError(f"mixer {name} is conditioned: it needs cond of shape (B, {self.cond_dim}), not None")
        expected = (x.shape[0], self.cond_dim)
        if cond is not None and self.cond_dim is not None and tuple(cond.shape) != expected:
            raise InputError(f"mixer {name} takes cond of shape {expected}, not {tuple(cond.shape)}")
