"""The mixer `spacetime`: state spaces with companion matrices along orders of the grid.

For each channel (arXiv 2303.09489)

    x_t = A x_{t-1} + b u_t,   y_t = c · x_t + D u_t,   A[i + 1, i] = 1,   A[i, S − 1] = a_i / Σ_k |a_k|

so that a filter with feedback over S tokens, an autoregressive moving average, is learned by its coefficients. No
output outgrows the sum of what was read, because those of the feedback have an absolute sum of one.

In the `published` shell, with one order and one way, this is the layer `CompanionSSM` with its skip; its block goes on
with a network of each token and a residual. The closed loop, which predicts what it reads, is not taken over.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from operators.card import MixerCard, Site
from operators.errors import InputError, check_number
from operators.lti import companion
from operators.mixers.statespace.sequence import SequenceCore, System
from operators.precision import wide
from operators.registry import register
from operators.shell.spec import BARE

LEAST = 1e-4
"""Absolute sums of feedback below this are taken for it."""


class CompanionSystem(System):
    """A companion matrix for each of some groups of neighbouring channels, with R readouts.

    Args:
        width: channels D.
        readouts: how many readouts R.
        state_dim: states S.
        n_kernels: groups of channels with the same kernel; None for one each.
    """

    no_weight_decay = ("a",)

    def __init__(self, width: int, readouts: int, *, state_dim: int, n_kernels: int | None) -> None:
        super().__init__()
        check_number("mixer.state_dim", state_dim, least=1, most=1024, integer=True)
        own = width if n_kernels is None else n_kernels
        check_number("mixer.n_kernels", own, least=1, most=width, integer=True)
        if width % own:
            raise InputError(f"mixer.n_kernels={own} must divide the width {width}")
        self.copies, self.state_size = width // own, state_dim
        self.a, self.b = (nn.Parameter(torch.randn(own, state_dim)) for _ in range(2))
        self.c = nn.Parameter(torch.randn(readouts, own, state_dim))

    def maps(self) -> tuple[Tensor, Tensor, Tensor]:
        """The normalised a and b (K, S), and c (R, K, S), in at least float32."""
        dtype = wide(self.a.dtype)
        a, b, c = (vector.to(dtype) for vector in (self.a, self.b, self.c))
        return a / a.abs().sum(-1, keepdim=True).clamp(min=LEAST), b, c

    def kernels(self, length: int) -> Tensor:
        return companion.kernel(*self.maps(), length).repeat_interleave(self.copies, dim=1)

    def run(self, u: Tensor, readout: int) -> Tensor:
        a, b, c = self.maps()
        a, b, c = (vector.repeat_interleave(self.copies, dim=0) for vector in (a, b, c[readout]))
        return companion.run(a, b, c, u)


@register(
    MixerCard(
        name="spacetime",
        family="statespace",
        title="Companion state spaces (SpaceTime)",
        source="arXiv 2303.09489; HazyResearch/spacetime model/ssm/companion.py at 7b7398c",
        year=2023,
        equation="x_t = A x_{t-1} + b u_t, y_t = c · x_t + D u_t, A a companion matrix, both ways along orders",
        code="HazyResearch/spacetime at 7b7398c: outputs and gradients within 1e-15 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=True,
        fp32_core=True,
        state_param="state_dim",
        backends=("fft", "reference"),
        shells={"published": BARE},
    )
)
class SpaceTime(SequenceCore):
    """The mean of companion state spaces of the field u along orders and against them.

    Args:
        site: where the core stands.
        backend: `fft`, `reference` (the recurrence, token by token), or `auto`.
        orders: the orders (`operators.scan.orders`), each with a state space of its own.
        bidirectional: whether each order is read from its end as well, with a readout c of its own, from the next token
            on. False, with one order, is the causal layer.
        state_dim: states S per channel and order: how far the feedback reaches.
        n_kernels: groups of neighbouring channels with the same kernel; None for one each.

    Raises:
        InputError: an unknown order, or a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        orders: Sequence[str] = ("row",),
        bidirectional: bool = True,
        state_dim: int = 64,
        n_kernels: int | None = None,
    ) -> None:
        def make(readouts: int) -> CompanionSystem:
            return CompanionSystem(site.width, readouts, state_dim=state_dim, n_kernels=n_kernels)

        super().__init__(site, backend=backend, orders=orders, bidirectional=bidirectional, make=make)
