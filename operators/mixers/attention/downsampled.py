"""Attention on downsampled tokens of U-DiT: every f-th token attends to its like (arXiv 2405.02730).

The grid's tokens fall into f² classes by their row and column modulo f. For each head of width d, in each class by
itself, with z = x + K ⋆ x, q, k = W z + b, v = u, rotations R_i and a learned number l

    y_i = Σ_j softmax_j(e^min(l, log 100) cos(R_i q_i, R_j k_j)) v_j,   cos(a, b) = a · b / |a| |b|

K has a kernel × kernel filter for each channel, zeros beyond the border. R_i turns by row and column within the class,
at 10000^(−t / (d/4)) a token, t = 0 … d/4 − 1. Where f does not divide a side, some classes have a line less.

In the `published` shell values are of the convolved input as well, and the residual x is the filters' centre. This is
`DownSample_Attn` of YuchuanTian/U-DiT at 7fcce5e (`udit_models.py`) with copied filters: there q, k and v share one
convolution, here q and k have one and v, in the shell, another. What was compared is on the card.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Site
from operators.cost import Cost
from operators.errors import check_choice, check_number
from operators.mixers.controls.controls import check_odd
from operators.mixers.positions import axial_angles, turn
from operators.mixers.queries import QueryKeyCore, check_rotation
from operators.registry import register
from operators.shell.spec import ShellSpec

BASE = 10000.0
START, LARGEST = math.log(10), 4.6052
"""Of the logarithm l that scales cosines: where it starts, and what it never exceeds (Swin V2, arXiv 2111.09883)."""


@register(
    MixerCard(
        name="udit",
        family="attention",
        title="Attention on downsampled tokens (U-DiT)",
        source="arXiv 2405.02730, section 3; YuchuanTian/U-DiT udit_models.py at 7fcce5e",
        year=2024,
        equation="y_i = Σ_j softmax_j(e^l cos(R_i q_i, R_j k_j)) v_j, j like i modulo f, q, k = W (x + K ⋆ x)",
        code="YuchuanTian/U-DiT at 7fcce5e: outputs and input gradients within 1e-15 (relative RMS, float64, angles in "
        "float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        backends=("torch",),
        shells={"published": ShellSpec(gate="none", norm="none", bias=True, conv=5, conv_first=True)},
    )
)
class DownsampledAttention(QueryKeyCore):
    """Cosine attention among the tokens whose rows and columns are alike modulo a factor.

    Args:
        site: where the core stands.
        backend: `torch` or `auto`.
        heads: number of heads; None for `default_heads`.
        factor: f; 1 for attention among all tokens.
        kernel: side of the filters in front of q and k, odd.
        rope: rotary positions; needs a head width divisible by 4.

    Raises:
        InputError: heads that do not divide the width, or a value out of range.
    """

    no_weight_decay = frozenset({"scale"})

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        heads: int | None = None,
        factor: int = 2,
        kernel: int = 5,
        rope: bool = True,
    ) -> None:
        super().__init__(site, backend=backend, heads=heads)
        check_number("mixer.factor", factor, least=1, most=64, integer=True)
        check_odd("mixer.kernel", kernel, least=1)
        self.factor = factor
        self.rope = check_choice("mixer.rope", rope, (True, False))
        if rope:
            check_rotation("a head width", self.head_width, 4)
        self.conv = nn.Conv2d(site.dim, site.dim, kernel, padding=kernel // 2, groups=site.dim)
        self.scale = nn.Parameter(torch.full((self.heads,), START))

    def queries_keys(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps q and k (B, heads, N, d) of the convolved input, in at least float32."""
        return super().queries_keys(u, x + self.conv(x.movedim(-1, 1)).movedim(1, -1))

    def _sides(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of a class."""
        return -(-height // self.factor), -(-width // self.factor)

    def _classes(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens by class, (B, heads, f², M, d), of (B, heads, N, d); zeros where a class has a line less."""
        (rows, columns), step = self._sides(*grid), self.factor
        field = tokens.unflatten(2, grid)
        below, right = rows * step - grid[0], columns * step - grid[1]
        if below or right:
            field = F.pad(field, (0, 0, 0, right, 0, below))
        split = field.unflatten(3, (columns, step)).unflatten(2, (rows, step))
        return split.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5).flatten(2, 3)

    def _joined(self, classes: Tensor, grid: tuple[int, int]) -> Tensor:
        """The other way round."""
        step = self.factor
        split = classes.unflatten(3, self._sides(*grid)).unflatten(2, (step, step)).permute(0, 1, 4, 2, 5, 3, 6)
        return split.flatten(4, 5).flatten(2, 3)[:, :, : grid[0], : grid[1]].flatten(2, 3)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]) -> Tensor:
        q, k = (F.normalize(self._classes(part, grid), dim=-1) for part in (q, k))
        if self.rope:
            share = self.head_width // 4
            frequency = BASE ** (-torch.arange(share, device=q.device, dtype=q.dtype) / share)
            angles = axial_angles(*self._sides(*grid), frequency=frequency)
            q, k = turn(q, angles), turn(k, angles)
        scale = self.scale.to(q.dtype).clamp(max=LARGEST).exp()
        scores = (q * scale[:, None, None, None]) @ k.mT
        if any(side % self.factor for side in grid):
            there = self._classes(torch.ones(1, 1, grid[0] * grid[1], 1, device=q.device), grid)
            scores = scores.masked_fill(there.mT == 0, -torch.inf)
        return self._joined(scores.softmax(-1).to(v.dtype) @ self._classes(v, grid), grid)

    def mixing_map(self, q: Tensor, k: Tensor, grid: tuple[int, int]) -> Tensor:
        tokens = grid[0] * grid[1]
        return self.mix(q, k, torch.eye(tokens, device=q.device, dtype=q.dtype).expand(*q.shape[:2], -1, -1), grid)

    def core_cost(self, height: int, width: int) -> Cost:
        """The convolution; maps q and k, 2 N C D; in each class of M tokens 2 M² D; keys and values, 2 N D."""
        tokens, (rows, columns) = height * width, self._sides(height, width)
        attended = self.factor**2 * (rows * columns) ** 2
        return Cost(
            projection_macs=tokens * self.qk.weight.numel(),
            mixing_macs=tokens * self.conv.weight.numel() + 2 * attended * self.site.width,
            state_elements=2 * tokens * self.site.width,
        )
