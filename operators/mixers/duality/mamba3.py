"""Mamba-3 (state-spaces/mamba `modules/mamba3.py`) along orders of a grid, in its form with one input and one output.

Along each order, for each head, with v the value field u and all else made of x

    Δ_t = softplus(·),   α_t = exp(Δ_t A_t),   A_t = −max(f(·), 1e-4),   f(z) = 1 + z (z ≥ 0), 1 / (1 − z) (z < 0)
    S_t = α_t S_{t-1} + (1 − λ_t) Δ_t α_t B_{t-1} v_{t-1}ᵀ + λ_t Δ_t B_t v_tᵀ,   λ = σ(·)           (trapezoidal rule)
    y_t = S_tᵀ C_t + D v_t

B and C are normalised (RMS, shared by all heads), then get a learned bias per head, and pairs of their channels turn by
θ_t = Δ_1 φ_1 + … + Δ_t φ_t, φ = π tanh(·): a rotation is what a complex A would add. The sum is computed as SSD with
weights λ_t Δ_t + (1 − λ_{t+1}) Δ_{t+1} of the tokens, less what each token would read of its successor's share.

There is no convolution. The output is the mean over the orders, each with maps of its own.

In the `published` shell, with `orders=[row]`, this is the module `Mamba3` without `is_mimo` and `is_outproj_norm`, with
the step-by-step reference of its own tests in place of the authors' kernels (5 × 7 tokens). There neighbouring channels
are a pair, here channels i and i + pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Site
from operators.cost import Cost
from operators.errors import check_choice, check_number
from operators.initialisation import linear_init
from operators.linear.choice import serving
from operators.linear.decayed import exact_sums, from_initial, scalar_decay, scalar_macs
from operators.linear.fla import Problem
from operators.mixers.heads import check_heads, default_heads
from operators.mixers.ordered import OrderedCore, Recurrence, Terms, wide_linear
from operators.mixers.positions import turn_together
from operators.mixers.scan.branch import check_orders, step_bias_init
from operators.precision import call_type
from operators.registry import register
from operators.scan import orders as scan_orders
from operators.shell.spec import ShellSpec

SLOWEST = 1e-4
"""Least rate −A that a token may set for a head, so that every state fades."""
EPS = 1e-5


class TrapezoidalBranch(Recurrence):
    """Mamba-3 on a sequence v (B, N, D), with all of its maps made from x (B, N, C).

    Args:
        site: where the core stands.
        state_dim: states S per channel.
        heads: number of heads.
        rotated: part of the states that turns.
        backwards: whether the sequence is read from its end.
        backend: of the recurrence.
    """

    no_weight_decay = ("D", "step_bias")

    def __init__(
        self, site: Site, *, state_dim: int, heads: int, rotated: float, backwards: bool, backend: str
    ) -> None:
        super().__init__(backwards=backwards, backend=backend)
        self.state_dim, self.heads, self.width = state_dim, heads, site.width
        self.pairs = int(state_dim * rotated) // 2
        self.D = nn.Parameter(torch.ones(heads))
        self.step_bias = nn.Parameter(torch.empty(heads))
        step_bias_init(self.step_bias)
        self.project = nn.Linear(site.dim, 2 * state_dim + 3 * heads + self.pairs, bias=False)
        linear_init(self.project)
        self.gain = nn.Parameter(torch.ones(2, state_dim))  # of B and C, like the bias
        self.bias = nn.Parameter(torch.ones(2, heads, state_dim))

    @property
    def problem(self) -> Problem:
        return Problem("decayed", "head", self.heads, self.state_dim, self.width // self.heads)

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """B and C (B, N, heads, S), steps Δ, log α and λ (B, N, heads), in at least float32."""
        sizes = [2 * self.state_dim, self.heads, self.heads, self.heads, self.pairs]
        shared, step, rate, blend, angles = wide_linear(x, self.project).split(sizes, dim=-1)
        step = F.softplus(step + self.step_bias.to(step.dtype))
        rate = (rate.clamp(min=0) + 1 / (1 - rate.clamp(max=0))).clamp(min=SLOWEST)
        shared = shared.unflatten(-1, (2, self.state_dim))
        normed = F.rms_norm(shared, shared.shape[-1:], eps=EPS) * self.gain.to(shared.dtype)
        # Each (B, N, heads, S).
        B, C = (t[:, :, None] + bias for t, bias in zip(normed.unbind(2), self.bias.to(shared.dtype), strict=True))
        if self.pairs:
            B, C = turn_together(self._sums(math.pi * angles.tanh()[:, :, None] * step[..., None]), B, C)
        return B, C, step, -rate * step, blend.sigmoid()

    def _sums(self, angles: Tensor) -> Tensor:
        """Angles θ (B, N, heads, pairs), summed up along the order in float64: over many tokens they grow large."""
        angles = angles.flip(1) if self.backwards else angles
        total = exact_sums(angles.movedim(1, -1)).movedim(-1, 1).remainder(2 * math.pi).to(angles.dtype).contiguous()
        return total.flip(1) if self.backwards else total

    def _successor(self, step: Tensor, blend: Tensor) -> Tensor:
        """(1 − λ) Δ of the token that is read next, (B, N, heads); zero after the last one."""
        share = (1 - blend) * step
        return F.pad(share[:, :-1], (0, 0, 1, 0)) if self.backwards else F.pad(share[:, 1:], (0, 0, 0, 1))

    def scaled(self, weight: Tensor, x: Tensor, token: int) -> Tensor:
        """The weights (B, N, H) of all tokens at `token`, times their shares of two steps, its own of one."""
        _, _, step, _, blend = self.maps(x)
        share = self._successor(step, blend)
        share[:, token] = 0
        return weight * (blend * step + share)

    def terms(self, v: Tensor, x: Tensor) -> Terms:
        """The recurrence as SSD: its output counts each token's own term with its successor's share."""
        B, C, step, log_decay, blend = self.maps(x)
        weight = blend * step + self._successor(step, blend)
        return Terms(C, B, weight[..., None] * v.to(B.dtype).unflatten(-1, (self.heads, -1)), log_decay)

    def forward(self, v: Tensor, x: Tensor) -> Tensor:
        """Mixed sequence (B, N, D), in at least float32."""
        B, C, step, log_decay, blend = self.maps(x)
        values = v.to(B.dtype).unflatten(-1, (self.heads, -1))
        mine, share = blend * step, self._successor(step, blend)
        weight = mine + share
        skip = self.D.to(share.dtype)[:, None] * values
        if serving(self.backend, self.problem, v.device, call_type(x)) != "chunked":
            y = self.product(Terms(C, B, weight[..., None] * values, log_decay), x)
            return (y + skip - (share * (C * B).sum(-1))[..., None] * values).flatten(2)
        own = mine / weight.clamp(min=torch.finfo(weight.dtype).tiny)
        decays = {"backward" if self.backwards else "forward": log_decay}
        y = scalar_decay(C, B, weight[..., None] * values, **decays, own=own) + skip
        initial = self.start(len(x))
        if initial is not None:
            y = y + from_initial(C, log_decay, initial, reverse=self.backwards)
        return y.flatten(2)

    def cost(self, tokens: int) -> Cost:
        """Per token C (2 S + 3 heads + pairs) for the maps; the chunks' products."""
        return Cost(
            projection_macs=tokens * self.project.weight.numel(),
            mixing_macs=scalar_macs(tokens, self.heads, self.heads, self.state_dim, self.width // self.heads),
            state_elements=self.state_dim * self.width,
        )


@register(
    MixerCard(
        name="mamba3",
        family="duality",
        title="Mamba-3",
        source="state-spaces/mamba mamba_ssm/modules/mamba3.py at e9594ce",
        year=2026,
        equation="S_t = α_t S_{t-1} + (1 − λ_t) Δ_t α_t B_{t-1} v_{t-1}ᵀ + λ_t Δ_t B_t v_tᵀ, y = Sᵀ C + D v; B, C turn",
        code="state-spaces/mamba at e9594ce: outputs and gradients within 2e-15 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="state_dim",
        backends=("fla", "chunked", "reference"),
        shells={"published": ShellSpec(expand=2, norm="none")},
    )
)
class Mamba3(OrderedCore):
    """The mean of Mamba-3 recurrences of the field u in several orders, each with maps of its own.

    Args:
        site: where the core stands.
        backend: `fla` (CUDA only), `chunked`, `reference` (a loop over tokens), or `auto`: fla where it serves the
            call, `chunked` otherwise.
        orders: the orders (`operators.scan.orders`); `[row]` is the causal mixer.
        state_dim: states S per channel.
        heads: number of heads; None for heads about 64 wide.
        rotated: part of the states that turns: 0 (none), 0.5 or 1.

    Raises:
        InputError: an unknown order or none at all, heads that do not divide the width, or a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        orders: Sequence[str] = ("row", "row_r"),
        state_dim: int = 128,
        heads: int | None = None,
        rotated: float = 0.5,
    ) -> None:
        check_number("mixer.state_dim", state_dim, least=1, most=1024, integer=True)
        check_choice("mixer.rotated", rotated, (0, 0.5, 1))
        heads = default_heads(site.width) if heads is None else heads
        check_heads(heads, site.width)
        along = check_orders("mixer.orders", orders)
        branches = [
            TrapezoidalBranch(
                site,
                state_dim=state_dim,
                heads=heads,
                rotated=rotated,
                backwards=scan_orders.base(name)[1],
                backend=backend,
            )
            for name in along
        ]
        super().__init__(site, backend=backend, along=along, branches=branches)
