"""V2M (arXiv 2410.10382): a selective scan along each row, and one of its outputs down each column.

The first scan has an input map of its tokens and the output map 1, the second one the input map 1 and an output map of
its tokens: together they stand for a two-dimensional state-space model. Four orientations share all maps.

The layer of the released code (`Mamba` with `bimamba_type="2d"` of `mamba-1p1p1/mamba_ssm/modules/mamba_simple.py` at
commit 3d30905 of wangck20/V2M) multiplies each of the two scans by the gate, which no switch of the shell says. It also
puts outputs back on other tokens than their own: those of two orientations on the transposed image, those of the other
two on mirror images. Here each stands where it belongs.

With copied weights, outputs and gradients agree to 1e-15 (relative RMS, float64, 1 × 1 to 5 × 5 tokens, convolutions
of 4) with that layer without gates, its outputs put in place, and its CUDA kernel replaced by a loop over tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators import scan
from operators.card import MixerCard, Site
from operators.cost import Cost
from operators.errors import check_number
from operators.initialisation import linear_init
from operators.mixer import Core
from operators.mixers.recurrence2d.branch import Origin, check_sizes, check_starts, falling, s4d_real, step_maps
from operators.mixers.scan.branch import causal_convolution
from operators.precision import full_precision, wide
from operators.registry import register

ORIENTATIONS: Mapping[str, Origin] = {
    "row": Origin(),
    "col": Origin(transposed=True),
    "row_r": Origin(right=True),
    "col_r": Origin(right=True, transposed=True),
}


class LinePass(nn.Module):
    """A selective scan of each line of v (B, M, N, D) along N, with one map of its tokens where S6 has two.

        v = SiLU(causal convolution of v)                       (only with `conv`)
        [d | M] = W v,   dt = softplus(W_dt d + b_dt)
        h_t = exp(dt_t A) h_{t−1} + dt_t B_t v_t,   y_t = C_t · h_t + D v_t,   A = −exp(A_log)

    Here (B, C) is (M, 1) where `writes`, and (1, M) where not. Initialised as in Mamba.

    Args:
        width: channels D.
        state_dim: states S per channel.
        rank: rank R of the step's map.
        conv: width of the convolution; 0 for none.
        writes: whether the map is B.
        backend: of `operators.scan.selective_scan`.
    """

    no_weight_decay = ("A_log", "D", "step.bias")

    def __init__(self, width: int, *, state_dim: int, rank: int, conv: int, writes: bool, backend: str) -> None:
        super().__init__()
        self.state_dim, self.rank, self.writes, self.backend = state_dim, rank, writes, backend
        self.conv = nn.Conv1d(width, width, conv, groups=width) if conv else None
        self.project = nn.Linear(width, rank + state_dim, bias=False)
        linear_init(self.project)
        (self.step,) = step_maps(width, rank, 1)
        self.A_log = s4d_real(width, state_dim)
        self.D = nn.Parameter(torch.ones(width))

    def forward(self, lines: Tensor, backwards: bool) -> Tensor:
        """Scanned lines (B, M, N, D), from their ends if `backwards`; at least in float32."""
        v = lines.flatten(0, 1)
        v = v if self.conv is None else causal_convolution(v, self.conv, backwards=backwards)
        v = v.to(wide(v.dtype))
        with full_precision(v):
            low_rank, made = F.linear(v, self.project.weight.to(v.dtype)).split([self.rank, self.state_dim], dim=-1)
            step = F.linear(low_rank, self.step.weight.to(v.dtype))
            B, C = (made, torch.ones_like(made)) if self.writes else (torch.ones_like(made), made)
        y = scan.selective_scan(
            v.mT, step.mT, falling(self.A_log), B.mT, C.mT, self.D,
            delta_bias=self.step.bias, delta_softplus=True, backend=self.backend, reverse=backwards,
        )  # fmt: skip
        assert isinstance(y, Tensor)
        return y.mT.unflatten(0, lines.shape[:2])

    def cost(self, tokens: int) -> Cost:
        """Per token D (R + S) + R D for the maps, 9 S D / 2 for the scan, D for each tap of the convolution."""
        width = len(self.D)
        taps = 0 if self.conv is None else self.conv.weight.shape[-1]
        return Cost(
            projection_macs=tokens * (self.project.weight.numel() + self.step.weight.numel()),
            mixing_macs=tokens * width * (9 * self.state_dim) // 2 + taps * tokens * width,
        )


@register(
    MixerCard(
        name="v2m",
        family="recurrence2d",
        title="V2M",
        source="arXiv 2410.10382; wangck20/V2M mamba-1p1p1/mamba_ssm/modules/mamba_simple.py at 3d30905",
        year=2024,
        equation="z = S6 of u along rows, C = 1; y = S6 of z down columns, B = 1; half the sum of four orientations",
        code="wangck20/V2M at 3d30905: outputs and gradients within 1e-15 (relative RMS, float64), without its gates, "
        "with its outputs put in place, a loop over tokens instead of its CUDA kernel",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="state_dim",
        backends=("mamba_ssm", "chunked", "cpu", "reference"),
        exempt={
            "extreme_inputs": "each of the two scans is of third degree in what it reads, and the ninth power of a "
            "token of 1e6 is beyond float32"
        },
    )
)
class V2M(Core):
    """Half the sum of a pair of passes over the field u, along lines and across them, in several orientations.

    Args:
        site: where the core stands.
        backend: one of `operators.scan.BACKENDS`, `cuda` apart, or `auto`.
        orders: `row`: along rows from the left, then down columns; `col`: down columns, then along rows from the left;
            `row_r` and `col_r`: the same with the first pass backwards.
        state_dim: states S per channel of each pass.
        rank: rank of the steps' maps; None for a sixteenth of the mixer's width C, rounded up.
        conv: width of a causal convolution with SiLU in front of each scan, along its lines; 0 for none. The authors'
            is 4.

    Raises:
        InputError: an unknown order or none at all, or a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        orders: Sequence[str] = ("row", "col", "row_r", "col_r"),
        state_dim: int = 16,
        rank: int | None = None,
        conv: int = 0,
    ) -> None:
        super().__init__(site, backend=backend)
        check_sizes(state_dim, rank)
        check_number("mixer.conv", conv, least=0, most=64, integer=True)
        rank = math.ceil(site.dim / 16) if rank is None else rank
        self.starts = check_starts("mixer.orders", orders, ORIENTATIONS)
        self.along, self.across = (
            LinePass(site.width, state_dim=state_dim, rank=rank, conv=conv, writes=writes, backend=backend)
            for writes in (True, False)
        )
        self.no_weight_decay = frozenset(
            f"{line_pass}.{name}" for line_pass in ("along", "across") for name in LinePass.no_weight_decay
        )

    @classmethod
    def availability(cls) -> dict[str, str | None]:
        """For each backend None, or the reason why it cannot serve on this machine."""
        return scan.availability()

    @property
    def backend(self) -> str:
        """The scans' backend on the parameters' device."""
        if self.requested_backend != "auto":
            return self.requested_backend
        parameter = next(self.parameters())
        return scan.serving("auto", parameter.device, wide(parameter.dtype))

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D).

        Raises:
            InputError: the backend asked for cannot serve these tensors; says why.
        """
        first, *others = self.starts
        total = self._oriented(u, first)
        for start in others:
            total = total + self._oriented(u, start)
        return (total / 2).to(u.dtype)

    def _oriented(self, u: Tensor, start: Origin) -> Tensor:
        lines = u.transpose(1, 2) if start.transposed else u
        scanned = self.along(lines, start.right).transpose(1, 2)
        y: Tensor = self.across(scanned, start.bottom)
        return y if start.transposed else y.transpose(1, 2)

    def core_cost(self, height: int, width: int) -> Cost:
        """Both passes for each orientation; a state passes the shorter of a row and a column."""
        passes = self.along.cost(height * width) + self.across.cost(height * width)
        state = min(height, width) * self.along.A_log.numel()
        return sum((passes + Cost(state_elements=state) for _ in self.starts), Cost())

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`influence` (B, orientations, H, W): the derivative of the outputs at the grid's centre, all channels
        together, by each token, its absolute value averaged over channels.
        """
        row, column = u.shape[1] // 2, u.shape[2] // 2
        shown = []
        with torch.inference_mode(False), torch.enable_grad():
            field = u.detach().clone().requires_grad_()
            for start in self.starts:
                centre = self._oriented(field, start)[:, row, column].sum()
                (derivative,) = torch.autograd.grad(centre, field)
                shown.append(derivative.abs().mean(-1))
        return {"influence": torch.stack(shown, dim=1)}
