"""The mixer `s4`: state spaces of HiPPO, diagonal plus a matrix of rank one, along orders of the grid.

For each channel, with S complex states, each of which stands for itself and its conjugate (arXiv 2111.00396)

    x' = (Λ − P P*) x + B u,   y = 2 Re C x + D u,   Λ = −exp(A_log) + i A_imag,   Δ = exp(log_step)

by the bilinear rule (`operators.lti.low_rank`). It starts from HiPPO's LegS, to which it is unitarily equivalent. As in
the released layer, C (1 − Ā^L) is learned in place of C, where L is the number of tokens of the nominal grid. A kernel
for fewer tokens is cut off; one for more follows exactly by doubling L, at the price of products of dense matrices.

Not taken over: there the imaginary part of B is cut at ±2 at the start, in other phases of the eigenvectors.

The published layer is this core, GELU, a map to 2C channels and GLU, which no switches of the shell say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.errors import InputError, check_number
from operators.lti import hippo, low_rank
from operators.mixers.statespace.s4d import check_steps
from operators.mixers.statespace.sequence import SequenceCore, System
from operators.precision import exact, wide
from operators.registry import register

LENGTH = 256
"""Tokens for which C (1 − Ā^L) stands without a nominal grid."""


class LowRankSystem(System):
    """A system of HiPPO for each channel, with R readouts.

    Its buffer `length` goes with the weights: it says for how many tokens they stand.

    Args:
        width: channels D.
        readouts: how many readouts R.
        length: tokens L for which the readouts are learned.
        state_dim: complex states S.
        n_ssm: channels share so many A, B and P, in turn; None for one each.
        steps: least and greatest step at the start, spread evenly in logarithm.
    """

    no_weight_decay = ("A_log", "A_imag", "P", "B", "log_step")
    length: Tensor

    def __init__(
        self,
        width: int,
        readouts: int,
        *,
        length: int,
        state_dim: int,
        n_ssm: int | None,
        steps: Sequence[float],
    ) -> None:
        super().__init__()
        check_number("mixer.state_dim", state_dim, least=1, most=1024, integer=True)
        own = width if n_ssm is None else n_ssm
        check_number("mixer.n_ssm", own, least=1, most=width, integer=True)
        if width % own:
            raise InputError(f"mixer.n_ssm={own} must divide the width {width}")
        self.width, self.state_size, self.tokens = width, 2 * state_dim, length
        self.register_buffer("length", torch.tensor(length))
        self.register_load_state_dict_post_hook(_read_length)
        self.log_step = nn.Parameter(torch.empty(width).uniform_(*map(math.log, check_steps(steps))))
        self.A_log, self.A_imag = (nn.Parameter(torch.empty(own, state_dim)) for _ in range(2))
        self.P, self.B = (nn.Parameter(torch.zeros(own, state_dim, 2)) for _ in range(2))
        normal = hippo.normal_legs(state_dim)
        with torch.no_grad():
            self.A_log.fill_(math.log(0.5))
            self.A_imag.copy_(normal.frequency)
            self.B[..., 0] = normal.weight.to(self.B)
            self.P[..., 0] = normal.weight.to(self.P) / math.sqrt(2)
            drawn = torch.randn(readouts, width, state_dim, 2) / math.sqrt(2)
            self.C = nn.Parameter(low_rank.attuned(self.system(drawn.dtype), drawn, length))

    def system(self, dtype: torch.dtype) -> low_rank.LowRank:
        """The continuous system of every channel, in that type."""
        copies = self.width // len(self.A_log)
        decay, frequency = self.A_log.to(dtype).exp(), self.A_imag.to(dtype)
        P, B = (vector.to(dtype).repeat(copies, 1, 1) for vector in (self.P, self.B))
        step = self.log_step.to(dtype).exp()[:, None]
        return low_rank.LowRank(decay.repeat(copies, 1), frequency.repeat(copies, 1), P, B, step)

    def kernels(self, length: int) -> Tensor:
        dtype = exact(self.C)  # in float32 the gradient of the steps has an error of 1e-5
        system = self.system(dtype)
        readout, tokens = low_rank.lengthened(system, self.C.to(dtype), self.tokens, length)
        return low_rank.kernel(system, readout, tokens)[..., :length].to(wide(self.C.dtype))

    def run(self, u: Tensor, readout: int) -> Tensor:
        """As of `System`; in float64, since C from C (1 − Ā^L) loses digits."""
        system = self.system(torch.float64)
        C = low_rank.released(system, self.C.double(), self.tokens)
        return low_rank.run(system, C[readout], u.double()).to(u.dtype)


def _read_length(system: nn.Module, keys: object) -> None:
    """Keep the length of a state dict that was loaded as a plain number too."""
    assert isinstance(system, LowRankSystem)
    if not system.length.is_meta:
        system.tokens = int(system.length)


@register(
    MixerCard(
        name="s4",
        family="statespace",
        title="Structured state spaces (S4)",
        source="arXiv 2111.00396; state-spaces/s4 models/s4/s4.py at e757cef",
        year=2022,
        equation="x' = (Λ − P P*) x + B u, y_t = 2 Re C x_t + D u_t, bilinear rule, both ways along orders",
        code="state-spaces/s4 at e757cef, s4.py: outputs and gradients within 4e-14 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=True,
        fp32_core=True,
        state_param="state_dim",
        backends=("fft", "reference"),
        published=(Published("S4", "sequential CIFAR-10 accuracy %", 91.0, "arXiv 2111.00396, abstract"),),
    )
)
class S4(SequenceCore):
    """The mean of state spaces of HiPPO of the field u along orders and against them.

    Args:
        site: where the core stands; the number of tokens of its grid is L.
        backend: `fft`, `reference` (the recurrence with dense matrices, token by token), or `auto`.
        orders: the orders (`operators.scan.orders`), each with a state space of its own.
        bidirectional: whether each order is read from its end as well, with a readout C of its own, from the next token
            on. False, with one order, is the causal layer.
        state_dim: complex states S per channel and order; half of the paper's N, which counts conjugates.
        n_ssm: channels share so many A, B and P, in turn; None for one each.
        steps: least and greatest step Δ at the start.

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
        state_dim: int = 32,
        n_ssm: int | None = None,
        steps: Sequence[float] = (1e-3, 1e-1),
    ) -> None:
        length = LENGTH if site.grid is None else math.prod(site.grid)

        def make(readouts: int) -> LowRankSystem:
            return LowRankSystem(site.width, readouts, length=length, state_dim=state_dim, n_ssm=n_ssm, steps=steps)

        super().__init__(site, backend=backend, orders=orders, bidirectional=bidirectional, make=make)
