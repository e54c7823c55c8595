"""What cores that filter fields have in common: which code serves a call, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from operators.card import Site
from operators.mixer import Core
from operators.runtime.differentiation import differentiated
from operators.runtime.kept import Kept, keep, may_keep
from operators.spectral.choice import DEFAULT_GRID, choose, refusal
from operators.spectral.filters import apply_filter


class FilterCore(Core):
    """Base of cores that apply one filter to all images.

    Attributes:
        boundary: how a filter extends the image: `periodic`, or `absorbing` for zeros.
    """

    canonical: ClassVar[dict[str, str]] = {"backend": "fft"}
    """Parameters with which an operation counter sees the canonical cost."""
    boundary: str

    @classmethod
    def availability(cls) -> dict[str, str | None]:
        """For each backend None, or the reason why it serves no grid on this machine."""
        return {
            name: refusal(name, "periodic", grid=None, device="cpu", differentiated=False) for name in cls.card.backends
        }

    @property
    def backend(self) -> str:
        return self.backend_on(*(self.site.grid or DEFAULT_GRID))

    def backend_on(self, height: int, width: int) -> str:
        """The backend that serves a height × width grid now."""
        device = next(self.parameters()).device.type
        return choose(
            self.requested_backend, self.boundary, grid=(height, width), device=device, differentiated=differentiated()
        )

    def apply_filter(self, u: Tensor, response: Tensor) -> Tensor:
        """The field u (B, H, W, D) filtered by a response (2, P, Q // 2 + 1, D)."""
        return apply_filter(u, response, self.boundary, self.backend_on(*u.shape[1:3]))


class MadeFilterCore(FilterCore):
    """Base of cores whose filter is made of parameters for the grid of the call."""

    def __init__(self, site: Site, *, backend: str) -> None:
        super().__init__(site, backend=backend)
        self._kept: Kept | None = None

    def response(self, height: int, width: int) -> Tensor:
        """The transform of the filter on the extended grid, (2, P, Q // 2 + 1, D)."""
        raise NotImplementedError

    def made_of(self) -> Sequence[Tensor]:
        """All tensors that the response depends on."""
        raise NotImplementedError

    def served_response(self, u: Tensor) -> Tensor:
        """The response for u; kept for the next call if nothing asks for a gradient, up to twice the size of u."""
        height, width = u.shape[1:3]
        if not may_keep(u):
            return self.response(height, width)
        key, numbers = (height, width), self.made_of()
        kept = self._kept
        if kept is not None and kept.serves(key, numbers):
            (made,) = kept.made
        else:
            made = self.response(height, width)
            self._kept = keep(key, numbers, (made,), u)
        return made
