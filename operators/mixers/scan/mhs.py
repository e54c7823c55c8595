"""The multi-head scan of MHS-VM (arXiv 2406.05992): heads with patterns of their own, whose routes vote.

Compared with `MHSM` of `models/vmunet/mhsm.py` at commit be64b6f of PixDeep/MHS-VM. There is no published shell: around
this module the authors have the gated shell of VMamba (3 × 3 convolution, LayerNorm) without its last projection, which
no switch says; with an identity in its place their `VSSGate` is this mixer with `ShellSpec(conv=3, norm="layer")`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Site
from operators.cost import Cost
from operators.errors import InputError, check_choice, check_number
from operators.initialisation import linear_init
from operators.mixers.scan import FOURTH_DEGREE
from operators.mixers.scan.branch import Branch, ScanCore, seen_from
from operators.precision import wide
from operators.registry import register
from operators.scan import orders
from operators.shell.shell import EPS

PATTERNS: Mapping[str, tuple[str, str]] = {
    "snake": ("snake_row", "snake_col"),
    "diagonal": ("diag", "diag_mirror"),
    "spiral": ("spiral", "spiral_flip"),
    "raster": ("row", "col"),
}
"""The two routes of each pattern, both walked both ways; C, X, S and Z in the paper."""
ROUTES = 4
FLOOR = 1e-5
"""What the authors add to the mean that variation is measured by."""


def variation(routes: Tensor) -> Tensor:
    """std(y) / (mean(y − min y) + 1e-5) over the first dimension of y, which is at least 2.

    In units of the range: the square of what a scan makes of a large input would overflow in float32.
    """
    if not routes.numel():
        return routes.sum(0)
    above = routes - routes.amin(0)
    unit = above.detach().amax(0).clamp(min=torch.finfo(above.dtype).tiny)
    return (above / unit).std(0) * unit / (above.mean(0) + FLOOR)


@register(
    MixerCard(
        name="mhs",
        family="scan",
        title="Multi-head scan with route attention (MHS-VM)",
        source="arXiv 2406.05992; PixDeep/MHS-VM models/vmunet/mhsm.py at be64b6f",
        year=2024,
        equation="y = W_y LN([Σ_i y_hi ⊙ ReLU(cv_i(y_hi) − t)]_h), y_hi = S6_hi(W_h u) along the four routes of head h",
        code="PixDeep/MHS-VM at be64b6f: outputs and gradients within 8e-15 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="state_dim",
        backends=("mamba_ssm", "chunked", "cpu", "reference"),
        exempt={"extreme_inputs": FOURTH_DEGREE},
    )
)
class MultiHeadScan(ScanCore):
    """Heads that project the field u into subspaces, scan each along four routes, and keep what the routes differ in.

    The sum over routes is multiplied by how much the coefficient of variation over routes exceeds a threshold. Heads
    lie side by side, are normalised and projected.

    Args:
        site: where the core stands.
        backend: one of `operators.scan.BACKENDS`, `cuda` apart, or `auto`.
        patterns: those of the heads, out of `snake`, `diagonal`, `spiral` and `raster`.
        threshold: of the variation, t.
        project: whether a LayerNorm and a projection follow the heads; without, their number must divide the width.
        state_dim: states S per channel.
        rank: rank of the steps' maps; None for a sixteenth of a head's width, rounded up.

    Raises:
        InputError: an unknown pattern or none at all, more heads than channels, or a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        patterns: Sequence[str] = ("snake", "diagonal", "spiral", "raster"),
        threshold: float = 0.0,
        project: bool = True,
        state_dim: int = 16,
        rank: int | None = None,
    ) -> None:
        if isinstance(patterns, str) or not isinstance(patterns, Sequence) or not patterns:
            raise InputError(f"mixer.patterns={patterns!r} must be a list of patterns, such as [snake, raster]")
        for pattern in patterns:
            check_choice("pattern in mixer.patterns", pattern, PATTERNS)
        check_number("mixer.threshold", threshold, least=0)
        check_choice("mixer.project", project, (True, False))
        heads, width = len(patterns), site.width
        if heads > width or (width % heads and not project):
            allowed = "at most as many as" if project else "a divisor of"
            raise InputError(f"mixer.patterns has {heads} heads, which must be {allowed} the width {width}")
        share = width // heads
        super().__init__(
            site,
            backend=backend,
            along=[name + end for pattern in patterns for name in PATTERNS[pattern] for end in ("", orders.REVERSED)],
            state_dim=state_dim,
            rank=math.ceil(share / 16) if rank is None else rank,
            channels=share,
        )
        self.heads, self.threshold = heads, threshold
        self.subspaces = nn.Linear(width, heads * share, bias=False)
        self.norm = nn.LayerNorm(heads * share, eps=EPS) if project else None
        self.project = nn.Linear(heads * share, width, bias=False) if project else None
        for linear in (self.subspaces, self.project):
            if linear is not None:
                linear_init(linear)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D).

        Raises:
            InputError: the backend asked for cannot serve these tensors; says why.
        """
        routes = self.routes(u)
        fused = [self.fused(torch.stack(routes[i : i + ROUTES])) for i in range(0, len(routes), ROUTES)]
        y = torch.cat(fused, dim=-1)
        if self.norm is None or self.project is None:
            return y
        return self.project(self.norm(y.to(self.norm.weight.dtype)))

    def routes(self, u: Tensor) -> list[Tensor]:
        """What each route of each head gives, (B, H, W, D / heads)."""
        ways = orders.Ways(self.along[::2], u.shape[1], u.shape[2], u.device)
        walks, found = self._walks(u), []
        for (v, name, ahead), (_, _, back) in zip(walks[::2], walks[1::2], strict=True):
            sequence = ways.gather(v, name)
            found += [ways.scatter(branch(sequence), name) for branch in (ahead, back)]
        return found

    def fused(self, routes: Tensor) -> Tensor:
        """Σ_i y_i ReLU(cv(y) − t) of what a head's routes give, y (routes, B, H, W, D / heads)."""
        return routes.sum(0) * F.relu(variation(routes) - self.threshold)

    def _walks(self, u: Tensor) -> list[tuple[Tensor, str, Branch]]:
        """For each route of each head the subspace (B, H, W, D / heads) that it scans, its order and its branch.

        At least in float32: half precision would round off what the outputs of the routes differ in.
        """
        v = self.subspaces(u)
        parts = [part for part in v.to(wide(v.dtype)).chunk(self.heads, dim=-1) for _ in range(ROUTES)]
        return list(zip(parts, self.along, self._branches(), strict=True))

    def core_cost(self, height: int, width: int) -> Cost:
        """The branches' costs (`Branch.cost`) and the projections of the heads."""
        maps = [linear.weight.numel() for linear in (self.subspaces, self.project) if linear is not None]
        return super().core_cost(height, width) + Cost(projection_macs=height * width * sum(maps))

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`step` and `influence` (B, routes, H, W), each route's step size averaged over channels and how much each

        token counts in it at the grid's centre (`Branch.influence`); `variation` (B, heads, H, W), that of the routes
        averaged over channels.
        """
        walks = self._walks(u)
        steps, influences = zip(*(seen_from(*walk) for walk in walks), strict=True)
        routes = torch.stack(self.routes(u))
        each = [variation(routes[i : i + ROUTES]).mean(-1) for i in range(0, len(routes), ROUTES)]
        return {
            "step": torch.stack(steps, dim=1),
            "influence": torch.stack(influences, dim=1),
            "variation": torch.stack(each, dim=1),
        }
