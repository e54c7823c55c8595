"""VSSD, non-causal state-space duality (arXiv 2407.18559): one state for all tokens, each with a weight.

For each head, with v the value field u and the maps B, C of x shared by all heads

    m_t = softplus((W_dt x)_t + b_dt) exp(A_log)
    y_t = (Σ_s m_s v_s B_sᵀ) C_t + D v_t

The decay of SSD is dropped and stays as a token's weight: a recurrence from the first token plus one from the last,
minus the token's own term, is the sum over all tokens. The weight is that of the released code; the paper writes 1 / a.
The sum grows with the number of tokens; `normalise=mean` divides it by them.

In the `published` shell this is the whole module `Mamba2` with `linear_attn_duality`: with copied weights as many
parameters, outputs and all gradients within 3e-15 (relative RMS, float64, 5 × 15 tokens, with our ε of
1e-6 in their norm, where they have 1e-5).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import InputError, check_choice, check_number
from operators.initialisation import linear_init
from operators.mixer import Core
from operators.mixers.duality.ssd import RATES
from operators.mixers.heads import check_heads, default_heads
from operators.mixers.ordered import wide_linear
from operators.mixers.scan.branch import step_bias_init
from operators.precision import full_precision
from operators.registry import register
from operators.shell.spec import ShellSpec

_VSSD = "YuHengsss/VSSD README.md"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


@register(
    MixerCard(
        name="vssd",
        family="duality",
        title="Non-causal state-space duality (VSSD)",
        source="arXiv 2407.18559; YuHengsss/VSSD classification/models/mamba2.py at 87b753b",
        year=2024,
        equation="y_t = (Σ_s m_s v_s B_sᵀ) C_t + D v_t, m = softplus(W_dt x + b) exp(A_log) per head",
        code="YuHengsss/VSSD at 87b753b, whole layer: outputs and gradients within 3e-15 (relative RMS, float64)",
        position_aware=False,
        permutation_equivariant=True,
        translation_equivariant="circular",
        linear=False,
        extensive=True,
        fp32_core=True,
        state_param="state_dim",
        backends=("torch",),
        shells={"published": ShellSpec(expand=2, gate="linear", conv=3, norm="layer")},
        preset_params={"published": {"conv": 3}},
        exempt={
            "extreme_inputs[published]": "the output is of fourth degree in x, and LayerNorm cannot square what a "
            "token of 1e6 becomes in float32"
        },
        published=(
            Published("VSSD-Micro (softmax attention in the last stage)", _TOP1, 82.5, _VSSD),
            Published("VSSD-T (softmax attention in the last stage)", _TOP1, 83.6, _VSSD),
            Published("VSSD-S (softmax attention in the last stage)", _TOP1, 84.1, _VSSD),
            Published("VSSD-B (softmax attention in the last stage)", _TOP1, 84.7, _VSSD),
        ),
    )
)
class VSSD(Core):
    """A weighted sum over all tokens of the field u, which each token reads by its own map.

    Initialised as the released module: exp(A_log) uniform within 1 and 16, steps as in Mamba, D = 1. The
    authors' models have convolutions between the layers, and softmax attention in the last stage.

    Args:
        site: where the core stands.
        backend: `torch` or `auto`.
        state_dim: states S per channel.
        heads: number of heads, each with its own weights; None for heads about 64 wide.
        conv: side of a depthwise convolution with SiLU of B and C on the grid; 0 for none; None for 3 in the published
            shell, which convolves u alike, and none in any other.
        normalise: `sum` over the tokens or their `mean`.

    Raises:
        InputError: heads that do not divide the width, an even convolution, or a number out of range.
    """

    no_weight_decay = frozenset({"A_log", "D", "step_bias"})

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        state_dim: int = 64,
        heads: int | None = None,
        conv: int | None = None,
        normalise: str = "sum",
    ) -> None:
        super().__init__(site, backend=backend)
        check_number("mixer.state_dim", state_dim, least=1, most=1024, integer=True)
        conv = 0 if conv is None else conv
        check_convolution("mixer.conv", conv)
        self.normalise = check_choice("mixer.normalise", normalise, ("sum", "mean"))
        self.heads = default_heads(site.width) if heads is None else heads
        check_heads(self.heads, site.width)
        self.value_heads = self.heads
        self.state_dim = state_dim
        self.A_log = nn.Parameter(torch.empty(self.heads).uniform_(*RATES).log())
        self.D = nn.Parameter(torch.ones(self.heads))
        self.step_bias = nn.Parameter(torch.empty(self.heads))
        step_bias_init(self.step_bias)
        self.project = nn.Linear(site.dim, 2 * state_dim + self.heads, bias=False)
        linear_init(self.project)
        channels = 2 * state_dim
        self.conv = nn.Conv2d(channels, channels, conv, padding="same", groups=channels) if conv else None

    @property
    def permutation_equivariant(self) -> bool:
        """Not with a convolution."""
        return self.conv is None

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps B and C (B, N, S) and weights m (B, N, heads), in at least float32, from x (B, H, W, C)."""
        maps, step = wide_linear(x, self.project).split([2 * self.state_dim, self.heads], dim=-1)
        if self.conv is not None:
            maps = grid_convolution(maps, self.conv)
        B, C = maps.flatten(1, 2).chunk(2, dim=-1)
        weight = F.softplus(step + self.step_bias.to(step.dtype)) * self.A_log.to(step.dtype).exp()
        return B, C, weight.flatten(1, 2)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D)."""
        with full_precision(u):
            B, C, weight = self.maps(x)
            v = u.flatten(1, 2).to(B.dtype).unflatten(-1, (self.heads, -1))
            if self.normalise == "mean":
                weight = weight / v.shape[1]
            state = B.mT @ (weight[..., None] * v).flatten(2)
            y = C @ state + (self.D.to(v.dtype)[:, None] * v).flatten(2)
        return y.reshape(u.shape).to(u.dtype)

    def core_cost(self, height: int, width: int) -> Cost:
        """Per token C (2 S + heads) for the maps, S D to write and S D to read, and 2 S for each tap."""
        tokens = height * width
        taps = 0 if self.conv is None else self.conv.weight.numel()
        return Cost(
            projection_macs=tokens * self.project.weight.numel(),
            mixing_macs=tokens * (2 * self.state_dim * self.site.width + taps),
            state_elements=self.state_dim * self.site.width,
        )

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`weight` (B, heads, H, W), with which each token enters the state."""
        return {"weight": self.maps(x)[2].mT.unflatten(-1, x.shape[1:3])}


def grid_convolution(maps: Tensor, conv: nn.Conv2d, *, activate: bool = True) -> Tensor:
    """The depthwise convolution of maps (B, H, W, S) on the grid, with SiLU if `activate`, in the maps' type."""
    bias = None if conv.bias is None else conv.bias.to(maps.dtype)
    with full_precision(maps):
        out = F.conv2d(maps.movedim(-1, 1), conv.weight.to(maps.dtype), bias, padding="same", groups=conv.groups)
    return (F.silu(out) if activate else out).movedim(1, -1)


def check_convolution(name: str, size: int) -> None:
    """Raise `InputError` unless `size` is 0 or an odd side of a convolution, of at most 15."""
    check_number(name, size, least=0, most=15, integer=True)
    if size and size % 2 == 0:
        raise InputError(f"{name}={size} must be odd, or 0 for no convolution")
