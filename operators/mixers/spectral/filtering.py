"""What cores that filter fields have in common: which code serves a call, and what it costs."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from operators.mixer import Core
from operators.runtime.differentiation import differentiated
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
