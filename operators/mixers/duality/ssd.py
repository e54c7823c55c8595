"""SSD, the core of Mamba-2 (arXiv 2405.21060), along orders of a grid.

Along each order, for each head, with v the value field u and the maps B, C of x shared by all heads

    dt_t = softplus((W_dt x_t) + b_dt),   a_t = exp(−exp(A_log) dt_t)
    h_t = a_t h_{t-1} + dt_t B_t v_tᵀ,   y_t = h_tᵀ C_t + D v_t

which is masked attention, (L ∘ C Bᵀ)(dt V) + D V with L_ts = a_{s+1} ⋯ a_t. The output is the mean over the orders,
each with maps of its own, as in bidirectional Mamba.

With `orders=[row]` and copied weights the `published` shell makes this the whole layer `Mamba2Simple`: as many
parameters, outputs and all gradients within 2e-14 (relative RMS, float64, 5 × 15 tokens, with
`ssd_minimal.py` in place of the authors' kernels and our ε of 1e-6 in their norm, where they have 1e-5).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Site
from operators.cost import Cost
from operators.errors import check_number
from operators.initialisation import linear_init
from operators.linear.decayed import scalar_macs
from operators.linear.fla import Problem
from operators.mixers.heads import check_heads, default_heads
from operators.mixers.ordered import OrderedCore, Recurrence, Terms, wide_linear
from operators.mixers.scan.branch import causal_convolution, check_orders, step_bias_init
from operators.registry import register
from operators.scan import orders as scan_orders
from operators.shell.spec import ShellSpec

RATES = (1.0, 16.0)
"""Least and greatest rate −A at the start."""


class DualityBranch(Recurrence):
    """SSD on a sequence v (B, N, D), with its step, input and output maps made from x (B, N, C).

    Initialised as in `mamba2_simple.py` of state-spaces/mamba: −A uniform within `RATES`, steps as in Mamba, D = 1, the
    convolution as torch does.

    Args:
        site: where the core stands.
        state_dim: states S per channel.
        heads: number of heads.
        conv: width of the causal depthwise convolution of [v | B | C], followed by SiLU; 0 for none.
        backwards: whether the sequence is read from its end (the convolution too).
        backend: of the recurrence.
    """

    no_weight_decay: tuple[str, ...] = ("A_log", "D", "step_bias")

    def __init__(self, site: Site, *, state_dim: int, heads: int, conv: int, backwards: bool, backend: str) -> None:
        super().__init__(backwards=backwards, backend=backend)
        self.state_dim, self.heads, self.width = state_dim, heads, site.width
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(*RATES).log())
        self.D = nn.Parameter(torch.ones(heads))
        self.step_bias = nn.Parameter(torch.empty(heads))
        step_bias_init(self.step_bias)
        self.project = nn.Linear(site.dim, 2 * state_dim + heads, bias=False)
        linear_init(self.project)
        convolved = site.width + 2 * state_dim
        self.conv = nn.Conv1d(convolved, convolved, conv, groups=convolved) if conv else None

    @property
    def problem(self) -> Problem:
        return Problem("decayed", "head", self.heads, self.state_dim, self.width // self.heads)

    def maps(self, v: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Values (B, N, H, V), input and output maps (B, N, S) and steps (B, N, H), in at least float32."""
        B, C, step = wide_linear(x, self.project).split([self.state_dim, self.state_dim, self.heads], dim=-1)
        v = v.to(B.dtype)
        if self.conv is not None:
            together = causal_convolution(torch.cat([v, B, C], -1), self.conv, backwards=self.backwards)
            v, B, C = together.split([self.width, self.state_dim, self.state_dim], dim=-1)
        return v.unflatten(-1, (self.heads, -1)), B, C, F.softplus(step + self.step_bias.to(step.dtype))

    def terms(self, v: Tensor, x: Tensor) -> Terms:
        """The recurrence whose output, plus D v, is that of the branch."""
        values, B, C, step = self.maps(v, x)
        return self._terms(values, B, C, step)

    def _terms(self, values: Tensor, B: Tensor, C: Tensor, step: Tensor) -> Terms:
        rate = self.A_log.to(step.dtype).exp()
        return Terms(C[:, :, None], B[:, :, None], step[..., None] * values, -rate * step)

    def forward(self, v: Tensor, x: Tensor) -> Tensor:
        """Mixed sequence (B, N, D), in at least float32."""
        values, B, C, step = self.maps(v, x)
        y = self.product(self._terms(values, B, C, step), x) + self.D.to(step.dtype)[:, None] * values
        return y.flatten(2)

    def scaled(self, weight: Tensor, x: Tensor, token: int) -> Tensor:
        """The weights (B, N, H) of all tokens at `token`, times their steps."""
        steps = wide_linear(x, self.project)[..., 2 * self.state_dim :]
        return weight * F.softplus(steps + self.step_bias.to(steps.dtype))

    def cost(self, tokens: int) -> Cost:
        """Per token C (2 S + heads) for the maps and D + 2 S for each tap; the chunks' products."""
        taps = 0 if self.conv is None else self.conv.weight.numel()
        return Cost(
            projection_macs=tokens * self.project.weight.numel(),
            mixing_macs=tokens * taps + self.product_macs(tokens),
            state_elements=self.state_dim * self.width,
        )

    def product_macs(self, tokens: int) -> int:
        """MACs of the chunks' products."""
        return scalar_macs(tokens, self.heads, 1, self.state_dim, self.width // self.heads)


@register(
    MixerCard(
        name="ssd",
        family="duality",
        title="State-space duality (SSD, Mamba-2)",
        source="arXiv 2405.21060, section 6; state-spaces/mamba modules/mamba2_simple.py, ssd_minimal.py at e9594ce",
        year=2024,
        equation="h_t = a_t h_{t-1} + Δ_t B_t v_tᵀ, y_t = h_tᵀ C_t + D v_t, a_t = exp(Δ_t A); mean over orders",
        code="state-spaces/mamba at e9594ce, whole layer: outputs and gradients within 2e-14 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="state_dim",
        backends=("fla", "chunked", "reference"),
        shells={"published": ShellSpec(expand=2, norm_after_gate=True)},
        preset_params={"published": {"conv": 4}},
    )
)
class SSD(OrderedCore):
    """The mean of SSD recurrences of the field u in several orders, each with maps of its own.

    Args:
        site: where the core stands.
        backend: `fla` (CUDA only), `chunked`, `reference` (a loop over tokens), or `auto`: fla where it serves the
            call, `chunked` otherwise.
        orders: the orders (`operators.scan.orders`); `[row]` is the causal mixer of Mamba-2.
        state_dim: states S per channel.
        heads: number of heads; None for heads about 64 wide.
        conv: width of a causal convolution with SiLU of u, B and C along each order; 0 for none; None for 4 in the
            published shell and none in any other.

    Raises:
        InputError: an unknown order or none at all, heads that do not divide the width, or a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        orders: Sequence[str] = ("row", "row_r"),
        state_dim: int = 64,
        heads: int | None = None,
        conv: int | None = None,
    ) -> None:
        check_number("mixer.state_dim", state_dim, least=1, most=1024, integer=True)
        conv = 0 if conv is None else conv
        check_number("mixer.conv", conv, least=0, most=64, integer=True)
        heads = default_heads(site.width) if heads is None else heads
        check_heads(heads, site.width)
        along = check_orders("mixer.orders", orders)
        branches = [
            DualityBranch(
                site, state_dim=state_dim, heads=heads, conv=conv, backwards=scan_orders.base(name)[1], backend=backend
            )
            for name in along
        ]
        super().__init__(site, backend=backend, along=along, branches=branches)
