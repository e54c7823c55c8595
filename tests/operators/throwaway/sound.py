"""Cores for the contract's own tests keep every promise, and are of every kind that a card can describe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators import Core, Cost, Site


class Mean(Core):
    """y = u + W mean(u): linear, blind to positions, and sound. Broken ones differ from it in one thing."""

    def __init__(self, site: Site, *, backend: str = "auto") -> None:
        super().__init__(site, backend=backend)
        self.weight = nn.Parameter(torch.randn(site.width, site.width) / 2)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        return u + (u.mean((1, 2)) @ self.weight)[:, None, None]

    def core_cost(self, height: int, width: int) -> Cost:
        return Cost(mixing_macs=self.site.width**2, state_elements=self.site.width)

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        return {"mean": u.mean((1, 2))}


# Each of these has a property that Mean lacks.


class Ramp(Mean):
    """Weighs tokens by their place."""

    def forward(self, u: Tensor, **other: Any) -> Tensor:
        rows = torch.linspace(0.5, 1.5, u.shape[1], device=u.device)[:, None, None]
        columns = torch.linspace(0.3, 1.9, u.shape[2], device=u.device)[:, None]
        return super().forward(u, **other) * (rows * columns).to(u.dtype)


class Neighbours(Mean):
    """y = u + W (the token above left), zeros beyond the border."""

    def forward(self, u: Tensor, **other: Any) -> Tensor:
        return u + F.pad(u, (0, 0, 1, 0, 1, 0))[:, :-1, :-1] @ self.weight

    def core_cost(self, height: int, width: int) -> Cost:
        return Cost(mixing_macs=height * width * self.site.width**2)


class Running(Mean):
    """Adds the mean of the tokens so far, row by row."""

    def forward(self, u: Tensor, **other: Any) -> Tensor:
        count = torch.arange(1, u[0, :, :, 0].numel() + 1, device=u.device)[:, None]
        mean = u.flatten(1, 2).cumsum(1) / count
        return u + (mean.to(u.dtype) @ self.weight).reshape(u.shape)

    def core_cost(self, height: int, width: int) -> Cost:
        return Cost(mixing_macs=height * width * self.site.width**2, state_elements=self.site.width)


class TokenWise(Mean):
    """Mixes nothing: y = W u."""

    def forward(self, u: Tensor, **other: Any) -> Tensor:
        return u @ self.weight

    def core_cost(self, height: int, width: int) -> Cost:
        return Cost(projection_macs=height * width * self.site.width**2)


class Squares(Mean):
    """Not linear."""

    def forward(self, u: Tensor, **other: Any) -> Tensor:
        y = super().forward(u, **other)
        return y * torch.tanh(y)


class Sum(Mean):
    """Its output grows with the number of tokens."""

    def forward(self, u: Tensor, **other: Any) -> Tensor:
        return super().forward(u, **other) * (u.shape[1] * u.shape[2])


class Table(Mean):
    """One weight for each place of its grid."""

    def __init__(self, site: Site, *, backend: str = "auto") -> None:
        super().__init__(site, backend=backend)
        self.places = nn.Parameter(torch.rand(*(site.grid or ()), 1) + 0.5)

    def forward(self, u: Tensor, **other: Any) -> Tensor:
        return super().forward(u * self.places.to(u.dtype), **other)


class Single(Mean):
    """Leaves half precision for exponentials and all."""

    def forward(self, u: Tensor, **other: Any) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            wide = u.to(torch.promote_types(u.dtype, torch.float32))
            return super().forward(wide, **other) + torch.exp(-wide.square())


class Reader(Mean):
    """Its tokens read the mean of whatever tokens they are given, weighted by themselves."""

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        return Reader.read(self, u.flatten(1, 2), x=x, context=x.flatten(1, 2))

    def read(
        self, u: Tensor, *, x: Tensor, context: Tensor, mask: Tensor | None = None, cond: Tensor | None = None
    ) -> Tensor:
        there = torch.ones(u.shape[:2], dtype=torch.bool, device=u.device) if mask is None else mask
        mean = u.masked_fill(~there[..., None], 0).sum(1) / there.sum(1, keepdim=True)
        gate = F.pad(x, (0, u.shape[-1] - x.shape[-1]), value=1.0)
        return gate * (mean @ self.weight)[:, None, None]

    def read_cost(self, height: int, width: int, tokens: int) -> Cost:
        return self.core_cost(height, width)


class Parts(Mean):
    """Holds its mean in several parts."""

    def __init__(self, site: Site, *, backend: str = "auto", parts: int = 2, square: int = 1) -> None:
        super().__init__(site, backend=backend)
        self.parts, self.square = parts, square

    def core_cost(self, height: int, width: int) -> Cost:
        return replace(super().core_cost(height, width), state_elements=self.site.width * self.parts * self.square**2)
