"""Softmax attention inside windows, moved by half a window in every other block: Swin (arXiv 2103.14030).

The grid is cut into windows of w × w tokens. For each head of width d, tokens i and j of a window with q, k = W x + b,
v = u, and a learned table B (section 3.2, equation 4)

    y_i = Σ_j softmax_j(q_i · k_j / √d + B[j − i]) v_j

A shifted layer cuts the grid s tokens further down and to the right. What is left at two opposite borders is put
together to windows, in which tokens from either border do not see each other.

A grid that w does not divide is first padded at the bottom and on the right, as in SwinTransformer/
Swin-Transformer-Object-Detection (`mmdet/models/backbones/swin_transformer.py` at c7b2011), whose padding is tokens of
zeros in front of the maps of q, k and v: they are attended to with the biases as keys and values. With
`padding=attended` that is so here, except that their value is zero, without the bias of W_in, which is outside of the
core. With `padding=masked` nobody sees them. A window larger than the grid is clipped to it, and not shifted, along
each axis by itself (timm; Microsoft's code takes the shorter side for both). timm pads after the shift, and masks the
seam in another place: the result differs from both of these on grids that need padding and a shift.

In the `published` shell this is `WindowAttention` with the windows and masks of `SwinTransformerBlock` of
microsoft/Swin-Transformer at f82860b (`models/swin_transformer.py`): with copied weights, their table turned by 180°
and reordered, outputs and input gradients agree to 6e-16 (relative RMS, float64). On grids that need
padding, those of the detector agree to 9e-16 if the bias of the values is zero, and to 5e-2 with a random one of 0.3.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import InputError, check_choice, check_number
from operators.mixers.local.windowed import WindowedAttention, window_weights
from operators.registry import register
from operators.shell.spec import ShellSpec

PADDINGS = ("attended", "masked")
_SWIN = "microsoft/Swin-Transformer README.md"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


class Windows(NamedTuple):
    """How a grid is cut.

    Attributes:
        grid: rows and columns of tokens.
        sides: rows and columns of a window.
        counts: rows and columns of windows.
        shifts: by how many rows and columns windows are moved.
    """

    grid: tuple[int, int]
    sides: tuple[int, int]
    counts: tuple[int, int]
    shifts: tuple[int, int]

    @property
    def padded(self) -> tuple[int, int]:
        """Rows and columns with padding."""
        return self.counts[0] * self.sides[0], self.counts[1] * self.sides[1]

    def cut(self, field: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
        """The parts (B, windows, heads, tokens, d) of a field (B, H, W, parts · heads · d); padding is zero."""
        batch, height, width, channels = field.shape
        below, right = self.padded[0] - height, self.padded[1] - width
        if below or right:
            field = F.pad(field, (0, 0, 0, right, 0, below))
        if any(self.shifts):
            field = field.roll((-self.shifts[0], -self.shifts[1]), (1, 2))
        (rows, columns), (down, across) = self.sides, self.counts
        split = field.reshape(batch, down, rows, across, columns, parts, heads, channels // (parts * heads))
        by_window = split.permute(5, 0, 1, 3, 6, 2, 4, 7)
        return by_window.reshape(parts, batch, down * across, heads, rows * columns, split.shape[-1]).unbind(0)

    def join(self, mixed: Tensor) -> Tensor:
        """The field (B, H, W, heads · d) of what windows hold, (B, windows, heads, tokens, d), without padding."""
        batch, _, heads, _, width = mixed.shape
        (rows, columns), (down, across) = self.sides, self.counts
        split = mixed.reshape(batch, down, across, heads, rows, columns, width).permute(0, 1, 4, 2, 5, 3, 6)
        field = split.reshape(batch, *self.padded, heads * width)
        if any(self.shifts):
            field = field.roll(self.shifts, (1, 2))
        return field[:, : self.grid[0], : self.grid[1]]

    def places(self, device: torch.device) -> Tensor:
        """(windows, tokens) numbers, row by row, of the tokens of the padded grid."""
        numbers = torch.arange(self.padded[0] * self.padded[1], device=device).view(1, *self.padded, 1)
        return self.cut(numbers, 1, 1)[0][0, :, 0, :, 0]

    def strangers(self, masked: bool, device: torch.device) -> Tensor | None:
        """(windows, tokens, tokens) which tokens of a window do not see each other; None if all do.

        Args:
            masked: whether tokens do not see padding.
            device: of the result.
        """
        if not any(self.shifts) and not (masked and self.padded != self.grid):
            return None
        rows, columns = (
            (place < shift) + 2 * (masked & (place >= length))  # moved to the other end, and padding
            for place, shift, length in zip(
                (torch.arange(side, device=device) for side in self.padded), self.shifts, self.grid, strict=True
            )
        )
        groups = (4 * rows[:, None] + columns).view(1, *self.padded, 1)
        of_window = self.cut(groups, 1, 1)[0][0, :, 0, :, 0]
        return of_window[:, :, None] != of_window[:, None]


@register(
    MixerCard(
        name="window",
        family="local",
        title="Shifted windows (Swin)",
        source="arXiv 2103.14030, section 3.2; microsoft/Swin-Transformer models/swin_transformer.py at f82860b",
        year=2021,
        equation="y_i = Σ_j softmax_j(q_i·k_j / √d + B[j − i]) v_j in the window of i, per head, q, k = W x + b, v = u",
        code="microsoft/Swin-Transformer at f82860b: outputs and gradients within 6e-16 (relative RMS, float64); "
        "padding as in SwinTransformer/Swin-Transformer-Object-Detection at c7b2011, within 9e-16 if W_in has no bias",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        backends=("torch",),
        shells={"published": ShellSpec(gate="none", norm="none", bias=True)},
        published=(
            Published("Swin-T", _TOP1, 81.2, _SWIN),
            Published("Swin-S", _TOP1, 83.2, _SWIN),
            Published("Swin-B", _TOP1, 83.5, _SWIN),
        ),
    )
)
class ShiftedWindow(WindowedAttention):
    """Softmax attention among the tokens of a window; in a trunk, those of every other block are shifted.

    Args:
        site: where the core stands.
        backend: `torch` or `auto`.
        heads: number of heads; None for `default_heads`. The released models' are of 32 channels.
        window: side w of a window.
        shift: by how many rows and columns windows are moved, less than w; None for w // 2 in every second block with
            this mixer of a trunk, and 0 elsewhere.
        padding: `attended` or `masked`, what tokens make of the padding of grids that w does not divide.
        position_bias: whether scores have the table of biases by relative position.
        bias: whether the maps q and k have a bias.

    Raises:
        InputError: heads that do not divide the width, or a value out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        heads: int | None = None,
        window: int = 7,
        shift: int | None = None,
        padding: str = "attended",
        position_bias: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__(site, backend=backend, heads=heads, window=window, position_bias=position_bias, bias=bias)
        if shift is not None:
            check_number("mixer.shift", shift, least=0, integer=True)
            if shift >= window:
                raise InputError(f"mixer.shift={shift} must be less than mixer.window={window}")
        self.shift = (window // 2) * (site.block_index % 2) if shift is None else shift
        self.padding = check_choice("mixer.padding", padding, PADDINGS)

    def windows(self, height: int, width: int) -> Windows:
        """How a grid of that size is cut."""
        grid = height, width
        sides = min(self.window, height), min(self.window, width)
        counts = -(-height // sides[0]), -(-width // sides[1])
        shifts = tuple(0 if length <= self.window else self.shift for length in grid)
        return Windows(grid, sides, counts, (shifts[0], shifts[1]))

    def _queries_keys(self, x: Tensor, windows: Windows) -> tuple[Tensor, ...]:
        """Maps q and k (B, windows, heads, tokens, d); of padding, the biases."""
        if windows.padded == windows.grid or self.qk.bias is None:
            return windows.cut(self.qk(x), 2, self.heads)
        mapped = F.linear(x, self.qk.weight)
        biases = self.qk.bias.to(mapped.dtype).view(2, self.heads, 1, self.head_width)
        q, k = windows.cut(mapped, 2, self.heads)
        return q + biases[0], k + biases[1]

    def _bias(self, windows: Windows) -> Tensor:
        """What is added to scores, (windows or 1, heads or 1, tokens, tokens)."""
        device = self.qk.weight.device
        rows, columns = (torch.arange(side, device=device) for side in windows.sides)
        bias = self.position_biases((rows - rows[:, None])[None], (columns - columns[:, None])[None])[0]
        strangers = windows.strangers(self.padding == "masked", device)
        return bias if strangers is None else bias.masked_fill(strangers[:, None], -torch.inf)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        windows = self.windows(u.shape[1], u.shape[2])
        q, k = self._queries_keys(x, windows)
        (v,) = windows.cut(u, 1, self.heads)
        weights = window_weights(q, k, self._bias(windows))
        return windows.join(weights.to(v.dtype) @ v).to(u.dtype)

    def core_cost(self, height: int, width: int) -> Cost:
        """Maps q and k: 2 N C D; scores and weighted sum: for each token, padding too, 2 D for each of its window."""
        windows = self.windows(height, width)
        tokens = windows.padded[0] * windows.padded[1]
        return Cost(
            projection_macs=height * width * self.qk.weight.numel(),
            mixing_macs=2 * tokens * windows.sides[0] * windows.sides[1] * self.site.width,
        )

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`map` (B, heads, N, N), whose rows sum to one where no padding is attended to, and the table `bias`."""
        height, width = u.shape[1:3]
        windows = self.windows(height, width)
        q, k = self._queries_keys(x, windows)
        weights = window_weights(q, k, self._bias(windows)).transpose(1, 2)
        places = windows.places(u.device)
        tokens = windows.padded[0] * windows.padded[1]
        full = weights.new_zeros(len(u), self.heads, tokens, tokens)
        full[:, :, places[:, :, None], places[:, None]] = weights
        real = full.view(len(u), self.heads, *windows.padded, *windows.padded)[:, :, :height, :width, :height, :width]
        shown = {"map": real.reshape(len(u), self.heads, height * width, height * width)}
        return shown if self.table is None else {**shown, "bias": self.table}
