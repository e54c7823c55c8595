"""Hydra, the quasiseparable mixer (arXiv 2407.09941): SSD from both ends along an order, each shifted by one token.

For each head, with v the value field u, B, C shared by all heads, and a_t = exp(−exp(A_log) dt_t) in each direction

    f_t = a_t f_{t-1} + dt_t B_t v_tᵀ,   g_t = a'_t g_{t+1} + dt'_t B'_t v_tᵀ
    y_t = f_{t-1}ᵀ C_{t-1} + g_{t+1}ᵀ C'_{t+1} + (D + W_D v_t) v_t

Both shifts come after the reading, hence C of the neighbour. As a matrix over tokens, every block strictly below or
above the diagonal has rank S at most, and the diagonal is free.

In the `published` shell this is the module `Hydra`, compared with `ssd_minimal.py` of state-spaces/mamba in place of
the authors' kernels, and an eps of 1e-6 in its norm (5 × 7 tokens).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import InputError, check_number
from operators.initialisation import linear_init
from operators.linear.decayed import decayed, initial_macs, scalar_macs
from operators.linear.fla import Problem
from operators.mixers.duality.vssd import check_convolution
from operators.mixers.heads import check_heads, default_heads
from operators.mixers.ordered import Terms, wide_linear
from operators.mixers.recurrent import RecurrentCore
from operators.mixers.scan.branch import step_bias_init
from operators.registry import register
from operators.scan import orders
from operators.shell.spec import ShellSpec
from operators.states.initial import InitialStates


@register(
    MixerCard(
        name="hydra",
        family="duality",
        title="Quasiseparable mixer (Hydra)",
        source="arXiv 2407.09941; goombalab/hydra hydra/modules/hydra.py at 55bef74",
        year=2024,
        equation="y_t = SSD(v)_{t-1} + rev SSD(rev v)_{t+1} + (D + W_D v_t) v_t",
        code="goombalab/hydra at 55bef74: outputs and gradients within 2e-15 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="state_dim",
        backends=("fla", "chunked", "reference"),
        shells={"published": ShellSpec(expand=2)},
        preset_params={"published": {"conv": 7}},
        published=(Published("Hydra ViT-B", "ImageNet-1k top-1 %, 224 px", 81.0, "LIONS-EPFL/LION README.md"),),
    )
)
class Hydra(RecurrentCore):
    """A quasiseparable matrix over the tokens of an order, made of x, times the field u.

    Initialised as the released module: A = −1, steps as in Mamba, D = 1; A_log and the steps' bias serve both
    directions.

    Args:
        site: where the core stands.
        backend: `fla` (CUDA only), `chunked`, `reference` (a loop over tokens), or `auto`: fla where it serves the
            call, `chunked` otherwise.
        order: the order (`operators.scan.orders`).
        state_dim: states S per channel and direction.
        heads: number of heads; None for heads about 64 wide.
        conv: width of a convolution with SiLU of u, B and C along the order, as far ahead as behind; 0 for none; None
            for 7 in the published shell and none in any other.

    Raises:
        InputError: an unknown order, heads that do not divide the width, an even convolution, or a number out of range.
    """

    no_weight_decay = frozenset({"A_log", "D", "step_bias"})

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        order: str = "row",
        state_dim: int = 64,
        heads: int | None = None,
        conv: int | None = None,
    ) -> None:
        super().__init__(site, backend=backend)
        self.order, backwards = orders.base(str(order))
        if backwards:
            raise InputError(f"mixer.order={order!r} must be an order without {orders.REVERSED!r}: both ways are read")
        check_number("mixer.state_dim", state_dim, least=1, most=1024, integer=True)
        conv = 0 if conv is None else conv
        check_convolution("mixer.conv", conv)
        self.heads = default_heads(site.width) if heads is None else heads
        check_heads(self.heads, site.width)
        self.value_heads = self.heads
        self.state_dim = state_dim
        self.A_log = nn.Parameter(torch.zeros(self.heads))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.step_bias = nn.Parameter(torch.empty(self.heads))
        step_bias_init(self.step_bias)
        self.project = nn.Linear(site.dim, 4 * state_dim + 2 * self.heads, bias=False)
        self.diagonal = nn.Linear(site.width, self.heads, bias=False)
        for linear in (self.project, self.diagonal):
            linear_init(linear)
        self.initial = InitialStates(self.heads, state_dim, site.width // self.heads, sequences=2)
        channels = site.width + 4 * state_dim
        self.conv = nn.Conv1d(channels, channels, conv, padding="same", groups=channels) if conv else None

    @property
    def problem(self) -> Problem:
        return Problem("decayed", "head", self.heads, self.state_dim, self.site.width // self.heads)

    def terms(self, u: Tensor, x: Tensor) -> tuple[Tensor, Terms, Terms]:
        """Values (B, N, heads, V) along the order and both recurrences, in at least float32."""
        v, x = orders.gather(u, self.order), orders.gather(x, self.order)
        maps, steps = wide_linear(x, self.project).split([4 * self.state_dim, 2 * self.heads], dim=-1)
        v = v.to(maps.dtype)
        if self.conv is not None:
            together = F.silu(self.conv(torch.cat([v, maps], -1).mT.to(self.conv.weight.dtype)).mT).to(maps.dtype)
            v, maps = together.split([self.site.width, 4 * self.state_dim], dim=-1)
        v = v.unflatten(-1, (self.heads, -1))
        steps = F.softplus(steps.unflatten(-1, (2, self.heads)) + self.step_bias.to(steps.dtype))
        B, C, B_back, C_back = maps[:, :, None].chunk(4, dim=-1)
        rate = self.A_log.to(steps.dtype).exp()
        forward, backward = (
            Terms(read, write, step[..., None] * v, -rate * step)
            for read, write, step in zip((C, C_back), (B, B_back), steps.unbind(2), strict=True)
        )
        return v, forward, backward

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D)."""
        v, ahead, back = self.terms(u, x)
        dtype = self.note(x)
        starts = [self.initial(len(x), sequence) for sequence in range(2)]
        before = decayed(*ahead, backend=self.requested_backend, dtype=dtype, initial=starts[0])
        behind = decayed(*back, reverse=True, backend=self.requested_backend, dtype=dtype, initial=starts[1])
        gain = self.D.to(v.dtype) + wide_linear(v.flatten(2), self.diagonal)
        y = gain[..., None] * v
        y = y + F.pad(before[:, :-1], (0, 0, 0, 0, 1, 0)) + F.pad(behind[:, 1:], (0, 0, 0, 0, 0, 1))
        return orders.scatter(y.flatten(2).to(u.dtype), self.order, *u.shape[1:3])

    def core_cost(self, height: int, width: int) -> Cost:
        """Per token C (4 S + 2 heads) + D heads for the maps and D + 4 S for each tap; the chunks' products, twice."""
        tokens, inner = height * width, self.site.width
        taps = 0 if self.conv is None else self.conv.weight.numel()
        each = scalar_macs(tokens, self.heads, 1, self.state_dim, inner // self.heads)
        each += initial_macs(tokens, *self.initial.shape) if self.initial.learned else 0
        return Cost(
            projection_macs=tokens * (self.project.weight.numel() + self.diagonal.weight.numel()),
            mixing_macs=tokens * taps + 2 * each,
            state_elements=2 * self.state_dim * inner,
        )

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`decay` (B, 2, heads, H, W), the decays a forwards and backwards."""
        decays = torch.stack([terms.log_decay.exp() for terms in self.terms(u, x)[1:]], dim=2)
        grid = orders.scatter(decays.flatten(2), self.order, *u.shape[1:3])
        return {"decay": grid.unflatten(-1, (2, self.heads)).movedim((1, 2), (3, 4))}
