"""Spatial-Mamba (arXiv 2410.15091): states of one selective scan, fused with those around them before they are read.

With h_t the states of a scan of u along an order, S for each channel, H their maps on the grid and maps Δ, B, C of u

    h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t
    H̃ = Σ_k α_k DW_{3, k}(H),   k = 1, 3, 5                  depthwise 3 × 3 convolutions of dilation k
    y_t = C_t · H̃_t + D u_t

Beyond the border a convolution reads the nearest token. Its filters are those of a channel, for all of its states;
they are ones at the start and so are the α, a gain of 27 that a norm behind the core takes away. The released models
have one state a channel. A scan that reads its states with C = 1 gives them, as N · D · S numbers, with the gradients
of any scan.

In the `published` shell this is `StructureAwareSSM` of EdwardChasel/Spatial-Mamba at 71221eb (`classification/models/
spatialmamba.py`, in training; its merged filter for inference is a CUDA kernel), with LayerNorm's eps set to 1e-6.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators import scan
from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import InputError, check_number
from operators.mixers.scan import FOURTH_DEGREE
from operators.mixers.scan.branch import ScanCore
from operators.precision import full_precision, wide
from operators.registry import register
from operators.scan import orders
from operators.scan.steps import changed_steps
from operators.shell.spec import ShellSpec

_SPATIAL = "EdwardChasel/Spatial-Mamba README.md; trained with MESA"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


class StateFusion(nn.Module):
    """A weighted sum of depthwise 3 × 3 convolutions of several dilations, which read the nearest token at the border.

    Args:
        channels: D.
        dilations: of each convolution.
    """

    def __init__(self, channels: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.dilations = tuple(dilations)
        self.kernels = nn.Parameter(torch.ones(len(self.dilations), channels, 1, 3, 3))
        self.alpha = nn.Parameter(torch.ones(len(self.dilations)))

    def forward(self, maps: Tensor) -> Tensor:
        """Fused maps, (B, D, H, W)."""
        reach = max(self.dilations)
        padded = _replicated(_replicated(maps, 2, reach), 3, reach)
        height, width = maps.shape[2:]
        weights = (self.alpha.view(-1, 1, 1, 1, 1) * self.kernels).to(maps.dtype)
        fused: Tensor | None = None
        for dilation, weight in zip(self.dilations, weights, strict=True):
            inset = reach - dilation
            part = padded[:, :, inset : inset + height + 2 * dilation, inset : inset + width + 2 * dilation]
            mixed = F.conv2d(part, weight, dilation=dilation, groups=maps.shape[1])
            fused = mixed if fused is None else fused + mixed
        assert fused is not None
        return fused


def _replicated(maps: Tensor, axis: int, reach: int) -> Tensor:
    """The maps with their first and last lines along an axis repeated `reach` times.

    PyTorch's own padding by replication has a backward pass whose strides the compiler predicts wrongly.
    """
    shape = list(maps.shape)
    shape[axis] = reach
    first, last = maps.narrow(axis, 0, 1), maps.narrow(axis, maps.shape[axis] - 1, 1)
    return torch.cat([first.expand(shape), maps, last.expand(shape)], axis)


@register(
    MixerCard(
        name="spatial_mamba",
        family="scan",
        title="Structure-aware state fusion (Spatial-Mamba)",
        source="arXiv 2410.15091; EdwardChasel/Spatial-Mamba classification/models/spatialmamba.py at 71221eb",
        year=2024,
        equation="y_t = C_t · (Σ_k α_k DW_{3, dilation k}(h))_t + D u_t, h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t",
        code="EdwardChasel/Spatial-Mamba at 71221eb, whole layer: outputs and gradients within 4e-15 (RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        fp32_core=True,
        state_param="state_dim",
        backends=("mamba_ssm", "chunked", "cpu", "reference"),
        shells={"published": ShellSpec(expand=2, conv=3, norm="layer")},
        exempt={"extreme_inputs[published]": FOURTH_DEGREE},
        published=(
            Published("Spatial-Mamba-T", _TOP1, 83.5, _SPATIAL),
            Published("Spatial-Mamba-S", _TOP1, 84.6, _SPATIAL),
            Published("Spatial-Mamba-B", _TOP1, 85.3, _SPATIAL),
        ),
    )
)
class SpatialMamba(ScanCore):
    """One selective scan of the field u, whose states are convolved on the grid before every token reads its own.

    Args:
        site: where the core stands.
        backend: one of `operators.scan.BACKENDS`, `cuda` apart, or `auto`.
        order: scan order (`operators.scan.orders`).
        dilations: of the convolutions of states.
        state_dim: states S per channel.
        rank: rank of the step's map; None for a sixteenth of the mixer's width C, rounded up.

    Raises:
        InputError: an unknown order, a list of dilations that is none, or a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        order: str = "row",
        dilations: Sequence[int] = (1, 3, 5),
        state_dim: int = 1,
        rank: int | None = None,
    ) -> None:
        if isinstance(dilations, str) or not isinstance(dilations, Sequence) or not dilations:
            raise InputError(f"mixer.dilations={dilations!r} must be a list of whole numbers, such as [1, 3, 5]")
        for dilation in dilations:
            check_number("mixer.dilations", dilation, least=1, most=64, integer=True)
        super().__init__(site, backend=backend, along=(str(order),), state_dim=state_dim, rank=rank)
        self.order = orders.base(str(order))[0]
        self.fusion = StateFusion(site.width, dilations)

    def states(self, v: Tensor, step: Tensor, B: Tensor) -> Tensor:
        """All states (B, S, D, N) of the scan of v (B, N, D), whose maps are as a branch makes them.

        Every state is a channel of a scan of one state that reads it as it is.
        """
        (branch,) = self._branches()
        size = branch.state_dim
        A, ones = branch.rates(), torch.ones_like(B.mT[:, :, None])
        initial = branch.initial(len(v))
        h = scan.selective_scan(
            v.mT.repeat(1, size, 1), A=A.mT.reshape(-1, 1), B=B.mT[:, :, None], C=ones, backend=branch.backend,
            reverse=branch.backwards, initial_state=None if initial is None else initial.mT.reshape(len(v), -1, 1),
            **changed_steps(
                step.repeat(1, 1, size), branch.step.bias.repeat(size), A.repeat(size, 1), branch.step_change
            ),
        )  # fmt: skip
        assert isinstance(h, Tensor)
        return h.unflatten(1, (size, -1))

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D).

        Raises:
            InputError: the backend asked for cannot serve these tensors; says why.
        """
        height, width = u.shape[1:3]
        v = orders.gather(u, self.order).to(wide(u.dtype))
        (branch,) = self._branches()
        step, B, C = branch.maps(v)
        with full_precision(u):
            h = self.states(v, step, B).flatten(0, 1).mT  # (B S, N, D)
            fused = self.fusion(orders.scatter(h, self.order, height, width).movedim(-1, 1)).movedim(1, -1)
            fused = fused.unflatten(0, (len(u), branch.state_dim))
            C, field = (orders.scatter(t, self.order, height, width) for t in (C, v))
            y = torch.addcmul(branch.D.to(v.dtype) * field, C[..., :1], fused[:, 0])
            for s in range(1, fused.shape[1]):
                y = torch.addcmul(y, C[..., s : s + 1], fused[:, s])
        return y.to(u.dtype)

    def core_cost(self, height: int, width: int) -> Cost:
        """The scan's, and nine taps of every convolution for each state."""
        (branch,) = self._branches()
        taps = self.fusion.kernels[:, 0].numel()
        states = self.site.width * branch.state_dim
        return super().core_cost(height, width) + Cost(mixing_macs=taps * states * height * width)

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`step` and `influence` (B, 1, H, W) of the scan, before fusion, and `filters` (D, 2 r + 1, 2 r + 1), the

        convolutions as one, of reach r.
        """
        return {**super().inspect(u, x=x, cond=cond), "filters": self.filters()}

    def filters(self) -> Tensor:
        """One filter for each channel (D, 2 r + 1, 2 r + 1), which does what the convolutions do."""
        fusion = self.fusion
        reach = max(fusion.dilations)
        merged = fusion.kernels.new_zeros(self.site.width, 2 * reach + 1, 2 * reach + 1)
        for dilation, alpha, kernel in zip(fusion.dilations, fusion.alpha, fusion.kernels, strict=True):
            taps = slice(reach - dilation, reach + dilation + 1, dilation)
            merged[:, taps, taps] += alpha * kernel[:, 0]
        return merged
