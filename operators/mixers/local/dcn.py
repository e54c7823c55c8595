"""Deformable convolution: each token reads K points near it, at places and with weights that the input says.

For each of G groups of channels, at token p, with v = u,

    y_p = Σ_k m_pk v(p + Δ_pk),   v(·) bilinear between tokens, zero beyond the border

    v3        Δ = (r_k + δ) s,   m = softmax_k,   δ and m are linear in GELU(LN(DW x))   (arXiv 2211.05778, equation 2)
    v4        Δ = (r_k + δ) s,   m as it is,      δ and m are linear in x                (arXiv 2401.06197, section 3)
    flow_dcn  Δ = (a_k + δ) ρ σ(W_s x + c_g),   m as it is,   δ and m are linear in x    (arXiv 2410.22655)

r_k are the places of a k × k filter, a_k the same from −1 to 1, s is a constant, ρ = 6, and c_g starts such that groups
reach from 6/G to 6 tokens far. With a scale of the centre (InternImage-H and -G) σ = sigmoid(W_c GELU(LN(DW x))) of a
group mixes in the token itself: y (1 − σ) + v σ.

In the `published` shell v3 is `DCNv3_pytorch` of OpenGVLab/InternImage at 31c962d (`classification/ops_dcnv3/modules/
dcnv3.py`), and v4 `DCNv4` of OpenGVLab/DCNv4 at 4b848f7 (`DCNv4_op/DCNv4/modules/dcnv4.py`) without the outputs that
fill its map up to a multiple of 8: with copied weights, points brought to the order row by row and the kernel of v4,
which is CUDA alone, replaced by the function of v3 that its authors test it with, outputs and input gradients agree to
2e-15 (relative RMS, float64). So does flow_dcn with `MultiScaleDCN` of MCG-NJU/FlowDCN at aa48042
(`src/models/flowdcn.py`) and a plain kernel that rounds down. Their Triton kernel (`src/ops/triton_kernels/forward.py`)
rounds towards zero: between the border above or on the left and one token beyond it extrapolates, where samples fade to
zero here and at the other borders.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import InputError, check_choice, check_number
from operators.mixer import Core
from operators.mixers.controls.controls import check_odd
from operators.mixers.heads import check_heads, default_heads
from operators.mixers.local.sampling import sampled, sampled_by_corners
from operators.mixers.ordered import wide_linear
from operators.precision import full_precision, wide
from operators.registry import register
from operators.runtime.differentiation import forward_mode
from operators.shell.spec import ShellSpec

VARIANTS = ("v3", "v4", "flow_dcn")
GROUP_WIDTH = 16
EPS = 1e-6
NEAR_ONE = 1e-4
"""By how much the reach of the last group of flow_dcn stays below the greatest, relative to that."""
_INTERNIMAGE = "OpenGVLab/InternImage classification/README.md"
_DCNV4 = "OpenGVLab/DCNv4 README.md"
_FLOWDCN = "MCG-NJU/FlowDCN README.md"
_TOP1 = "ImageNet-1k top-1 %, 224 px"
_FID = "ImageNet 256 px FID-50K, 400K steps"


class Points(NamedTuple):
    """The points that tokens read.

    Attributes:
        down: (B, H, W, G, K) rows from the token, positive downwards.
        right: (B, H, W, G, K) columns from the token.
        weights: (B, H, W, G, K).
    """

    down: Tensor
    right: Tensor
    weights: Tensor


@register(
    MixerCard(
        name="dcn",
        family="local",
        title="Deformable convolution (DCNv3, DCNv4, FlowDCN)",
        source="arXiv 2211.05778, equation 2; 2401.06197, section 3; 2410.22655",
        year=2022,
        equation="y_p = Σ_k m_pk u(p + (r_k + δ_pk) s) per group, m softmax over k, bilinear, zero beyond the border",
        code="OpenGVLab/InternImage at 31c962d, OpenGVLab/DCNv4 at 4b848f7 and MCG-NJU/FlowDCN at aa48042, modules of "
        "all three with plain kernels: outputs and gradients within 3e-15 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant="interior",
        linear=False,
        fp32_core=True,
        backends=("grid_sample", "reference"),
        shells={"published": ShellSpec(gate="none", norm="none", bias=True)},
        exempt={"gradients": "maps of offsets and weights start at zero, which stops gradients of the convolution"},
        published=(
            Published("InternImage-T (v3)", _TOP1, 83.5, _INTERNIMAGE),
            Published("InternImage-S (v3)", _TOP1, 84.2, _INTERNIMAGE),
            Published("InternImage-B (v3)", _TOP1, 84.9, _INTERNIMAGE),
            Published("FlashInternImage-T (v4)", _TOP1, 83.6, _DCNV4),
            Published("FlashInternImage-S (v4)", _TOP1, 84.4, _DCNV4),
            Published("FlashInternImage-B (v4)", _TOP1, 84.9, _DCNV4),
            Published("FlowDCN-S (flow_dcn)", _FID, 54.6, _FLOWDCN),
            Published("FlowDCN-B (flow_dcn)", _FID, 28.5, _FLOWDCN),
            Published("FlowDCN-L (flow_dcn)", _FID, 13.8, _FLOWDCN),
        ),
    )
)
class DeformableConvolution(Core):
    """Each token reads bilinear samples of the field around it, at places and with weights of the mixer's input x.

    Maps of v3 and v4 start at zero, so that v3 is a mean over k × k tokens and v4 is zero; in flow_dcn weights start as
    a bias that torch draws, and offsets at zero.

    Args:
        site: where the core stands.
        backend: `grid_sample`, `reference` (plain, gathers all corners), or `auto`: `grid_sample` outside of
            forward-mode differentiation.
        variant: `v3`, `v4` or `flow_dcn`.
        groups: G, number of groups of channels; None for the divisor of the width that comes nearest to 16 channels.
        kernel: k, side of the filter, odd, at least 3 in flow_dcn; there are K = k² points.
        dilation: distance of its points in tokens, of v3 and v4.
        offset_scale: s, of v3 and v4.
        conv: side of the depthwise convolution in front of the maps of v3 and v4, odd; None for k in v3, and for none
            in v4, where it is followed by neither norm nor GELU.
        reach: ρ, tokens that flow_dcn reaches at most while δ is zero, along an axis.
        centre: whether v3 has a scale of the centre.

    Raises:
        InputError: groups that do not divide the width, a value out of range, or one that the variant does not have.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        variant: str = "v3",
        groups: int | None = None,
        kernel: int = 3,
        dilation: int = 1,
        offset_scale: float = 1.0,
        conv: int | None = None,
        reach: float = 6.0,
        centre: bool = False,
    ) -> None:
        super().__init__(site, backend=backend)
        self.variant = check_choice("mixer.variant", variant, VARIANTS)
        flow = variant == "flow_dcn"
        check_odd("mixer.kernel", kernel, least=3 if flow else 1)
        check_number("mixer.dilation", dilation, least=1, most=4096, integer=True)
        check_number("mixer.offset_scale", offset_scale, least=0.001, most=1000)
        check_number("mixer.reach", reach, least=0.001, most=4096)
        check_choice("mixer.centre", centre, (True, False))
        if centre and variant != "v3":
            raise InputError(f"mixer.centre=True is of mixer.variant=v3, not of {variant}")
        if conv is not None:
            check_odd("mixer.conv", conv, least=1)
            if flow:
                raise InputError("mixer.conv is of mixer.variant=v3 and v4: flow_dcn has no convolution")
        self.groups = default_heads(site.width, GROUP_WIDTH) if groups is None else groups
        check_heads(self.groups, site.width, "mixer.groups")
        self.kernel, self.dilation, self.offset_scale, self.reach = kernel, dilation, offset_scale, reach
        number = self.groups * kernel**2
        side = kernel if conv is None and variant == "v3" else conv
        self.conv = None if side is None else nn.Conv2d(site.dim, site.dim, side, padding=side // 2, groups=site.dim)
        self.norm = nn.LayerNorm(site.dim, eps=EPS) if variant == "v3" else None
        self.offsets = nn.Linear(site.dim, 2 * number)
        self.weights = nn.Linear(site.dim, number)
        self.scales = nn.Linear(site.dim, number, bias=False) if flow else None
        self.centre = nn.Linear(site.dim, self.groups) if centre else None
        self.scale: nn.Parameter | None = None
        for linear in (self.offsets, self.weights, self.scales, self.centre):
            if linear is not None:
                nn.init.zeros_(linear.weight)
                if linear.bias is not None and not (flow and linear is self.weights):
                    nn.init.zeros_(linear.bias)
        if flow:
            share = torch.arange(1, self.groups + 1, dtype=torch.float64) / self.groups - NEAR_ONE
            self.scale = nn.Parameter(share.logit().to(torch.get_default_dtype()))

    @property
    def backend(self) -> str:
        """What serves a call: `reference` if asked for, or in forward-mode differentiation."""
        if self.requested_backend == "auto":
            return "reference" if forward_mode() else "grid_sample"
        return self.requested_backend

    def features(self, x: Tensor) -> Tensor:
        """What offsets and weights are linear in, (B, H, W, C)."""
        if self.conv is not None:
            x = self.conv(x.movedim(-1, 1)).movedim(1, -1)
        return x if self.norm is None else F.gelu(self.norm(x.to(self.norm.weight.dtype)))

    def points(self, features: Tensor) -> Points:
        """The points that each token reads, in at least float32; K of them, row by row of the filter."""
        split = (self.groups, self.kernel**2)
        offsets = wide_linear(features, self.offsets).unflatten(-1, (*split, 2))
        weights = wide_linear(features, self.weights).unflatten(-1, split)
        if self.scales is None or self.scale is None:
            places = (torch.arange(self.kernel, device=features.device) - self.kernel // 2) * self.dilation
            scale: Tensor | float = self.offset_scale
        else:
            places = torch.linspace(-1, 1, self.kernel, device=features.device, dtype=offsets.dtype)
            scales = wide_linear(features, self.scales).unflatten(-1, split)
            scale = (scales + self.scale.to(scales.dtype)[:, None]).sigmoid() * self.reach
        down = (offsets[..., 0] + places.repeat_interleave(self.kernel)) * scale
        right = (offsets[..., 1] + places.repeat(self.kernel)) * scale
        return Points(down, right, weights.softmax(-1) if self.variant == "v3" else weights)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """What tokens read, (B, H, W, D).

        Raises:
            InputError: `grid_sample` is asked for in forward-mode differentiation.
        """
        if self.backend == "grid_sample" and forward_mode():
            raise InputError("mixer.backend='grid_sample' has no forward-mode derivatives; use auto or reference")
        features = self.features(x)
        with full_precision(u):
            down, right, weights = self.points(features)
            values = u.to(wide(u.dtype)).unflatten(-1, (self.groups, -1))
            place = [torch.arange(side, device=u.device, dtype=down.dtype) for side in u.shape[1:3]]
            sample = sampled if self.backend == "grid_sample" else sampled_by_corners
            y = sample(values, place[0][:, None, None, None] + down, place[1][:, None, None] + right, weights)
            if self.centre is not None:
                y = y.lerp(values, wide_linear(features, self.centre).sigmoid()[..., None])
        return y.flatten(-2).to(u.dtype)

    def core_cost(self, height: int, width: int) -> Cost:
        """N C for each number that maps make; the depthwise convolution; four corners of each point, 4 K N D."""
        tokens = height * width
        maps = (self.offsets, self.weights, self.scales, self.centre)
        convolution = 0 if self.conv is None else self.conv.weight.numel()
        return Cost(
            projection_macs=tokens * sum(linear.weight.numel() for linear in maps if linear is not None),
            mixing_macs=tokens * (convolution + 4 * self.kernel**2 * self.site.width),
        )

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`down`, `right` and `weights` (B, G, K, H, W): where a token's points are, from itself, and their weights."""
        with full_precision(u):
            points = self.points(self.features(x))
        return {name: part.permute(0, 3, 4, 1, 2) for name, part in points._asdict().items()}
