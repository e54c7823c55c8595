"""GSPN, the generalised spatial propagation network (arXiv 2501.12381): four scans of lines, across and down the image.

For each of four directions, with its lines l and the pixels i of a line, per channel

    h[l, i] = λ[l, i] u[l, i] + Σ_t P_t[l, i] h[l − 1, i + t],   t = −1, 0, 1
    P_t = σ(G_t) / (sum of σ(G) over the neighbours that exist)
    y[l, i] = c[l, i] h[l, i] + d[l, i] u[l, i]
    G, λ, c, d = W_up W_down u,  of `rank` numbers between

and the output is the sum of the four y, each times a learned number. Across the scan a line is a step of an upwind
scheme of convection and diffusion, with drift P₋₁ − P₊₁ and variance P₋₁ + P₊₁ − drift², whose numbers depend on the
token. Its weights are positive and sum to one: what a line hands on never exceeds what it has. But every line
adds its own: of a steady source λ u the state grows as the number of lines, whatever the weights.

The released module does not turn gates with the directions and does not turn outputs back, so that the four outputs of
a pixel belong to four pixels, and takes square images alone; here both are turned, and any image is served. It also
restarts its scans every few lines in most layers; here they run through.

No `published` shell: that module convolves between W_in and the core without an activation, and behind the norm it has
a global response norm over the whole image, what no other layer of the zoo has.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import check_number
from operators.mixer import Core
from operators.precision import full_precision, wide
from operators.registry import register
from operators.scan.lines import line_scan

_README = "whj363636/GSPN classification/README.md"
_TOP1 = "ImageNet-1k top-1 %, 224 px"
DIRECTIONS = 4
"""To the right, down, to the left, up."""
AXES = ((2, (0, 2)), (1, (1, 3)))
"""Along which axis of (B, H, W, D) lines follow one another, and the two directions that do so."""


def transitions(logits: Tensor) -> Tensor:
    """Weights P (3, L, K, n, D) of the three neighbours from their logits G, of the same shape.

    As a softmax of log σ(G), which is σ(G) over its sum without a division by zero.
    """
    ends = torch.zeros(3, logits.shape[3], 1, dtype=logits.dtype, device=logits.device)
    ends[0, 0] = ends[2, -1] = -math.inf
    return (F.logsigmoid(logits) + ends[:, None, None]).softmax(0)


@register(
    MixerCard(
        name="gspn",
        family="equations",
        title="Spatial propagation by lines (GSPN)",
        source="arXiv 2501.12381; whj363636/GSPN classification/models/gspn.py at c73887d",
        year=2025,
        equation="h_l = λ u_l + P h_(l−1), P tridiagonal, its rows summing to 1; y = Σ over 4 directions of c h + d u",
        code="whj363636/GSPN at c73887d, its recurrence and weights: outputs and gradients within 2e-15 (relative RMS)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        backends=("torch",),
        published=(
            Published("GSPN-T", _TOP1, 83.0, _README),
            Published("GSPN-S", _TOP1, 83.8, _README),
            Published("GSPN-B", _TOP1, 84.3, _README),
        ),
    )
)
class GSPN(Core):
    """Four scans of lines of the field u, with maps of u of their own.

    Args:
        site: where the core stands.
        backend: `torch` or `auto`.
        rank: numbers between W_down and W_up, from which a token's 24 numbers per channel are made (8 in the released
            tiny and base models, 16 in the small one).

    Raises:
        InputError: an impossible rank.
    """

    def __init__(self, site: Site, *, backend: str = "auto", rank: int = 8) -> None:
        super().__init__(site, backend=backend)
        check_number("mixer.rank", rank, least=1, integer=True)
        self.down = nn.Linear(site.width, rank, bias=False)
        self.up = nn.Linear(rank, 6 * DIRECTIONS * site.width, bias=False)
        self.merge = nn.Parameter(torch.empty(DIRECTIONS).uniform_(-0.5, 0.5))

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Field (B, H, W, D) of u (B, H, W, D)."""
        code, mixed = self.down(u), torch.zeros((), dtype=wide(u.dtype), device=u.device)
        for axis, directions in AXES:
            maps = self._maps(code, axis, directions)
            with full_precision(u):
                mixed = mixed + self._scanned(u.to(mixed.dtype), maps, axis)
        return mixed.to(u.dtype)

    def _maps(self, code: Tensor, axis: int, directions: tuple[int, int]) -> list[tuple[Tensor, ...]]:
        """Of each direction the logits (3, L, K, n, D) of P, and λ, c and d (L, K, n, D); lines lie along `axis`."""
        code = code.movedim(axis, 0)
        weights = self.up.weight.view(DIRECTIONS, 6, self.site.width, -1).unbind()
        maps = []
        for direction in directions:
            # The merge's number is one of c and d.
            scale = torch.cat([self.merge.new_ones(4), self.merge[direction].expand(2)])[:, None, None]
            made = torch.bmm(code.flatten(0, 2).expand(6, -1, -1), (weights[direction] * scale).mT)
            logits, *rest = made.to(wide(made.dtype)).view(6, *code.shape[:3], self.site.width).split([3, 1, 1, 1])
            maps.append((logits, *(each[0] for each in rest)))
        return maps

    @staticmethod
    def _scanned(u: Tensor, maps: list[tuple[Tensor, ...]], axis: int) -> Tensor:
        """The sum over a pair of opposite directions of y (B, H, W, D)."""
        field = u.movedim(axis, 0).contiguous()
        parts = []
        for reverse, (logits, source, read, skip) in enumerate(maps):
            parts.append(line_scan(source * field, transitions(logits), read, reverse=bool(reverse)))
            parts.append(skip * field)
        return sum(parts[1:], parts[0]).movedim(0, axis)

    def core_cost(self, height: int, width: int) -> Cost:
        """Projections; per direction three neighbours and the read, and a line as the state."""
        elements = height * width * self.site.width
        projection = height * width * (self.down.weight.numel() + self.up.weight.numel())
        return Cost(
            projection_macs=projection,
            mixing_macs=4 * DIRECTIONS * elements,
            state_elements=2 * (height + width) * self.site.width,
        )

    @torch.no_grad()
    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`drift` (B, 4, D, H, W): P₋₁ − P₊₁ of each direction, in pixels across it for each line."""
        code, shown = self.down(u), {}
        for axis, directions in AXES:
            for direction, (logits, *_) in zip(directions, self._maps(code, axis, directions), strict=True):
                p = transitions(logits)
                shown[direction] = (p[0] - p[2]).movedim(0, axis).movedim(-1, 1)
        return {"drift": torch.stack([shown[direction] for direction in range(DIRECTIONS)], 1)}
