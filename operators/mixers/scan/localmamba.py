"""LocalMamba (arXiv 2403.09338): scans window by window beside those of the whole grid, each weighed by its mean.

The `published` shell is `SS2D` of LocalVMamba (`classification/lib/models/local_vmamba.py`) at commit 75e5d1f of
hunto/LocalMamba, with the orders of the first layer of LocalVMamba-T; those of each layer were found by a search among
rows, columns and windows of 2 × 2 and 7 × 7, both ways. Where windows do not divide a grid that code pads with zeros,
at which states decay; here the last windows hold what the grid leaves them. That code also puts columns back as rows,
which is right if H = W only. The mixer of LocalVim has a convolution of width 4 along each order, and its attention
reads gated outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import check_choice, check_number
from operators.initialisation import linear_init
from operators.mixers.scan import FOURTH_DEGREE
from operators.mixers.scan.branch import ScanCore, check_orders, sum_of_scans
from operators.registry import register
from operators.scan import orders as scan_orders
from operators.shell.shell import EPS
from operators.shell.spec import ShellSpec

WINDOW = "window"
"""The order that stands for windows of the side that the parameter `window` has."""
REDUCTION = 8
_LOCALMAMBA = "hunto/LocalMamba README.md"


class DirectionAttention(nn.Module):
    """Weights in (0, 1) for the channels of a scan's output y (B, N, D): σ(W2 GELU(W1 mean_N LN(y)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = max(width // REDUCTION, 1)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.reduce, self.select = nn.Linear(width, self.hidden), nn.Linear(self.hidden, width)
        for linear in (self.reduce, self.select):
            linear_init(linear)

    def forward(self, y: Tensor) -> Tensor:
        """The weights, (B, 1, D)."""
        mean = self.norm(y.to(self.norm.weight.dtype)).mean(1, keepdim=True)
        return torch.sigmoid(self.select(F.gelu(self.reduce(mean))))


@register(
    MixerCard(
        name="localmamba",
        family="scan",
        title="Windowed scans (LocalMamba)",
        source="arXiv 2403.09338; hunto/LocalMamba classification/lib/models/local_vmamba.py at 75e5d1f",
        year=2024,
        equation="y = Σ_p a(y_p) ⊙ y_p, y_p = S6_p(u) along rows, windows and back, a = σ(W2 GELU(W1 mean LN(y_p)))",
        code="hunto/LocalMamba at 75e5d1f: outputs and gradients within 9e-16 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="state_dim",
        backends=("mamba_ssm", "chunked", "cpu", "reference"),
        shells={"published": ShellSpec(expand=2, conv=3, norm="layer")},
        exempt={"extreme_inputs": FOURTH_DEGREE},
        published=(
            Published("LocalVMamba-T", "ImageNet-1k top-1 %, 224 px", 82.7, _LOCALMAMBA),
            Published("LocalVMamba-S", "ImageNet-1k top-1 %, 224 px", 83.7, _LOCALMAMBA),
        ),
    )
)
class LocalMamba(ScanCore):
    """The sum of selective scans of the field u in several orders, windows among them, each weighed channel by channel.

    Args:
        site: where the core stands.
        backend: one of `operators.scan.BACKENDS`, `cuda` apart, or `auto`.
        orders: the scan orders (`operators.scan.orders`), and `window` and `window_r` for windows of the side `window`.
        window: side of the windows.
        merge: `attention`, where the mean of each scan's output weighs its channels, or `sum`.
        state_dim: states S per channel.
        rank: rank of the step's map; None for a sixteenth of the mixer's width C, rounded up.

    Raises:
        InputError: an unknown order or none at all, or a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        orders: Sequence[str] = ("row", "row_r", "window", "window_r"),
        window: int = 7,
        merge: str = "attention",
        state_dim: int = 16,
        rank: int | None = None,
    ) -> None:
        check_number("mixer.window", window, least=1, integer=True)
        check_choice("mixer.merge", merge, ("attention", "sum"))
        sized = {WINDOW + end: f"{WINDOW}_{window}{end}" for end in ("", scan_orders.REVERSED)}
        named = orders if isinstance(orders, str) else [sized.get(name, name) for name in orders]
        super().__init__(
            site,
            backend=backend,
            along=check_orders("mixer.orders", named),
            state_dim=state_dim,
            rank=rank,
        )
        self.attention = DirectionAttention(site.width) if merge == "attention" else None

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D).

        Raises:
            InputError: the backend asked for cannot serve these tensors; says why.
        """
        return sum_of_scans(u, self.along, self._branches(), self._weighed)

    def _weighed(self, y: Tensor) -> Tensor:
        return y if self.attention is None else y * self.attention(y)

    def core_cost(self, height: int, width: int) -> Cost:
        """The branches' costs (`Branch.cost`), and for each order the maps of the attention."""
        cost = super().core_cost(height, width)
        if self.attention is None:
            return cost
        hidden, number = self.attention.hidden, len(self.along)
        return cost + Cost(mixing_macs=number * 2 * hidden * self.site.width, state_elements=number * hidden)

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`step` and `influence` (B, orders, H, W) as of all scans, and `weight` (B, orders, D) of the channels."""
        found = super().inspect(u, x=x)
        if self.attention is not None:
            weights = [
                self.attention(branch(scan_orders.gather(u, scan_orders.base(name)[0])))
                for name, branch in zip(self.along, self._branches(), strict=True)
            ]
            found["weight"] = torch.cat(weights, dim=1)
        return found
