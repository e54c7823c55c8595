"""Cores for the contract's own tests break one promise each."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from operators import Cost, Site
from tests.operators.throwaway.sound import Mean, Reader


class NotFinite(Mean):
    def forward(self, u: Tensor, **other: Any) -> Tensor:
        y = super().forward(u, **other)
        return y / 0 if (u.shape[1], u.shape[2]) == (4, 4) else y


class Transposed(Mean):
    def forward(self, u: Tensor, **other: Any) -> Tensor:
        return super().forward(u, **other).transpose(1, 2)


class RemembersGrid(Mean):
    seen: torch.Size | None = None

    def forward(self, u: Tensor, **other: Any) -> Tensor:
        self.seen = self.seen or u.shape[1:]
        if u.shape[1:] != self.seen:
            raise RuntimeError("another grid than before")
        return super().forward(u, **other)


class NeedsTwoRows(Mean):
    def forward(self, u: Tensor, **other: Any) -> Tensor:
        return super().forward(u, **other) + 0 * u[:, 1:2]


class BatchMean(Mean):
    def forward(self, u: Tensor, **other: Any) -> Tensor:
        return super().forward(u, **other) - 0.01 * u.mean(0)


class BatchMeanInTraining(BatchMean):
    def forward(self, u: Tensor, **other: Any) -> Tensor:
        return super().forward(u, **other) if self.training else Mean.forward(self, u, **other)


class Noisy(Mean):
    def forward(self, u: Tensor, **other: Any) -> Tensor:
        return super().forward(u, **other) + 1e-3 * torch.rand_like(u)


class Unseeded(Mean):
    made = itertools.count()

    def __init__(self, site: Site, *, backend: str = "auto") -> None:
        super().__init__(site, backend=backend)
        self.weight.data[0] = next(self.made)


class Overwrites(Mean):
    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        y = super().forward(u, x=x)
        if not torch.is_grad_enabled():
            x[:, 0, 0] = 0
        return y


class AssumesStrides(Mean):
    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        contiguous = torch.empty(x.shape, device="meta").stride()
        return super().forward(u, x=x) + x.as_strided(x.shape, contiguous)


class Cancels(Mean):
    def forward(self, u: Tensor, **other: Any) -> Tensor:
        return super().forward(u, **other) + 1000 - 1000


class OtherwiseCompiled(Mean):
    def forward(self, u: Tensor, **other: Any) -> Tensor:
        return super().forward(u, **other) * (1.001 if torch.compiler.is_compiling() else 1)


class Unsaved(Mean):
    def __init__(self, site: Site, *, backend: str = "auto") -> None:
        super().__init__(site, backend=backend)
        self.factor = torch.rand(())

    def forward(self, u: Tensor, **other: Any) -> Tensor:
        return super().forward(u, **other) * self.factor


class PicklesState(Mean):
    def get_extra_state(self) -> Any:
        return self.site

    def set_extra_state(self, state: Any) -> None:
        self.site = state


class Unused(Mean):
    def __init__(self, site: Site, *, backend: str = "auto") -> None:
        super().__init__(site, backend=backend)
        self.spare = nn.Parameter(torch.ones(3))


class Dead(Unused):
    def forward(self, u: Tensor, **other: Any) -> Tensor:
        return super().forward(u, **other) + 0 * self.spare.sum()


class RootAtZero(Mean):
    def forward(self, u: Tensor, **other: Any) -> Tensor:
        return super().forward(u, **other) + 0 * u.square().sum(-1, keepdim=True).sqrt()


class Overflows(Mean):
    def forward(self, u: Tensor, **other: Any) -> Tensor:
        return (
            super().forward(u, **other) + u - u.sign() * (u.abs().exp().log() if u.dtype == torch.float32 else u.abs())
        )


class Flatters(Mean):
    def core_cost(self, height: int, width: int) -> Cost:
        return Cost(mixing_macs=self.site.width**2 - 2, state_elements=self.site.width)


class CostDependsOnRoute(Mean):
    canonical: ClassVar = {"slow": True}

    def __init__(self, site: Site, *, backend: str = "auto", slow: bool = False) -> None:
        super().__init__(site, backend=backend)
        self.slow = slow

    def core_cost(self, height: int, width: int) -> Cost:
        macs = self.site.width**2 * (1 if self.slow else 2)
        return Cost(mixing_macs=macs, state_elements=self.site.width)


class SparesNobody(Mean):
    no_weight_decay = frozenset({"wait"})


class HoldsFunction(Mean):
    def __init__(self, site: Site, *, backend: str = "auto") -> None:
        super().__init__(site, backend=backend)
        self.function = lambda u: u


class ShowsNaN(Mean):
    def inspect(self, u: Tensor, **other: Any) -> dict[str, Tensor]:
        return {"map": u / 0}


class ShowsNumber(Mean):
    def inspect(self, u: Tensor, **other: Any) -> dict[str, Any]:
        return {"size": 3.0}


class Listens(Mean):
    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        y = super().forward(u, x=x)
        return y if cond is None else y + 1e-6 * cond.mean()


class Deaf(Mean):
    needs_cond = True


class Branches(Mean):
    def forward(self, u: Tensor, **other: Any) -> Tensor:
        y = super().forward(u, **other)
        return y if u.abs().max().item() > 1e-3 else y + 0


class Backends(Mean):
    def forward(self, u: Tensor, **other: Any) -> Tensor:
        y = super().forward(u, **other)
        return y * 1.001 if self.backend == "fast" else y


class HalfExponential(Mean):
    def forward(self, u: Tensor, **other: Any) -> Tensor:
        return super().forward(u, **other) + torch.exp(-u.square())


class SquareProjection(Mean):
    def core_cost(self, height: int, width: int) -> Cost:
        return Cost(projection_macs=self.site.width**2, state_elements=self.site.width)


class HidesState(Mean):
    def core_cost(self, height: int, width: int) -> Cost:
        return replace(super().core_cost(height, width), state_elements=self.site.width - 1)


class BoastsState(Mean):
    def core_cost(self, height: int, width: int) -> Cost:
        return replace(super().core_cost(height, width), state_elements=2 * height * width * self.site.width)


class ReadsMasked(Reader):
    """Heeds no mask."""

    def read(self, u: Tensor, *, mask: Tensor | None = None, **other: Any) -> Tensor:
        return super().read(u, **other)


class ReadsInOrder(Reader):
    """Reads the first token of a foreign context twice."""

    def read(self, u: Tensor, *, x: Tensor, **other: Any) -> Tensor:
        foreign = u.shape[1] != x[0, ..., 0].numel()
        return super().read(u, x=x, **other) + foreign * u[:, :1, None]


class ReadsItself(Reader):
    """Is something else without a context."""

    def forward(self, u: Tensor, **other: Any) -> Tensor:
        return 2 * super().forward(u, **other)


class ReadsForFree(Reader):
    """Counts nothing for reading."""

    def read_cost(self, height: int, width: int, tokens: int) -> Cost:
        return Cost()


class PerFrame(Mean):
    """Frames of a video do not meet."""

    def forward(self, u: Tensor, **other: Any) -> Tensor:
        frames = u if u.ndim == 4 else u.flatten(0, 1)
        return (frames + (frames.mean((1, 2)) @ self.weight)[:, None, None]).reshape(u.shape)

    def video_cost(self, frames: int, height: int, width: int) -> Cost:
        return Cost(mixing_macs=frames * self.site.width**2)
