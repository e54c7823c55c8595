"""HSM-SSD, the hidden-state mixer of EfficientViM (arXiv 2411.15241): channels are mixed on few states, not on tokens.

With v the value field u and the maps B, C, Δ of x, each of S channels

    A = softmax of Δ over all tokens,   h = (A ∘ B)ᵀ v                       S states of D channels
    h ← W_o (h_1 ∘ (SiLU(h_2) + d)),    [h_1 | h_2] = W_h h                  on each state alone
    y = C h

The released module adds a learned number per state to Δ, which the softmax over tokens takes away again: it has no
gradient and is left out. Apart from that the `published` shell is the module `HSMSSD`, compared on 5 × 5 and 6 × 6
tokens, since it takes square grids only; the gated residual around it belongs to the trunk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import check_number
from operators.initialisation import linear_init
from operators.mixer import Core
from operators.mixers.duality.vssd import check_convolution, grid_convolution
from operators.mixers.ordered import wide_linear
from operators.precision import full_precision
from operators.registry import register
from operators.shell.spec import ShellSpec

_VIM = "mlvlab/EfficientViM README.md"


@register(
    MixerCard(
        name="hsm_ssd",
        family="duality",
        title="Hidden-state mixer (HSM-SSD, EfficientViM)",
        source="arXiv 2411.15241; mlvlab/EfficientViM classification/models/EfficientViM.py at 304340c",
        year=2024,
        equation="y = C W_o(h_1 ∘ (SiLU(h_2) + d)), [h_1 | h_2] = W_h h, h = (softmax_tokens(Δ) ∘ B)ᵀ v",
        code="mlvlab/EfficientViM at 304340c: outputs and gradients within 1e-15 (relative RMS, float64)",
        position_aware=False,
        permutation_equivariant=True,
        translation_equivariant="circular",
        linear=False,
        fp32_core=True,
        state_param="state_dim",
        backends=("torch",),
        shells={"published": ShellSpec(gate="none", norm="none", project=False)},
        preset_params={"published": {"conv": 3}},
        published=(
            Published("EfficientViM-M1", "ImageNet-1k top-1 %, 224 px, 300 epochs", 72.9, _VIM),
            Published("EfficientViM-M2", "ImageNet-1k top-1 %, 224 px, 300 epochs", 75.4, _VIM),
            Published("EfficientViM-M3", "ImageNet-1k top-1 %, 224 px, 300 epochs", 77.6, _VIM),
            Published("EfficientViM-M4", "ImageNet-1k top-1 %, 256 px, 300 epochs", 79.4, _VIM),
        ),
    )
)
class HSMSSD(Core):
    """S weighted means of the field u, mixed among channels, from which every token reads by its own map.

    Args:
        site: where the core stands.
        backend: `torch` or `auto`.
        state_dim: states S.
        conv: side of a depthwise convolution of B, C and Δ on the grid; 0 for none; None for 3 in the published shell
            and none in any other.

    Raises:
        InputError: an even convolution, or a number out of range.
    """

    no_weight_decay = frozenset({"skip"})

    def __init__(self, site: Site, *, backend: str = "auto", state_dim: int = 64, conv: int | None = None) -> None:
        super().__init__(site, backend=backend)
        check_number("mixer.state_dim", state_dim, least=1, most=1024, integer=True)
        conv = 0 if conv is None else conv
        check_convolution("mixer.conv", conv)
        self.state_dim = state_dim
        self.project = nn.Linear(site.dim, 3 * state_dim, bias=False)
        self.enter = nn.Linear(site.width, 2 * site.width, bias=False)
        self.leave = nn.Linear(site.width, site.width, bias=False)
        for linear in (self.project, self.enter, self.leave):
            linear_init(linear)
        self.skip = nn.Parameter(torch.ones(1))
        channels = 3 * state_dim
        self.conv = nn.Conv2d(channels, channels, conv, padding="same", groups=channels, bias=False) if conv else None

    @property
    def permutation_equivariant(self) -> bool:
        """Not with a convolution."""
        return self.conv is None

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps B and C and weights A, all (B, N, S), in at least float32, from x (B, H, W, C)."""
        maps = wide_linear(x, self.project)
        if self.conv is not None:
            maps = grid_convolution(maps, self.conv, activate=False)
        B, C, step = maps.flatten(1, 2).chunk(3, dim=-1)
        return B, C, step.softmax(dim=1)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D)."""
        with full_precision(u):
            B, C, weight = self.maps(x)
            state = (weight * B).mT @ u.flatten(1, 2).to(B.dtype)
            kept, gate = wide_linear(state, self.enter).chunk(2, dim=-1)
            state = wide_linear(kept * (F.silu(gate) + self.skip.to(gate.dtype)), self.leave)
            return (C @ state).reshape(u.shape).to(u.dtype)

    def core_cost(self, height: int, width: int) -> Cost:
        """Per token 3 C S for the maps, S D to write and S D to read, 3 S for each tap; 3 D² for each state."""
        tokens, inner = height * width, self.site.width
        taps = 0 if self.conv is None else self.conv.weight.numel()
        return Cost(
            projection_macs=tokens * self.project.weight.numel(),
            mixing_macs=tokens * (2 * self.state_dim * inner + taps) + 3 * self.state_dim * inner**2,
            state_elements=self.state_dim * inner,
        )

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`weight` (B, S, H, W), with which each token enters each state: positive, summing to one over the tokens."""
        return {"weight": self.maps(x)[2].mT.unflatten(-1, x.shape[1:3])}
