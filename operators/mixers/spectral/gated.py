"""What Hyena's mixers have in common: a long convolution between two gates.

    z = enter(u, a),   h = K * z + s z,   y = leave(h, b),   a, b = maps of x

K is a function of coordinates, made for the grid of the call; the skip s z is part of the filter.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from operators.card import Site
from operators.cost import Cost
from operators.errors import check_choice
from operators.initialisation import linear_init
from operators.mixers.spectral.filtering import MadeFilterCore
from operators.precision import full_precision, wide
from operators.spectral.filters import filter_macs, respond, respond_centred

CONVS = (None, 0, 3, 5, 7)


class GatedConvolution(MadeFilterCore):
    """Base of cores with a long convolution between two gates.

    Args:
        site: where the core stands.
        backend: see `FilterCore`.
        conv: side of a depthwise convolution, zero-padded, of u, a and b before the gates; 0 or None for none.
        bias: whether the maps and that convolution have one.
    """

    boundary = "absorbing"
    implicit: tuple[str, ...]
    """Modules and parameters that make the filter: they ask for no weight decay."""

    def __init__(self, site: Site, *, backend: str, conv: int | None, bias: bool) -> None:
        super().__init__(site, backend=backend)
        check_choice("mixer.conv", conv, CONVS)
        self.maps = nn.Linear(site.dim, 2 * site.width, bias=bias)
        linear_init(self.maps)
        width = 3 * site.width
        self.conv = nn.Conv2d(width, width, conv, padding="same", groups=width, bias=bias) if conv else None

    def _ask_for_no_decay(self) -> None:
        names = [name for name, _ in self.named_parameters()]
        self.no_weight_decay = frozenset(name for name in names if name.startswith(self.implicit))

    def kernel(self, height: int, width: int) -> Tensor:
        """The filter K at all offsets between tokens, (2H − 1, 2W − 1, D), in at least float32."""
        raise NotImplementedError

    def skip(self) -> Tensor:
        """The factor s of each channel (D,)."""
        raise NotImplementedError

    def enter(self, u: Tensor, a: Tensor) -> Tensor:
        """What is convolved, from the field u and its gate a, all (B, H, W, D)."""
        return u * a

    def leave(self, h: Tensor, b: Tensor) -> Tensor:
        """The output, from what was convolved and its gate b, all (B, H, W, D)."""
        return h * b

    def response(self, height: int, width: int) -> Tensor:
        """The transform of K and s on the extended grid, (2, P, Q // 2 + 1, D)."""
        kernel = self.kernel(height, width)
        made = (
            respond_centred(kernel, height, width)
            if self.boundary == "absorbing"
            else respond(wrapped(kernel, height, width), height, width)
        )
        return torch.stack([made[0] + self.skip().to(kernel.dtype), made[1]])

    def made_of(self) -> list[Tensor]:
        return [*self.buffers(), *(p for name, p in self.named_parameters() if name.startswith(self.implicit))]

    def fields(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fields u, a and b (B, H, W, D), convolved where asked for, in at least float32."""
        a, b = self.maps(x).chunk(2, dim=-1)
        if self.conv is not None:
            together = torch.cat([u.to(a.dtype), a, b], dim=-1).movedim(-1, 1)
            u, a, b = self.conv(together).movedim(1, -1).chunk(3, dim=-1)
        return u.to(wide(u.dtype)), a.to(wide(a.dtype)), b.to(wide(b.dtype))

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        field, a, b = self.fields(u, x)
        with full_precision(u):
            filtered = self.apply_filter(self.enter(field, a), self.served_response(u))
            return self.leave(filtered, b).to(u.dtype)

    def core_cost(self, height: int, width: int) -> Cost:
        """The maps: 2 N C D; the filter, and the short convolution's taps on three fields."""
        tokens, channels = height * width, self.site.width
        taps = 0 if self.conv is None else self.conv.weight[0].numel() * 3 * tokens
        return Cost(
            projection_macs=tokens * self.maps.weight.numel(),
            mixing_macs=round(channels * filter_macs(height, width, self.boundary)) + channels * taps,
            state_elements=tokens * channels,
        )

    @torch.no_grad()
    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`kernel` (D, 2H − 1, 2W − 1), the filter by offset, with s at offset 0; the gates `a`, `b` (B, D, H, W)."""
        height, width = u.shape[1:3]
        kernel = self.kernel(height, width).clone()
        kernel[height - 1, width - 1] += self.skip().to(kernel.dtype)
        _, a, b = self.fields(u, x)
        return {"kernel": kernel.movedim(-1, 0), "a": a.movedim(-1, 1), "b": b.movedim(-1, 1)}


def wrapped(kernel: Tensor, height: int, width: int) -> Tensor:
    """A kernel by offset, (2H − 1, 2W − 1, D), on the periodic grid: (H, W, D), offsets that are the same summed."""
    rows = torch.nn.functional.pad(kernel, (0, 0, 1, 0, 1, 0))
    rows = rows.unflatten(0, (2, height)).sum(0)
    return rows.unflatten(1, (2, width)).sum(1)
