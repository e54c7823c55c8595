"""The two classes every mixer is made of: a `Core` mixes tokens, a `Mixer` is a core in its shell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
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
    value_heads: int | None = None
    """Heads of equal width whose channels lie side by side in the output; None: the core has no such heads."""

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

    def video_cost(self, frames: int, height: int, width: int) -> Cost:
        """Cost for one video, of cores that serve three axes: that of as many tokens, unless a core knows better."""
        return self.core_cost(frames * height, width)

    def read(
        self, u: Tensor, *, x: Tensor, context: Tensor, mask: Tensor | None = None, cond: Tensor | None = None
    ) -> Tensor:
        """What each token of x (B, H, W, C) reads from a context, (B, H, W, D).

        For mixers whose card says `reads_context`.

        Args:
            u: (B, M, D) values of the context's tokens.
            x: the mixer's input.
            context: (B, M, C) the tokens themselves.
            mask: (B, M) bool, which of them are there; all unless given.
            cond: (B, cond_dim), as of `forward`.
        """
        raise NotImplementedError(f"the card of {self.card.name} says reads_context, and its core has no read")

    def read_cost(self, height: int, width: int, tokens: int) -> Cost:
        """Cost of `read` for one image and a context of so many tokens, parameters left at zero."""
        raise NotImplementedError

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """What pictures need: kernels, coefficients, maps. Empty where there is nothing to show."""
        return {}


class Mixer(nn.Module):
    """A token mixer on an image grid: `mixer(x, cond=None)` maps (B, H, W, C) to (B, H, W, C).

    Made for three axes, it maps videos (B, T, H, W, C) in the same way.
    """

    def __init__(
        self,
        core: type[Core],
        spec: ShellSpec,
        *,
        dim: int,
        grid: tuple[int, ...] | None,
        axes: int,
        cond_dim: int | None,
        backend: str,
        params: Mapping[str, Any],
        block_index: int = 0,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.grid = grid
        self.axes = axes
        self.cond_dim = cond_dim
        # The shell first: its random draws are then the same whatever core follows.
        self.shell = Shell(dim, spec, axes)
        plane = None if grid is None else (grid[-2], grid[-1])
        frames = grid[0] if grid is not None and axes == 3 else None
        width = self.shell.width
        site = Site(dim, width, grid=plane, cond_dim=cond_dim, axes=axes, frames=frames, block_index=block_index)
        self.core = core(site, backend=backend, **params)
        if spec.norm_heads:
            if self.core.value_heads is None:
                raise InputError(f"shell.norm_heads=True needs a core with heads: mixer {self.card.name} has none")
            self.shell.normalise_heads(self.core.value_heads)

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

    def forward(
        self,
        x: Tensor,
        cond: Tensor | None = None,
        *,
        context: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Mix the tokens of x (B, H, W, C), or let them read from the tokens of a context, such as those of a text.

        With a context the same parameters serve: values (and keys) come from its tokens, gates (and queries) from x.
        The tokens of x themselves as context give what the mixer gives without one.

        Args:
            x: the grid.
            cond: (B, cond_dim), where the mixer takes one.
            context: (B, M, C), M at least 1; for mixers whose card says `reads_context`.
            mask: (B, M) bool, which tokens of the context are there, at least one for each image; all unless given.

        Raises:
            InputError: a grid, a conditioning vector or a context that this mixer cannot serve, or a core that breaks
                its contract: its output is no tensor of its input's shape.
        """
        self._check(x, cond)
        expected = (*x.shape[:-1], self.shell.width)
        if context is None:
            if mask is not None:
                raise InputError(f"mixer {self.card.name}: mask says which tokens of a context are there; give context")
            u, z = self.shell.enter(x)
            mixed = self.core(u, x=x, cond=cond)
        else:
            self._check_context(x, context, mask)
            u, z = self.shell.enter_context(x, context)
            mixed = self.core.read(u, x=x, context=context, mask=mask, cond=cond)
        if not isinstance(mixed, Tensor) or mixed.shape != expected:
            made = tuple(mixed.shape) if isinstance(mixed, Tensor) else type(mixed).__name__
            raise InputError(f"mixer {self.card.name}: its core made {made} of {tuple(u.shape)}, not {expected}")
        return self.shell.leave(mixed, z).to(x.dtype)

    def inspect(self, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """What pictures need of a call with x and cond: kernels, coefficients, maps."""
        self._check(x, cond)
        u, _ = self.shell.enter(x)
        return self.core.inspect(u, x=x, cond=cond)

    def cost(self, *grid: int, context: int | None = None) -> Cost:
        """Cost of the whole mixer for one image of H × W tokens, `cost(H, W)`, or one video, `cost(T, H, W)`.

        With `context`, for reading from so many tokens.

        Raises:
            InputError: another number of axes than the mixer has, a context for a mixer that reads none, or a core
                whose cost is no `Cost`.
        """
        if len(grid) != self.axes:
            raise InputError(f"mixer {self.card.name} has {self.axes} axes: its cost is not one of {grid}")
        own = sum(parameter.numel() for parameter in self.core.parameters())
        tokens = math.prod(grid)
        if context is not None:
            self._check_reads()
            cost = self.core.read_cost(tokens // grid[-1], grid[-1], context)
        elif self.axes == 2:
            cost = self.core.core_cost(*grid)
        else:
            cost = self.core.video_cost(*grid)
        if not isinstance(cost, Cost):
            raise InputError(f"mixer {self.card.name}: its core_cost gives {cost!r}, not a Cost")
        return self.shell.cost(tokens, context) + replace(cost, parameters=own)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that an optimiser must not decay."""
        return {f"core.{name}" for name in self.core.no_weight_decay}

    def _check(self, x: Tensor, cond: Tensor | None) -> None:
        name = self.card.name
        if x.ndim != self.axes + 2 or x.shape[-1] != self.dim:
            shape = f"(B, {'T, ' if self.axes == 3 else ''}H, W, {self.dim})"
            raise InputError(f"mixer {name} takes {shape}, not {tuple(x.shape)}")
        *_, height, width = grid = tuple(x.shape[1:-1])
        if self.card.fixed_grid and grid != self.grid:
            raise InputError(f"mixer {name} was made for a {self.grid} grid and cannot serve {grid}")
        least = self.card.min_grid
        if height < least[0] or width < least[1]:
            raise InputError(f"mixer {name} needs a grid of at least {least}, not {(height, width)}")
        if self.core.needs_cond and cond is None:
            raise InputError(f"mixer {name} is conditioned: it needs cond of shape (B, {self.cond_dim}), not None")
        expected = (x.shape[0], self.cond_dim)
        if cond is not None and self.cond_dim is not None and tuple(cond.shape) != expected:
            raise InputError(f"mixer {name} takes cond of shape {expected}, not {tuple(cond.shape)}")

    def _check_reads(self) -> None:
        if not self.card.reads_context:
            raise InputError(f"mixer {self.card.name} reads no context: only mixers whose card says reads_context do")

    def _check_context(self, x: Tensor, context: Tensor, mask: Tensor | None) -> None:
        self._check_reads()
        name = self.card.name
        if context.ndim != 3 or context.shape[0] != x.shape[0] or context.shape[2] != self.dim or not context.shape[1]:
            raise InputError(
                f"mixer {name} reads a context of shape ({x.shape[0]}, M, {self.dim}), M at least 1, "
                f"not {tuple(context.shape)}"
            )
        if mask is not None and (mask.dtype != torch.bool or mask.shape != context.shape[:2]):
            raise InputError(
                f"mixer {name} takes a mask of type bool and shape {tuple(context.shape[:2])}, "
                f"not {mask.dtype} and {tuple(mask.shape)}"
            )
